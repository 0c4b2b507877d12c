"""Tools: transfers and hang-ups when they have been heard, HTTP tools beside the audio, results given back."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web

from tandem.rows import ToolCallRecord
from tests.media.fork_client import QUIET
from tests.media.scripted_model import function_call

SPEECH = bytes([0x10]) * 8000


def output(event) -> dict:
    return json.loads(event["item"]["output"])


async def test_a_transfer_goes_out_when_what_was_said_has_been_heard(plane):
    fork, session = await plane.call()
    await session.created("resp_1")
    await session.audio_delta("resp_1", "item_1", SPEECH[:3200])
    await session.audio_done("resp_1", "item_1")
    await session.done(
        "resp_1", calls=(function_call("fc_1", "transfer", {"destination": "sales", "reason": "a quote"}),)
    )
    command = await fork.command()
    assert command == {
        "command": "transfer",
        "id": "fc_1",
        "destination": "sales",
        "number": "",
        "reason": "a quote",
        "summary": "",
        "heard": True,
    }
    sent, heard = fork.messages[2][0], fork.texts[0][0]
    assert heard - sent >= 0.39
    await fork.close()


@pytest.mark.parametrize(("outcome", "responds"), [("busy", True), ("no_answer", True), ("answered", False)])
async def test_the_outcome_of_a_transfer_is_told_to_the_model(plane, outcome, responds):
    fork, session = await plane.call()
    await session.call("resp_1", "fc_1", "transfer", {"destination": "sales", "reason": "prices"})
    await fork.command()
    await fork.notice(notice="transfer", id="fc_1", outcome=None, detail="ringing")
    await fork.notice(notice="transfer", id="fc_1", outcome=outcome, detail="in words")
    item = await session.event("conversation.item.create")
    assert item["item"]["call_id"] == "fc_1"
    assert output(item) == {"outcome": outcome, "detail": "in words"}
    if responds:
        await session.event("response.create", 2)
    await fork.send(QUIET)
    await session.event("input_audio_buffer.append", 2)
    assert len(session.of("response.create")) == (2 if responds else 1)
    assert [(call.name, call.status) for call in plane.of(ToolCallRecord)] == [("transfer", outcome)]
    await fork.close()


async def test_a_destination_that_nobody_configured_is_sent_on_for_the_policy_to_refuse(plane):
    fork, session = await plane.call()
    await session.call("resp_1", "fc_1", "transfer", {"destination": "+19005550100"})
    assert (await fork.command())["destination"] == "+19005550100"
    await fork.notice(notice="transfer", id="fc_1", outcome="refused_by_policy", detail="not allowed")
    assert output(await session.event("conversation.item.create"))["outcome"] == "refused_by_policy"
    await fork.close()


async def test_a_number_that_the_model_names_is_sent_on_as_that(plane):
    fork, session = await plane.call()
    await session.call("resp_1", "fc_1", "transfer", {"number": "+1 202 555 0160", "reason": "home"})
    command = await fork.command()
    assert (command["destination"], command["number"]) == ("", "+1 202 555 0160")
    await fork.close()


@pytest.mark.parametrize(
    ("arguments", "destination", "number"),
    [
        ({"destination": ["sales"], "number": 911}, "", ""),
        ({"destination": {"sales": 1}, "number": {"number": "911"}}, "", ""),
        ({"destination": None, "number": True}, "", ""),
        ({"Destination": "sales", "NUMBER": "911", "dial": "911"}, "", ""),
        ({"destination": "sales\0", "number": "+12025550160\0@x"}, "sales\ufffd", "+12025550160\ufffd@x"),
        ({"destination": "s" * 5000, "number": "1" * 5000}, "s" * 2048, "1" * 2048),
    ],
)
async def test_arguments_that_are_none_come_to_nothing_and_no_end_of_a_string_is_hidden(
    plane, arguments, destination, number
):
    fork, session = await plane.call()
    await session.call("resp_1", "fc_1", "transfer", arguments)
    command = await fork.command()
    assert (command["destination"], command["number"]) == (destination, number)
    await fork.close()


async def test_a_transfer_of_a_cancelled_response_is_not_carried_out(plane):
    fork, session = await plane.call()
    call = function_call("fc_1", "transfer", {"destination": "sales", "reason": "x"})
    await session.created("resp_1")
    await session.send("response.output_item.done", response_id="resp_1", output_index=0, item=call)
    await session.done("resp_1", "cancelled", calls=(call,))
    await session.call("resp_2", "fc_2", "hang_up", {"reason": "done"})
    assert (await fork.command())["command"] == "hang_up"
    assert len(fork.texts) == 1
    await fork.close()


async def test_a_transfer_is_withdrawn_when_the_caller_interrupts_the_announcement(plane):
    fork, session = await plane.call()
    await session.created("resp_1")
    await session.audio_delta("resp_1", "item_1", SPEECH)
    await session.audio_done("resp_1", "item_1")
    await session.done("resp_1", calls=(function_call("fc_1", "transfer", {"destination": "sales"}),))
    await fork.until(lambda: len(fork.audio) > 2560, "audio")
    await session.speech_started("item_2")
    item = await session.event("conversation.item.create")
    assert output(item)["outcome"] == "interrupted"
    await fork.until(lambda: fork.kills == 1, "killAudio")
    await fork.send(QUIET)
    await session.event("input_audio_buffer.append", 2)
    assert [text["type"] for _, text in fork.texts] == ["killAudio"]
    await fork.close()


async def test_a_transfer_does_not_wait_longer_than_its_bound(unstarted):
    unstarted.configure(media_fork={"heard_within_ms": 300})
    await unstarted.start()
    fork, session = await unstarted.call()
    await session.created("resp_1")
    await session.audio_delta("resp_1", "item_1", SPEECH * 5)
    await session.audio_done("resp_1", "item_1")
    await session.done("resp_1", calls=(function_call("fc_1", "transfer", {"destination": "sales"}),))
    command = await fork.command()
    assert command["heard"] is False
    await fork.close()
    await unstarted.stop()


async def test_one_transfer_at_a_time(plane):
    fork, session = await plane.call()
    calls = tuple(function_call(f"fc_{n}", "transfer", {"destination": "sales"}) for n in (1, 2))
    await session.created("resp_1")
    await session.done("resp_1", calls=calls)
    item = await session.event("conversation.item.create")
    assert item["item"]["call_id"] == "fc_2"
    assert output(item)["outcome"] == "failed"
    assert (await fork.command())["id"] == "fc_1"
    await fork.close()


async def test_a_call_reported_twice_is_carried_out_once(plane):
    fork, session = await plane.call()
    call = function_call("fc_1", "hang_up", {"reason": "bye"})
    await session.created("resp_1")
    await session.send("response.output_item.done", response_id="resp_1", output_index=0, item=call)
    await session.done("resp_1", calls=(call,))
    await fork.command()
    await session.created("resp_2")
    await session.done("resp_2", calls=(call,))
    await fork.send(QUIET)
    await session.event("input_audio_buffer.append", 2)
    assert len(fork.texts) == 1
    await fork.close()


async def test_bad_arguments_and_unknown_tools_are_told_to_the_model(plane):
    fork, session = await plane.call()
    bad = function_call("fc_1", "transfer", {}) | {"arguments": "{not json"}
    await session.created("resp_1")
    await session.done("resp_1", calls=(bad, function_call("fc_2", "launch_missiles", {})))
    outputs = [output(await session.event("conversation.item.create", n)) for n in (1, 2)]
    assert "not a JSON object" in outputs[0]["error"]
    assert "no tool named" in outputs[1]["error"]
    await session.event("response.create", 2)
    await fork.close()


class Backend:
    """The agent's own HTTP service."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict, dict]] = []
        self.release = asyncio.Event()
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        self.requests.append((request.method, request.path, dict(request.query) | body, dict(request.headers)))
        match request.path:
            case "/json":
                return web.json_response({"price": 12, "currency": "USD"})
            case "/text":
                return web.Response(text="twelve dollars")
            case "/slow":
                await self.release.wait()
                return web.json_response({"late": True})
            case "/huge":
                return web.Response(body=b"x" * 1_000_000)
            case "/long":
                return web.json_response("y" * 30_000)
            case "/moved":
                raise web.HTTPFound("/json")
        raise web.HTTPInternalServerError(text="broken")


@pytest_asyncio.fixture
async def backend() -> AsyncIterator[Backend]:
    backend = Backend()
    app = web.Application()
    app.router.add_route("*", "/{name}", backend.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    backend.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield backend
    backend.release.set()
    await runner.cleanup()


def tool(backend: Backend, name: str, **more) -> dict:
    return {"name": name, "description": name, "url": f"{backend.url}/{name}"} | more


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("json", {"price": 12, "currency": "USD"}),
        ("text", "twelve dollars"),
        ("huge", {"error": "huge answered with more than 65536 bytes"}),
        ("moved", {"error": "moved answered with HTTP status 302: 302: Found"}),
        ("broken", {"error": "broken answered with HTTP status 500: broken"}),
    ],
)
async def test_http_tools_give_their_result_or_their_error(unstarted, backend, name, expected):
    unstarted.agent(tools=[tool(backend, name)])
    await unstarted.start()
    fork, session = await unstarted.call()
    await session.call("resp_1", "fc_1", name, {"item": "widget"})
    item = await session.event("conversation.item.create")
    assert (output(item) if name != "text" else item["item"]["output"]) == expected
    await session.event("response.create", 2)
    method, path, arguments, headers = backend.requests[0]
    assert (method, path, arguments) == ("POST", f"/{name}", {"item": "widget"})
    assert headers["X-Tandem-Call"] == "call-1"
    assert len(backend.requests) == 1
    await fork.close()
    await unstarted.stop()


async def test_a_get_tool_has_its_arguments_in_the_query_and_its_headers_sent(unstarted, backend):
    unstarted.agent(tools=[tool(backend, "json", method="GET", headers={"X-Key": "secret"})])
    await unstarted.start()
    fork, session = await unstarted.call()
    await session.call("resp_1", "fc_1", "json", {"item": "a b&c", "count": 3, "flag": True})
    await session.event("conversation.item.create")
    method, _, arguments, headers = backend.requests[0]
    assert (method, arguments) == ("GET", {"item": "a b&c", "count": "3", "flag": "true"})
    assert headers["X-Key"] == "secret"
    await fork.close()
    await unstarted.stop()


async def test_a_slow_tool_blocks_no_audio_and_times_out(unstarted, backend):
    unstarted.agent(tools=[tool(backend, "slow", timeout_ms=500)])
    await unstarted.start()
    fork, session = await unstarted.call()
    await session.call("resp_1", "fc_1", "slow", {})
    await unstarted.until(lambda: bool(backend.requests), "the request")
    await fork.send(QUIET)
    await session.event("input_audio_buffer.append", 2)
    await session.say("resp_2", "item_2", SPEECH[:800])
    await fork.until(lambda: len(fork.audio) >= 1600, "audio meanwhile")
    assert session.of("conversation.item.create") == []
    assert output(await session.event("conversation.item.create")) == {"error": "slow did not answer within 500 ms"}
    await session.event("response.create", 2)
    assert [call.status for call in unstarted.of(ToolCallRecord)] == ["timeout"]
    await fork.close()
    await unstarted.stop()


async def test_a_tool_that_cannot_be_reached_says_so(unstarted):
    unstarted.agent(tools=[{"name": "gone", "description": "gone", "url": "http://127.0.0.1:9/x"}])
    await unstarted.start()
    fork, session = await unstarted.call()
    await session.call("resp_1", "fc_1", "gone", {})
    assert "could not be reached" in output(await session.event("conversation.item.create"))["error"]
    await fork.close()
    await unstarted.stop()


async def test_tools_of_one_response_run_side_by_side_and_are_answered_together(unstarted, backend):
    unstarted.agent(tools=[tool(backend, "slow"), tool(backend, "json")])
    await unstarted.start()
    fork, session = await unstarted.call()
    await session.created("resp_1")
    await session.done("resp_1", calls=(function_call("fc_1", "slow", {}), function_call("fc_2", "json", {})))
    first = await session.event("conversation.item.create")
    assert first["item"]["call_id"] == "fc_2"
    assert len(session.of("response.create")) == 1
    backend.release.set()
    second = await session.event("conversation.item.create", 2)
    assert second["item"]["call_id"] == "fc_1"
    await session.event("response.create", 2)
    await fork.close()
    await unstarted.stop()


async def test_long_results_are_cut_for_the_model(unstarted, backend):
    unstarted.agent(tools=[tool(backend, "long")])
    await unstarted.start()
    fork, session = await unstarted.call()
    await session.call("resp_1", "fc_1", "long", {})
    text = (await session.event("conversation.item.create"))["item"]["output"]
    assert len(text) <= 16384 + 6
    assert text.endswith("[cut]")
    await fork.close()
    await unstarted.stop()


async def test_a_call_that_ends_leaves_no_tool_running(unstarted, backend):
    unstarted.agent(tools=[tool(backend, "slow", timeout_ms=60000)])
    await unstarted.start()
    fork, session = await unstarted.call()
    await session.call("resp_1", "fc_1", "slow", {})
    await unstarted.until(lambda: bool(backend.requests), "the request")
    await fork.close()
    await unstarted.until(
        lambda: [call.status for call in unstarted.of(ToolCallRecord)] == ["call_ended"], "the record"
    )
    await unstarted.until(lambda: not any("Errands" in repr(task) for task in asyncio.all_tasks()), "end of the task")
    await unstarted.stop()


async def test_another_esl_app_is_asked_once_more_for_what_is_under_way_and_for_nothing_else(plane):
    fork, session = await plane.call()
    await session.call("resp_1", "fc_1", "transfer", {"destination": "sales", "reason": "prices"})
    first = await fork.command()
    await fork.notice(notice="resumed")
    assert await fork.command(2) == {"command": "present"}
    assert await fork.command(3) == first
    await fork.notice(notice="transfer", id="fc_1", outcome="busy", detail="in words")
    assert output(await session.event("conversation.item.create"))["outcome"] == "busy"
    await fork.notice(notice="resumed")
    assert await fork.command(4) == {"command": "present"}
    await session.call("resp_2", "fc_2", "hang_up", {"reason": "done"})
    assert (await fork.command(5))["command"] == "hang_up", "the transfer is done with"
    await fork.close()
