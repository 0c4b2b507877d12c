"""Faults of the lab's model: each strikes the connection it was scripted for, as scripted, and no other."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from lab import scenario
from lab.faults import Close, ErrorEvent, Fail, Faults, Garbage, Reorder, Stall
from lab.model import LabModel
from lab.voice import speak
from tests.lab.realtime_client import KEY, PATIENCE_S, Client, Closed, connected, said

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEVER_S = 0.4
"""Long enough for what should not come to come."""
GREETING = "Hello, and thank you for calling. How may I help you today?"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[LabModel]:
    script = scenario.load(Path(__file__).with_name("model_scenario.yaml"))
    async with LabModel(script, "127.0.0.1", 0, ear_processes=1) as model:
        yield model


@pytest_asyncio.fixture(loop_scope="module")
async def model(running: LabModel) -> AsyncIterator[LabModel]:
    yield running
    running.faults.clear()


async def ask_to_greet(client: Client) -> None:
    await client.telephone()
    await client.send("response.create", response={"instructions": f'Say "{GREETING}"'})


async def greeted(client: Client) -> dict[str, Any]:
    await ask_to_greet(client)
    return await client.reply()


def received_ms(client: Client) -> int:
    return sum(len(audio) for audio in client.audio.values()) // 8


async def control(model: LabModel, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http:
        async with http.request(method, f"http://{model.address}:{model.port}{path}", json=body) as response:
            return response.status, await response.json()


@pytest.mark.parametrize("status", [401, 403, 429, 503])
async def test_refuse_answers_the_handshake_with_a_status(model: LabModel, status: int) -> None:
    assert await control(model, "POST", "/lab/faults", {"refuse": status}) == (200, {"connections": 1})
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with connected(model):
            pytest.fail("connected")
    assert refused.value.status == status
    async with connected(model) as client:
        assert (await greeted(client))["status"] == "completed"


async def test_faults_are_for_so_many_connections_in_the_order_given(model: LabModel) -> None:
    script = [{"refuse": 503, "connections": 2}, {"refuse": 429}]
    assert await control(model, "POST", "/lab/faults", script) == (200, {"connections": 3})
    for status in (503, 503, 429):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connected(model):
                pytest.fail("connected")
        assert refused.value.status == status
    async with connected(model):
        pass


async def test_faults_can_be_forgotten(model: LabModel) -> None:
    await control(model, "POST", "/lab/faults", {"refuse": 503, "connections": 100})
    assert await control(model, "DELETE", "/lab/faults") == (200, {"connections": 0})
    async with connected(model):
        pass


@pytest.mark.parametrize("body", [{"refusal": 503}, {"refuse": 200}, {"close": {"code": 1}}, 7, {"connections": 0}])
async def test_a_script_that_means_nothing_is_refused(model: LabModel, body: Any) -> None:
    status, answer = await control(model, "POST", "/lab/faults", body)
    assert status == 422
    assert answer["errors"]
    assert model.faults.waiting == 0


@pytest.mark.parametrize("delay", ["connect_delay_ms", "created_delay_ms", "updated_delay_ms"])
async def test_a_delay_delays(model: LabModel, delay: str) -> None:
    model.faults.add(Faults.model_validate({delay: 300}))
    since = time.monotonic()
    async with connected(model) as client:
        await client.configure()
    assert time.monotonic() - since >= 0.3


async def test_never_a_handshake(model: LabModel) -> None:
    model.faults.add(Faults(never="handshake"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(NEVER_S), connected(model, created=False):
            pytest.fail("connected")


@pytest.mark.parametrize("never", ["created", "updated", "reply"])
async def test_what_never_comes_does_not_come(model: LabModel, never: str) -> None:
    model.faults.add(Faults.model_validate({"never": never}))
    async with connected(model, created=False) as client:
        if never != "created":
            await client.until("session.created")
            await client.until("conversation.created")
            await client.send("session.update", session={"type": "realtime"})
        if never == "reply":
            await client.until("session.updated")
            await client.send("response.create")
            await client.until("rate_limits.updated")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(NEVER_S):
                await client.next()


async def test_drop_resets_the_connection_after_so_much_audio(model: LabModel) -> None:
    model.faults.add(Faults(drop_after_ms=400))
    async with connected(model) as client:
        await ask_to_greet(client)
        code, _ = await client.closed()
        assert code in (1006, None)
        assert received_ms(client) == 400
        assert not client.of("response.done")


async def test_a_drop_after_the_end_strikes_at_the_end(model: LabModel) -> None:
    model.faults.add(Faults(drop_after_ms=3_000_000))
    async with connected(model) as client:
        await ask_to_greet(client)
        await client.closed()
        assert received_ms(client) > 2000
        assert not client.of("response.done")


async def test_close_says_its_code_and_reason(model: LabModel) -> None:
    model.faults.add(Faults(close=Close(after_ms=200, code=1012, reason="restarting")))
    async with connected(model) as client:
        await ask_to_greet(client)
        assert await client.closed() == (1012, "restarting")
        assert received_ms(client) == 200


async def test_an_error_event_in_a_reply_does_not_end_it(model: LabModel) -> None:
    model.faults.add(Faults(error=ErrorEvent(after_ms=300, code="inference_slow", message="slow")))
    async with connected(model) as client:
        assert (await greeted(client))["status"] == "completed"
        assert [event["error"]["code"] for event in client.of("error")] == ["inference_slow"]


@pytest.mark.parametrize("after_ms", [0, 300])
async def test_a_response_can_fail(model: LabModel, after_ms: int) -> None:
    model.faults.add(Faults(fail=Fail(after_ms=after_ms)))
    async with connected(model) as client:
        failed = await greeted(client)
        assert failed["status"] == "failed"
        assert failed["status_details"]["error"]["code"] == "rate_limit_exceeded"
        assert received_ms(client) == after_ms
        assert [item["status"] for item in failed["output"]] == (["incomplete"] if after_ms else [])
        await client.send("response.create", response={"instructions": f'"{GREETING}"'})
        assert said(await client.reply()) == GREETING


async def test_only_the_reply_named_is_struck(model: LabModel) -> None:
    model.faults.add(Faults(fail=Fail(), reply=2))
    async with connected(model) as client:
        assert (await greeted(client))["status"] == "completed"
        assert (await greeted(client))["status"] == "failed"
        assert (await greeted(client))["status"] == "completed"


async def test_a_stall_holds_the_rest_up(model: LabModel) -> None:
    model.faults.add(Faults(stall=Stall(after_ms=200, for_ms=400)))
    async with connected(model) as client:
        await ask_to_greet(client)
        while received_ms(client) < 200:
            await client.until("response.output_audio.delta")
        since = time.monotonic()
        await client.until("response.output_audio.delta")
        assert time.monotonic() - since >= 0.3
        assert (await client.reply())["status"] == "completed"


async def test_the_pace_is_as_scripted(model: LabModel) -> None:
    model.faults.add(Faults(factor=8, chunk_ms=40))
    async with connected(model) as client:
        since = time.monotonic()
        await greeted(client)
        sizes = [len(event["delta"]) for event in client.of("response.output_audio.delta")]
        assert set(sizes[:-1]) == {428}
        assert time.monotonic() - since >= received_ms(client) / 1000 / 8 - 0.1


async def test_all_at_once(model: LabModel) -> None:
    model.faults.add(Faults(factor=0, huge_delta=True))
    async with connected(model) as client:
        await greeted(client)
        assert len(client.of("response.output_audio.delta")) == 1
        assert received_ms(client) > 2000


async def test_garbage_comes_in_between_and_the_reply_goes_on(model: LabModel) -> None:
    model.faults.add(Faults(garbage=Garbage(after_ms=200)))
    async with aiohttp.ClientSession() as http:
        async with http.ws_connect(f"{model.url}?model=gpt-realtime-2.1", headers=KEY) as socket:
            await socket.send_str('{"type": "response.create"}')
            frames: list[aiohttp.WSMessage] = []
            async with asyncio.timeout(PATIENCE_S):
                while not frames or '"response.done"' not in str(frames[-1].data):
                    frames.append(await socket.receive())
    assert aiohttp.WSMsgType.BINARY in {frame.type for frame in frames}
    assert "[1,2,3]" in {frame.data for frame in frames}


async def test_text_that_is_not_utf8_can_be_sent(model: LabModel) -> None:
    model.faults.add(Faults(garbage=Garbage(frames=["not_utf8"])))
    async with connected(model, strict=False) as client:
        await ask_to_greet(client)
        with pytest.raises(Closed):
            await client.until("response.done")


async def test_events_can_come_twice(model: LabModel) -> None:
    model.faults.add(Faults(duplicate=["response.done", "response.output_audio.delta"]))
    async with connected(model) as client:
        first = await greeted(client)
        assert (await client.reply())["id"] == first["id"]
        deltas = client.of("response.output_audio.delta")
        assert deltas[0] == deltas[1]


async def test_events_can_come_out_of_order(model: LabModel) -> None:
    held, until = "response.output_item.added", "response.output_audio.delta"
    model.faults.add(Faults(reorder=Reorder(event=held, until=until)))
    async with connected(model) as client:
        await greeted(client)
        types = client.types()
        assert types.index(until) < types.index(held) < types.index("response.done")
        await greeted(client)
        assert client.types().count(held) == 2


async def test_a_session_expires_as_the_real_one_does(model: LabModel) -> None:
    model.faults.add(Faults(session_seconds=0.4))
    async with connected(model) as client:
        assert (await client.error())["code"] == "session_expired"
        code, reason = await client.closed()
        assert code == 1001
        assert "maximum duration" in reason


async def test_a_connection_is_lost_whatever_goes_on(model: LabModel) -> None:
    model.faults.add(Faults(lost_after_ms=300))
    async with connected(model) as client:
        await client.telephone()
        with pytest.raises(Closed):
            await client.until("response.created")


async def test_a_conversation_that_began_elsewhere_goes_on(model: LabModel) -> None:
    def item(kind: str, role: str, text: str) -> dict[str, Any]:
        return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}

    async with connected(model) as client:
        await client.telephone()
        await client.send("conversation.item.create", item=item("input_text", "user", "When are you open?"))
        await client.send("conversation.item.create", item=item("output_text", "assistant", "We are open from"))
        await client.send("response.create")
        again = said(await client.reply())
        assert again
        await client.send("conversation.item.create", item=item("input_text", "user", "When are you open?"))
        await client.send("conversation.item.create", item=item("output_text", "assistant", "From nine."))
        await client.send("response.create")
        assert said(await client.reply()) != again


async def test_the_log_has_both_directions_with_audio_as_its_size(model: LabModel) -> None:
    async with connected(model) as client:
        session = client.events[0]["session"]["id"]
        await client.telephone()
        await client.speak(speak("When are you open?", "caller"))
        reply = await client.reply()
        item = reply["output"][0]["id"]
        await client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=700)
        await client.until("conversation.item.truncated")
    status, log = await control(model, "GET", f"/lab/log?session={session}")
    assert status == 200
    entries = log["entries"]
    truncates = [entry["event"] for entry in entries if entry.get("event", {}).get("type", "").endswith(".truncate")]
    assert [event["audio_end_ms"] for event in truncates] == [700]
    appended = [entry["audio"] for entry in entries if entry["from"] == "client" and "audio" in entry]
    assert sum(audio["bytes"] for audio in appended) == len(speak("When are you open?", "caller")) + 12000
    sent = [entry["audio"] for entry in entries if entry["from"] == "server" and "audio" in entry]
    assert sum(audio["bytes"] for audio in sent) == len(client.audio[item])
    assert [entry["at"] for entry in entries] == sorted(entry["at"] for entry in entries)
    assert not any("delta" in entry["event"] for entry in entries if "audio" in entry)


async def test_the_log_lists_sessions_and_how_they_ended(model: LabModel) -> None:
    async with connected(model) as client:
        session = client.events[0]["session"]["id"]
        _, listed = await control(model, "GET", "/lab/log")
        assert [one["closed"] for one in listed["sessions"] if one["session"] == session] == [None]
        assert (await control(model, "GET", "/healthz"))[1]["sessions"] == 1
    async with asyncio.timeout(PATIENCE_S):
        while (await control(model, "GET", "/healthz"))[1]["sessions"]:
            await asyncio.sleep(0.01)
    _, latest = await control(model, "GET", "/lab/log?session=latest")
    assert (latest["session"], latest["close_code"]) == (session, 1000)
    assert (await control(model, "GET", "/lab/log?session=none"))[0] == 404


async def test_models_are_listed_with_their_end(model: LabModel) -> None:
    _, listed = await control(model, "GET", "/v1/models")
    ends = {one["id"]: one.get("shutdown_date") for one in listed["data"]}
    assert ends["gpt-realtime-2.1"] is None
    assert ends["gpt-realtime"] == "2027-01-20"
    assert (await control(model, "GET", "/v1/models/gpt-realtime-2.1"))[1]["id"] == "gpt-realtime-2.1"
    assert (await control(model, "GET", "/v1/models/none"))[0] == 404
