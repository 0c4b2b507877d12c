"""esl_app on real switches, FreeSWITCH and the lab's: what only the switch can show, with its SIP on the wire."""

import asyncio
import json
import random
import signal
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from esl_app.resumption import LOST
from lab import hearing, transferee
from lab.codec import CODECS
from lab.phone import Call
from lab.switches import SwitchKind, available
from tandem.outcome import Outcome, RefusalCause, TransferOutcome
from tests.esl.cell import Cell, running, until, until_async
from tests.esl.conftest import free_address, site

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATIENCE_S = 20.0


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(SwitchKind), ids=str)
async def shared_cell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cell]:
    reason = available()[request.param]
    if reason:
        pytest.skip(reason)
    folder: Path = tmp_path_factory.mktemp(f"cell-{request.param}")
    for prompt in ("apology", "leave_message"):
        with wave.open(str(folder / f"{prompt}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(tone(0.4).tobytes())
    settings = site(
        free_address(),
        folder,
        esl_app={"voicemail_seconds": 5, "fork_within_ms": 1500},
        freeswitch={"password": "fake", "prompts": str(folder)},
    )
    async with running(Cell(settings, folder, request.param)) as cell:
        yield cell


@pytest_asyncio.fixture(loop_scope="module")
async def cell(shared_cell: Cell) -> AsyncIterator[Cell]:
    """The shared cell with nothing left of the test before."""
    shared_cell.media_fork.refusal = None
    shared_cell.media_fork.delay_s = 0.0
    shared_cell.media_fork.fork_path = "/fork"
    shared_cell.media_fork.released.clear()
    shared_cell.rung.clear()
    if not shared_cell.processes["esl_app"].running:
        await shared_cell.start_esl_app()
    yield shared_cell
    vars(shared_cell).pop("target", None)
    for call in list(shared_cell.edge.calls):
        await call.hangup()
    await shared_cell.idle()


@pytest.fixture
def name() -> str:
    return f"call-{random.getrandbits(32):08x}"


def tone(seconds: float) -> np.ndarray:
    return (np.sin(np.arange(int(8000 * seconds)) * 2 * np.pi * 600 / 8000) * 12000).astype(np.int16)


def statuses(call: Call) -> list[int]:
    return [message.status_code if hasattr(message, "status_code") else message.code for message in call.provisionals]


async def test_a_call_is_reserved_answered_forked_and_ended(cell: Cell, name: str) -> None:
    call, fork = await cell.talks(name)
    assert fork.texts[0] == {"call": name, "session": f"s-{name}"}
    assert fork.query == {"call": name, "token": "it's"}
    assert [status for status in statuses(call) if status > 100] == [180]
    await call.hangup()
    story = await cell.story(name)
    assert story.call.outcome is Outcome.CALLER_HUNG_UP
    assert story.call.codec == "PCMU"
    await until(lambda: fork.closed is not None, "the fork to be closed")


@pytest.mark.parametrize(
    ("codecs", "others", "refused", "record"),
    [(("PCMU", "G722"), ("PCMA", "G722"), ("G722",), "PCMU"), (("G722", "PCMU"), ("PCMU", "G722"), ("PCMU",), "G722")],
)
async def test_a_re_invite_never_changes_the_rate_of_a_forked_call(
    cell: Cell, name: str, codecs: tuple[str, ...], others: tuple[str, ...], refused: tuple[str, ...], record: str
) -> None:
    """mod_audio_fork takes the rate once: half a second of sound must not become a whole one, or a quarter."""
    call, fork = await cell.talks(name, codecs=codecs)

    async def held() -> bool:
        channels = json.loads(await cell.api("show channels as json")).get("rows", [])
        return bool(channels) and record in await cell.api(f"uuid_getvar {channels[0]['uuid']} absolute_codec_string")

    await until_async(held, "the codec to be held")
    before = call.codec
    assert (await call.offer_again(refused)).code == 488
    assert (await call.offer_again(others)).code == 200
    assert before is not None and CODECS[before].rate == CODECS[str(call.codec)].rate
    await fork.decide(command="hang_up", id="h1")
    await call.wait_ended(PATIENCE_S)
    assert (await cell.story(name)).call.codec == record


async def test_any_json_reaches_media_fork_unchanged(cell: Cell, name: str) -> None:
    """The words of a notice through FreeSWITCH's own splitting of arguments."""
    call, fork = await cell.talks(name)
    await fork.decide(
        command="transfer", id="it's \\ \"q\" \\n {a: 'b'} é😀 \u2028 %0A ${uuid} ", destination="nowhere"
    )
    await until(lambda: len(fork.texts) == 2, "the notice")
    notice = fork.texts[1]
    assert notice["id"] == "it's \\ \"q\" \\n {a: 'b'} é😀 \u2028 %0A ${uuid} "
    assert notice["outcome"] == TransferOutcome.UNKNOWN_DESTINATION
    assert json.loads(fork.raw_texts[1]) == notice
    await call.hangup()


@pytest.mark.parametrize(
    "display",
    [
        "Eve%0AUnique-ID: 0%0Avariable_sip_h_X-Tandem-Agent: other%0AEvent-Name: CHANNEL_HANGUP",
        "Eve%250AUnique-ID: 0",
        'Eve\\" %0D%0A%0D%0AContent-Type: text/disconnect-notice',
    ],
)
async def test_a_display_name_forges_nothing(cell: Cell, name: str, display: str) -> None:
    call, fork = await cell.talks(name, from_name=display)
    await fork.decide(command="transfer", id="t", destination="nowhere")
    await until(lambda: len(fork.texts) == 2, "the call to go on")
    await call.hangup()
    story = await cell.story(name)
    assert (story.call.agent, story.call.outcome) == ("reception", Outcome.CALLER_HUNG_UP)


async def test_a_refused_call_was_never_answered_and_says_why(cell: Cell, name: str) -> None:
    cell.media_fork.refusal = (503, "model_unavailable")
    call = await cell.rings(name)
    end = await call.wait_ended(PATIENCE_S)
    assert end.status == 503
    assert end.reason_header == 'SIP;cause=503;text="model_unavailable"'
    # A refusal that comes at once overtakes the ringing.
    assert {status for status in statuses(call) if status > 100} <= {180}
    story = await cell.story(name)
    assert (story.call.outcome, story.call.cause, story.call.sip_status) == (Outcome.REFUSED, "model_unavailable", 503)


async def test_a_call_without_the_edges_headers_is_declined(cell: Cell, name: str) -> None:
    call = await cell.rings(name, without="Agent")
    end = await call.wait_ended(PATIENCE_S)
    assert end.status == 603
    assert (await cell.story(name)).call.cause == RefusalCause.BAD_CALL


async def test_a_caller_who_cancels_leaves_no_session(cell: Cell, name: str) -> None:
    cell.media_fork.delay_s = 0.5
    call = await cell.rings(name)
    await until(lambda: any(asked["call"] == name for asked in cell.media_fork.reserved), "the reservation")
    await call.cancel()
    assert (await call.wait_ended(PATIENCE_S)).status == 487
    assert (await cell.story(name)).call.outcome is Outcome.ABANDONED
    await until(lambda: cell.media_fork.released == [f"s-{name}"], "the session to be given back")


async def test_digits_reach_media_fork(cell: Cell, name: str) -> None:
    call, fork = await cell.talks(name)
    await call.dtmf("4#")
    await until(lambda: len(fork.texts) == 3, "two notices")
    assert [text["digit"] for text in fork.texts[1:]] == ["4", "#"]
    assert all(100 <= text["duration_ms"] <= 1000 for text in fork.texts[1:]), fork.texts
    await call.hangup()


async def test_the_agents_hang_up_is_a_bye(cell: Cell, name: str) -> None:
    call, fork = await cell.talks(name)
    await fork.decide(command="hang_up", id="h")
    end = await call.wait_ended(PATIENCE_S)
    assert end.by == "peer" and "NORMAL_CLEARING" in (end.reason_header or "")
    assert (await cell.story(name)).call.outcome is Outcome.AGENT_HUNG_UP


async def test_put_through_the_caller_and_the_target_are_connected_and_end_together(cell: Cell, name: str) -> None:
    call, fork = await cell.talks(name)
    await fork.decide(command="transfer", id="t", destination="sales")
    await until(lambda: fork.closed is not None, "the agent to leave")
    [target] = cell.rung
    assert target.called == "2001"
    assert target.caller == "+12025550147"
    assert target.header("X-Tandem-Trunk") == "pbx"
    assert target.header("X-Tandem-Call") == name
    assert fork.texts[1:] == [
        {"notice": "transfer", "id": "t", "outcome": None, "detail": "ringing"},
        {"notice": "ended", "why": "transferred"},
    ]
    await hears(target, call)
    await hears(call, target)
    await target.hangup()
    assert (await call.wait_ended(PATIENCE_S)).by == "peer"
    story = await cell.story(name)
    assert (story.call.outcome, story.call.transferred_to) == (Outcome.TRANSFERRED, "sales")
    assert [transfer.outcome for transfer in story.transfers] == [TransferOutcome.ANSWERED]


async def hears(listener: Call, speaker: Call) -> None:
    """What one says reaches the other, from some moment on: they are connected."""
    heard = asyncio.ensure_future(listener.audio.wait_loud(PATIENCE_S))
    while not heard.done():
        await speaker.audio.play(tone(0.2))
    await heard


async def test_a_wideband_caller_put_through_to_a_g711_phone_may_change_to_g711(cell: Cell, name: str) -> None:
    call, fork = await cell.talks(name, codecs=("G722",))
    await fork.decide(command="transfer", id="t", destination="sales")
    await until(lambda: fork.closed is not None, "the agent to leave")
    [target] = cell.rung
    assert (call.codec, target.codec) == ("G722", "PCMU")
    await hears(target, call)
    await hears(call, target)
    assert (await call.offer_again(("PCMA",))).code == 200, "there is no fork any more"
    await hears(target, call)
    await hears(call, target)
    await call.hangup()
    await target.wait_ended(PATIENCE_S)


async def test_while_the_target_rings_the_caller_hears_it_and_keeps_the_agent(cell: Cell, name: str) -> None:
    answer = asyncio.Event()

    async def rings(target: Call) -> None:
        await target.ringing()
        await answer.wait()
        await target.reject(486)

    cell.target = rings  # type: ignore[method-assign]
    call, fork = await cell.talks(name)
    await fork.decide(command="transfer", id="t", destination="sales")
    await until(lambda: len(fork.texts) == 2, "ringing")
    heard_at = await call.audio.wait_loud(PATIENCE_S)
    assert heard_at > 0
    assert fork.peak < 500, "the agent does not hear the ringing"
    await call.dtmf("7")
    await until(lambda: any(text.get("digit") == "7" for text in fork.texts), "the agent to hear a digit")
    answer.set()
    await until(lambda: fork.texts[-1].get("outcome") == "busy", "the agent to be told")
    assert fork.texts[-1]["detail"] == "the line is busy (SIP 486)"
    assert fork.closed is None
    await call.audio.wait_quiet(1000, PATIENCE_S)
    await call.hangup()
    story = await cell.story(name)
    assert [(row.outcome, row.sip_status) for row in story.transfers] == [(TransferOutcome.BUSY, 486)]


@pytest.mark.parametrize(
    ("status", "outcome"), [(603, "rejected"), (404, "unreachable"), (480, "unreachable"), (503, "unreachable")]
)
async def test_what_the_target_answers_is_what_the_agent_is_told(
    cell: Cell, name: str, status: int, outcome: str
) -> None:
    async def refuses(target: Call) -> None:
        await target.reject(status)

    cell.target = refuses  # type: ignore[method-assign]
    call, fork = await cell.talks(name)
    await fork.decide(command="transfer", id="t", destination="sales")
    await until(lambda: len(fork.texts) == 2, "the agent to be told")
    assert fork.texts[1]["outcome"] == outcome
    assert f"SIP {status}" in fork.texts[1]["detail"]
    await call.hangup()
    assert (await cell.story(name)).call.outcome is Outcome.CALLER_HUNG_UP


async def test_a_caller_who_hangs_up_while_it_rings_leaves_no_leg(cell: Cell, name: str) -> None:
    async def rings(target: Call) -> None:
        await target.ringing()

    cell.target = rings  # type: ignore[method-assign]
    call, fork = await cell.talks(name)
    await fork.decide(command="transfer", id="t", destination="sales")
    await until(lambda: len(fork.texts) == 2, "ringing")
    await call.hangup()
    end = await cell.rung[0].wait_ended(PATIENCE_S)
    assert end.cause == "cancel"
    assert [row.outcome for row in (await cell.story(name)).transfers] == [TransferOutcome.CALLER_HUNG_UP]


@pytest.mark.parametrize("hangs_up_after_s", [0.0, 0.02, 0.05])
async def test_answer_and_hang_up_at_once_leave_no_leg(cell: Cell, name: str, hangs_up_after_s: float) -> None:
    async def answers(target: Call) -> None:
        await target.ringing()
        await target.answer()
        await asyncio.sleep(hangs_up_after_s)
        await call.hangup()

    cell.target = answers  # type: ignore[method-assign]
    call, fork = await cell.talks(name)
    await fork.decide(command="transfer", id="t", destination="sales")
    await until(lambda: cell.rung, "the target to be rung")
    await cell.rung[0].wait_ended(PATIENCE_S)
    assert (await cell.story(name)).call.outcome in (Outcome.CALLER_HUNG_UP, Outcome.TRANSFERRED)
    await cell.idle()


async def test_a_target_that_answers_and_is_gone_leaves_nobody_in_silence(cell: Cell, name: str) -> None:
    async def answers_and_leaves(target: Call) -> None:
        await target.answer()
        await target.hangup()

    cell.target = answers_and_leaves  # type: ignore[method-assign]
    call, fork = await cell.talks(name)
    await fork.decide(command="transfer", id="t", destination="sales")
    await until(lambda: len(fork.texts) >= 2 or fork.closed is not None or call.end is not None, "what comes of it")
    if call.end is None and fork.closed is None:
        await call.hangup()
    story = await cell.story(name)
    assert story.call.outcome in (Outcome.CALLER_HUNG_UP, Outcome.TRANSFERRED, Outcome.FELL_BACK)


async def test_a_refer_is_done_when_the_notify_says_so_and_private_headers_stay_here(cell: Cell, name: str) -> None:
    call, fork = await cell.talks(name)
    call.handlers["REFER"] = transferee.reports(100, 180, 200)
    await fork.decide(command="transfer", id="t", destination="partner")
    end = await call.wait_ended(PATIENCE_S)
    assert end.by == "peer"
    [refer] = [request for request in call.requests if request.method == "REFER"]
    assert refer.headers.get("Refer-To") == "<sip:+12025550160@127.0.0.21:5060>"
    assert b"X-Tandem" not in bytes(refer)
    story = await cell.story(name)
    assert (story.call.outcome, story.call.transferred_to) == (Outcome.TRANSFERRED, "partner")
    assert [(row.method, row.outcome) for row in story.transfers] == [("refer", TransferOutcome.ANSWERED)]
    await cell.idle()


async def test_a_refer_that_fails_late_is_told_truthfully_and_its_ghost_killed(cell: Cell, name: str) -> None:
    call, fork = await cell.talks(name)
    call.handlers["REFER"] = transferee.reports(100, 486)
    await fork.decide(command="transfer", id="t", destination="partner")
    await call.wait_ended(PATIENCE_S)
    story = await cell.story(name)
    assert (story.call.outcome, story.call.sip_status) == (Outcome.FAILED, 486)
    assert [row.outcome for row in story.transfers] == [TransferOutcome.BUSY]
    await cell.idle()


async def test_a_refer_that_fails_with_its_subscription_alive_leaves_the_caller_with_the_agent(
    cell: Cell, name: str
) -> None:
    call, fork = await cell.talks(name)
    call.handlers["REFER"] = transferee.reports(100, 486, terminates=False)
    await fork.decide(command="transfer", id="t", destination="partner")
    await until(lambda: len(fork.texts) == 2, "the agent to be told")
    assert fork.texts[1]["outcome"] == "busy"
    assert call.end is None and fork.closed is None
    await call.hangup()
    assert (await cell.story(name)).call.outcome is Outcome.CALLER_HUNG_UP


async def test_a_refused_refer_is_bridged_instead(cell: Cell, name: str) -> None:
    call, fork = await cell.talks(name)
    call.handlers["REFER"] = transferee.answers(603)
    await fork.decide(command="transfer", id="t", destination="partner")
    await until(lambda: fork.closed is not None, "the agent to leave")
    assert [target.called for target in cell.rung] == ["+12025550160"]
    assert cell.rung[0].caller == "+12025550100", "the carrier allows its own numbers only"
    await call.hangup()
    story = await cell.story(name)
    assert story.call.outcome is Outcome.TRANSFERRED
    assert [(row.method, row.outcome) for row in story.transfers] == [("bridge", TransferOutcome.ANSWERED)]


async def test_a_fork_lost_in_mid_call_means_an_apology_and_voicemail(cell: Cell, name: str) -> None:
    call, fork = await cell.talks(name)
    await fork.socket.close()
    since = call.audio.now()
    await call.audio.wait_loud(PATIENCE_S)
    # The apology, the prompt, the tone: then the message.
    message = cell.settings.freeswitch.voicemail / f"{name}.wav"
    await until(message.exists, "the recording to begin")
    assert hearing.loud_seconds(call.audio.heard(), since) > 0.8, "apology and prompt"
    await call.audio.play(tone(1.0))
    await call.hangup()
    story = await cell.story(name)
    assert (story.call.outcome, story.call.cause) == (Outcome.FELL_BACK, "fork_lost")
    assert message.stat().st_size > 8000


async def test_a_model_lost_in_mid_call_reaches_the_person_behind_the_number(cell: Cell, name: str) -> None:
    call, fork = await cell.talks(name, Number="+12025550102")
    await fork.decide(command="model_lost", cause="gone")
    await until(lambda: cell.rung, "the fallback to be rung")
    await hears(cell.rung[0], call)
    await call.hangup()
    story = await cell.story(name)
    assert (story.call.outcome, story.call.cause, story.call.transferred_to) == (
        Outcome.FELL_BACK,
        "model_lost",
        "sales",
    )


@pytest.mark.parametrize("path", ["/nowhere", ":1/closed"])
async def test_a_fork_that_cannot_connect_means_the_fallback(cell: Cell, name: str, path: str) -> None:
    cell.media_fork.fork_path = path
    call = await cell.rings(name, Number="+12025550102")
    await call.wait_answered(PATIENCE_S)
    await until(lambda: cell.rung, "the fallback to be rung")
    await hears(cell.rung[0], call)
    await call.hangup()
    story = await cell.story(name)
    assert (story.call.outcome, story.call.cause) == (Outcome.FELL_BACK, "fork_not_connected")


async def test_esl_app_killed_before_answer_is_503_for_the_next_worker(cell: Cell, name: str) -> None:
    cell.media_fork.delay_s = 3.0
    call = await cell.rings(name)
    await until(lambda: any(asked["call"] == name for asked in cell.media_fork.reserved), "the reservation")
    await cell.processes["esl_app"].kill()
    end = await call.wait_ended(PATIENCE_S)
    assert end.status == 503


async def test_a_call_goes_on_without_esl_app_and_the_next_one_takes_it_over(cell: Cell, name: str) -> None:
    call, fork = await cell.talks(name)
    await cell.processes["esl_app"].kill()
    heard = fork.audio_bytes
    await until(lambda: fork.audio_bytes > heard + 16000, "the audio to go on")
    await fork.decide(command="hang_up", id="lost")
    await cell.start_esl_app()
    await until(lambda: fork.texts[-1] == {"notice": "resumed"}, "the next esl_app")
    await fork.decide(command="present")
    await call.dtmf("1")
    await until(lambda: fork.texts[-1].get("digit") == "1", "the digit to be passed on")
    assert call.end is None, "what nobody heard is done when it is repeated"
    await fork.decide(command="hang_up", id="lost")
    assert (await call.wait_ended(PATIENCE_S)).by == "peer"
    assert (await cell.story(name)).call.outcome is Outcome.AGENT_HUNG_UP


async def test_a_call_put_through_survives_esl_app_and_ends_on_record(cell: Cell, name: str) -> None:
    call, fork = await cell.talks(name)
    await fork.decide(command="transfer", id="t", destination="sales")
    await until(lambda: fork.closed is not None, "the agent to leave")
    await hears(cell.rung[0], call)
    await asyncio.sleep(0.5)
    await cell.processes["esl_app"].kill()
    await cell.start_esl_app()
    await asyncio.sleep(0.5)
    assert call.end is None and cell.rung[0].end is None
    await call.hangup()
    assert (await cell.rung[0].wait_ended(PATIENCE_S)).by == "peer"
    story = await cell.story(name)
    assert (story.call.outcome, story.call.transferred_to) == (Outcome.TRANSFERRED, "sales")


async def test_a_target_that_rings_for_a_killed_esl_app_is_hung_up_by_the_next(cell: Cell, name: str) -> None:
    async def rings(target: Call) -> None:
        await target.ringing()

    cell.target = rings  # type: ignore[method-assign]
    call, fork = await cell.talks(name)
    await fork.decide(command="transfer", id="t", destination="sales")
    await until(lambda: len(fork.texts) == 2, "ringing")
    await until(lambda: cell.live(name) and cell.live(name).transfers, "the transfer to be on record")
    await cell.processes["esl_app"].kill()
    await cell.start_esl_app()
    assert (await cell.rung[0].wait_ended(PATIENCE_S)).cause == "cancel"
    await until(lambda: fork.texts[-1] == {"notice": "resumed"}, "the next esl_app")
    await fork.decide(command="present")
    await call.hangup()
    story = await cell.story(name)
    assert story.call.outcome is Outcome.CALLER_HUNG_UP
    assert [transfer.detail for transfer in story.transfers] == [LOST]


async def test_a_drain_finishes_calls_refuses_new_ones_and_says_so_to_probes(cell: Cell, name: str) -> None:
    call, fork = await cell.talks(name)
    process = cell.processes["esl_app"]
    process.signal(signal.SIGTERM)

    async def paused() -> bool:
        return await cell.edge.options(cell.worker) == 503

    await until_async(paused, "OPTIONS to be answered 503")
    refused = await cell.rings(f"{name}-refused")
    assert (await refused.wait_ended(PATIENCE_S)).status == 503
    await call.dtmf("1")
    await until(lambda: len(fork.texts) == 2, "the old call to go on")
    await call.hangup()
    assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    assert (await cell.story(name)).call.outcome is Outcome.CALLER_HUNG_UP
    await cell.start_esl_app()

    async def resumed() -> bool:
        return await cell.edge.options(cell.worker) == 200

    await until_async(resumed, "OPTIONS to be answered 200")
