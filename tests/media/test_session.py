"""Sessions and tokens: reserve, then fork; refusals before answer."""

import asyncio
import base64
import contextlib

from websockets.exceptions import InvalidStatus

from tests.media.fork_client import QUIET, ForkClient


async def test_reservation_needs_the_model_ready_and_sends_the_agents_session(plane, model):
    reply = await plane.reserve()
    session = await model.session()
    assert reply["rate"] == 8000
    assert reply["expires_in_ms"] == plane.settings.media_fork.token_ms
    update = (await session.event("session.update"))["session"]
    assert update["audio"]["input"]["format"] == update["audio"]["output"]["format"] == {"type": "audio/pcmu"}
    assert update["audio"]["output"]["voice"] == "marin"
    assert {tool["name"] for tool in update["tools"]} == {"transfer", "hang_up"}
    transfer = next(tool for tool in update["tools"] if tool["name"] == "transfer")
    assert transfer["parameters"]["properties"]["destination"]["enum"] == ["sales"]
    assert "prices, quotes and new orders" in transfer["parameters"]["properties"]["destination"]["description"]
    assert model.requests[0].path == "/v1/realtime?model=gpt-realtime-2.1"


async def test_first_frame_reaches_the_model_and_the_greeting_is_asked_for_in_its_words(plane, model):
    reply = await plane.reserve()
    session = await model.session()
    fork = await ForkClient.connect(plane.url(reply))
    await fork.hello("call-1", reply["session"])
    first = bytes(range(160)) * 2
    await fork.send(first)
    append = await session.event("input_audio_buffer.append")
    assert len(base64.b64decode(append["audio"])) == 160
    create = await session.event("response.create")
    assert plane.settings.agents["reception"].greeting.strip() in create["response"]["instructions"]
    await fork.close()


async def test_hello_and_audio_in_one_burst_lose_nothing(plane, model):
    reply = await plane.reserve()
    session = await model.session()
    fork = await ForkClient.connect(plane.url(reply))
    await asyncio.gather(fork.hello("call-1", reply["session"]), *(fork.send(QUIET) for _ in range(10)))
    await session.until(lambda: len(session.audio) == 1600, "all ten frames")
    await fork.close()


async def test_a_token_works_once(plane):
    reply = await plane.reserve()
    fork = await plane.fork(reply)
    try:
        await ForkClient.connect(plane.url(reply))
        raise AssertionError("admitted twice")
    except InvalidStatus as refused:
        assert refused.response.status_code == 403
    assert fork.closed is None
    await fork.close()


async def test_a_token_expires_and_the_model_is_released(unstarted, model):
    unstarted.configure(media_fork={"token_ms": 100})
    await unstarted.start()
    reply = await unstarted.reserve()
    session = await model.session()
    await session.until(lambda: session.closed, "close of the model's session")
    assert len(unstarted.sessions) == 0
    try:
        await ForkClient.connect(unstarted.url(reply))
        raise AssertionError("admitted late")
    except InvalidStatus as refused:
        assert refused.response.status_code == 403
    await unstarted.stop()


async def test_a_caller_who_gives_up_releases_the_model(plane, model):
    reply = await plane.reserve()
    session = await model.session()
    async with plane.client.delete(f"{plane.http}/v1/sessions/{reply['session']}") as response:
        assert response.status == 204
    await session.until(lambda: session.closed, "close of the model's session")
    async with plane.client.delete(f"{plane.http}/v1/sessions/{reply['session']}") as response:
        assert response.status == 404


async def test_closing_the_fork_closes_the_model(plane, model):
    fork, session = await plane.call()
    await fork.close()
    await session.until(lambda: session.closed, "close of the model's session")
    await plane.until(lambda: len(plane.sessions) == 0, "end of the session")


async def test_capacity_is_refused_with_its_cause_and_the_rest_go_on(unstarted):
    unstarted.configure(media_fork={"max_sessions": 1})
    await unstarted.start()
    fork, session = await unstarted.call()
    status, refusal = await unstarted.post(call="call-2")
    assert (status, refusal["cause"]) == (503, "at_capacity")
    await fork.send(QUIET)
    await session.event("input_audio_buffer.append", 2)
    await unstarted.stop()


async def test_unknown_agent_is_404(plane):
    status, refusal = await plane.post(agent="nobody")
    assert (status, refusal["cause"]) == (404, "unknown_agent")


async def test_a_bad_request_is_422_and_names_the_field(plane):
    status, refusal = await plane.post(codec="GSM")
    assert (status, refusal["cause"]) == (422, "bad_call")
    assert refusal["message"].startswith("codec:")
    for body in (b"", b"[]", b"\xff\xfe", b"{" * 100, b'{"call":""}'):
        async with plane.client.post(f"{plane.http}/v1/sessions", data=body) as response:
            assert response.status == 422
            assert (await response.json())["cause"] == "bad_call"
    async with plane.client.post(f"{plane.http}/v1/sessions", data=b"x" * 100_000) as response:
        assert response.status == 422


async def test_a_model_that_refuses_the_connection_is_model_unavailable(plane, model):
    model.status = 401
    status, refusal = await plane.post()
    assert (status, refusal["cause"]) == (503, "model_unavailable")
    assert "401" in refusal["message"]
    assert len(plane.sessions) == 0


async def test_a_model_that_is_not_there_is_model_unavailable(unstarted):
    unstarted.configure(model={"url": "ws://127.0.0.1:9/v1/realtime"})
    await unstarted.start()
    status, refusal = await unstarted.post()
    assert (status, refusal["cause"]) == (503, "model_unavailable")
    await unstarted.stop()


async def test_a_model_that_is_not_ready_in_time_is_model_unavailable_and_left(unstarted, model):
    unstarted.configure(model={"url": model.url, "ready_within_ms": 300})
    model.greet = False
    await unstarted.start()
    status, refusal = await unstarted.post()
    assert (status, refusal["cause"]) == (503, "model_unavailable")
    session = await model.session()
    await session.until(lambda: session.closed, "close of the model's session")
    await unstarted.stop()


async def test_a_session_update_that_is_refused_is_model_unavailable(plane, model):
    model.greet = False
    posting = asyncio.ensure_future(plane.post())
    session = await model.session()
    await session.send("session.created", session={"type": "realtime"})
    await session.event("session.update")
    await session.error("invalid_value")
    status, refusal = await posting
    assert (status, refusal["cause"]) == (503, "model_unavailable")
    assert "invalid_value" in refusal["message"]


async def test_draining_refuses_new_sessions_and_waits_for_the_old(plane):
    fork, _ = await plane.call()
    draining = asyncio.ensure_future(plane.sessions.drain(30))
    await plane.until(lambda: plane.sessions.draining)
    status, refusal = await plane.post(call="call-2")
    assert (status, refusal["cause"]) == (503, "draining")
    status, body = await plane.get("/healthz")
    assert status == 503
    assert '"draining"' in body
    assert not draining.done()
    await fork.close()
    await asyncio.wait_for(draining, 5)


async def test_draining_that_takes_too_long_hands_callers_to_their_fallback(plane):
    fork, _ = await plane.call()
    await plane.sessions.drain(0.01)
    plane.sessions.lose_models("media_fork_stopped")
    assert await fork.command() == {"command": "model_lost", "cause": "media_fork_stopped"}
    await fork.close()


async def test_health_and_metrics_tell_the_load(plane):
    fork, _ = await plane.call()
    status, body = await plane.get("/healthz")
    assert status == 200
    assert '"sessions": 1' in body
    status, body = await plane.get("/metrics")
    assert "tandem_media_sessions 1.0" in body
    assert 'tandem_media_sessions_reserved_total{codec="PCMU"} 1.0' in body
    await fork.close()


async def test_an_http_connection_without_a_request_is_closed(unstarted):
    unstarted.configure(media_fork={"first_frame_ms": 200})
    await unstarted.start()
    host, port = unstarted.http.removeprefix("http://").split(":")
    for said in (b"", b"GET /healthz HTTP/1.1\r\nHost"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(said)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
    status, _ = await unstarted.get("/healthz")
    assert status == 200
    await unstarted.stop()
