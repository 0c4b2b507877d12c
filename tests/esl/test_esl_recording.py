"""A call's recording against a scripted switch: it never outlasts a pause that could not be made, nor the consent."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from esl_app.recording import NotRecorded, Recording, adopt, prepare
from tandem import settings as tandem_settings
from tandem.archive import notes
from tandem.outcome import Consent, Outcome, RecordingState
from tandem.recording import Recording as Policy
from tandem.recording import RecordingMode
from tandem.rows import RecordingRecord
from tests.esl.conftest import World
from tests.esl.fake_switch import FakeCall, until

KEY = "AGE-SECRET-KEY-1R0V7TQF2M7PJUZMFVP8X07NFK5807MVGQK284KZJKF45VH2GFGSQ50WYKW"


@pytest.fixture
def changes(tmp_path: Path) -> dict[str, Any]:
    return {"recordings": {"identity": KEY}}


@pytest.fixture
def recorded(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The agent's ``recording``."""
    return getattr(request, "param", {"mode": "always", "consent": "nothing"})


@pytest.fixture
def world(world: World, recorded: dict[str, Any]) -> World:
    """With an agent that is recorded."""
    agent = world.settings.agents["reception"]
    policy = tandem_settings.Agent.model_validate(
        yaml.safe_load(agent.model_dump_json(exclude={"tools", "recording"})) | {"recording": recorded}
    )
    world.settings.agents["reception"] = policy
    return world


def recording_of(world: World, call: FakeCall) -> Recording:
    id = call.headers["variable_sip_h_X-Tandem-Call"]
    return until(lambda: world.server._services.lines.get(id), "the call").recording


def note(world: World) -> RecordingRecord:
    """The newest of the notes."""
    folder = notes.incoming(world.settings.recordings.folder, "worker-1")
    found = until(lambda: sorted(folder.glob("*.json")), "a note")
    return notes.read(found[-1])


def records(world: World) -> list[str]:
    return [command.split(" ")[2] for command in world.switch.apis if command.startswith("uuid_record ")]


def test_it_begins_once_the_fork_is_there_and_ends_with_the_call(world: World) -> None:
    call = world.talking()
    until(lambda: records(world) == ["start"], "the recording to begin")
    begun = [command.split(" ")[0] for command in world.switch.apis]
    assert begun.index("uuid_audio_fork") < begun.index("uuid_record")
    assert (call.variables["RECORD_STEREO"], note(world).state) == ("true", RecordingState.RECORDING)
    call.hang_up()
    assert world.rows.call(call).outcome is Outcome.CALLER_HUNG_UP
    until(lambda: note(world).state is RecordingState.WAITING, "the recording to be handed over")
    assert (note(world).consent, note(world).id) == (Consent.NOT_NEEDED, "1")


def test_a_pause_that_the_switch_does_not_make_ends_the_recording(world: World) -> None:
    call = world.talking()
    recording = recording_of(world, call)
    until(lambda: recording.state == "recording", "the recording to begin")
    world.switch.refuse_api.add("uuid_record")
    with pytest.raises(NotRecorded) as refused:
        recording.pause()
    assert refused.value.cause == "failed"
    assert recording.state == "waiting"
    assert note(world).state is RecordingState.WAITING


def test_what_is_private_stays_so_whoever_resumes(world: World) -> None:
    call = world.talking()
    recording = recording_of(world, call)
    until(lambda: recording.state == "recording", "the recording to begin")
    recording.pause()
    recording.keep_private(True)
    recording.resume()
    assert recording.state == "paused"
    recording.keep_private(False)
    assert records(world) == ["start", "mask", "unmask"]
    recording.pause()
    recording.pause()
    assert records(world)[3:] == ["mask"]


def test_a_recording_that_begins_in_private_begins_masked(world: World) -> None:
    call = world.talking()
    recording = recording_of(world, call)
    until(lambda: recording.state == "recording", "the recording to begin")
    recording.stop()
    recording.keep_private(True)
    recording.start()
    assert records(world) == ["start", "stop", "start", "mask"]
    assert note(world).id == "2"


@pytest.mark.parametrize("recorded", [{"mode": "always"}], indirect=True)
def test_an_announcement_that_is_cut_short_is_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_app.call.FORK_MARGIN_S", 9.8)
    world.switch.plays.clear()
    call = world.talking()
    until(lambda: f"uuid_break {call.uuid} all" in world.switch.apis, "the announcement to be given up")
    assert recording_of(world, call).state == "waiting"
    assert call.executed[-1][0] == "playback"
    call.hang_up()
    world.rows.call(call)
    until(lambda: note(world).state is RecordingState.NOT_MADE, "the note that says so")
    assert (note(world).consent, records(world)) == (Consent.NOT_ASKED, [])


@pytest.mark.parametrize("recorded", [{"mode": "on_demand", "consent": "answer"}], indirect=True)
def test_a_refusal_ends_what_consent_began(world: World) -> None:
    call = world.talking()
    recording = recording_of(world, call)
    with pytest.raises(NotRecorded):
        recording.start()
    call.decides({"command": "record", "id": "r1", "action": "consent_given"})
    call.decides({"command": "record", "id": "r2", "action": "start"})
    until(lambda: recording.state == "recording", "the recording to begin")
    call.decides({"command": "record", "id": "r3", "action": "consent_refused"})
    until(lambda: records(world) == ["start", "stop"], "the recording to end")
    call.decides({"command": "record", "id": "r4", "action": "start"})
    until(lambda: len([text for text in call.texts if text["notice"] == "acted"]) == 4, "the agent to be told")
    assert [text["outcome"] for text in call.texts] == ["done", "done", "done", "refused"]


@pytest.mark.parametrize(
    ("recorded", "goes_on"),
    [
        ({"mode": "always", "consent": "nothing"}, False),
        ({"mode": "always", "consent": "nothing", "after_transfer": True}, True),
    ],
    indirect=["recorded"],
)
def test_it_ends_when_the_caller_is_put_through_unless_it_is_to_go_on(world: World, goes_on: bool) -> None:
    world.switch.on_dial = lambda leg: (leg.ring(), leg.answer())
    call = world.talking()
    recording = recording_of(world, call)
    until(lambda: recording.state == "recording", "the recording to begin")
    world.transfer(call, "sales")
    until(lambda: any(getattr(row, "transferred_to", None) for row in world.rows), "the bridge")
    call.hang_up()
    world.rows.call(call)
    assert records(world) == (["start"] if goes_on else ["start", "stop"])


def taken_over(world: World, call: FakeCall) -> Recording:
    """The call's recording as the next esl_app has it."""
    line = world.server._services.lines[call.headers["variable_sip_h_X-Tandem-Call"]]
    recording = Recording(line.leg, world.settings, "worker-1", line.arrival, time.time)
    recording.take_over()
    return recording


def test_the_next_esl_app_goes_on_with_the_recording(world: World) -> None:
    call = world.talking()
    until(lambda: recording_of(world, call).state == "recording", "the recording to begin")
    recording = taken_over(world, call)
    assert recording.state == "recording"
    recording.keep_private(True)
    recording.keep_private(False)
    recording.stop()
    assert records(world) == ["start", "mask", "unmask", "stop"]
    recording.start()
    assert note(world).id == "2"


def test_what_was_paused_stays_so_and_a_number_is_given_once(world: World) -> None:
    call = world.talking()
    first = recording_of(world, call)
    until(lambda: first.state == "recording", "the recording to begin")
    first.stop()
    folder = notes.incoming(world.settings.recordings.folder, "worker-1")
    kept = notes.kept(world.settings.recordings.folder, "worker-1") / "2026-01-31"
    stored = note(world).model_copy(update={"state": RecordingState.STORED})
    notes.write(kept, stored)
    (folder / f"{notes.stem(stored)}.json").unlink()
    first.start()
    first.pause()
    recording = taken_over(world, call)
    assert (recording.state, note(world).id) == ("paused", "2")
    recording.keep_private(True)
    recording.keep_private(False)
    assert records(world) == ["start", "stop", "start", "mask"]
    recording.resume()
    assert records(world)[-1] == "unmask"


def test_recordings_of_lost_calls_are_handed_over_but_for_those_that_live(tmp_path: Path) -> None:
    def row(call: str, began: float) -> RecordingRecord:
        return RecordingRecord(
            call=call, id="1", worker="w", tenant="t", agent="a", state=RecordingState.RECORDING,
            consent=Consent.NOT_NEEDED, started_at=began, format="wav", keep_until=9,
        )  # fmt: skip

    for call, began in (("lost", 1), ("lives", 1), ("new", 3)):
        notes.write(tmp_path, row(call, began))
    (tmp_path / "torn.json").write_text("{")
    adopt(tmp_path, before=2, now=5, is_lost=lambda call: call != "lives")
    states = {call: notes.read(tmp_path / f"{call}.1.json").state for call in ("lost", "lives", "new")}
    assert states == {"lost": "waiting", "lives": "recording", "new": "recording"}


@pytest.mark.parametrize(
    ("announcement", "token_ms", "told"),
    [
        ("none.wav", 10_000, "No such file"),
        ("recording.wav", 5000, "takes 4086 ms of 3000"),
        ("recording.wav", 10_000, ""),
    ],
    ids=["missing", "too long", "fits"],
)
def test_an_announcement_that_will_not_do_is_told_at_the_start(
    world: World, caplog: pytest.LogCaptureFixture, announcement: str, token_ms: int, told: str
) -> None:
    agent = world.settings.agents["reception"]
    policy = Policy(mode=RecordingMode.ALWAYS, announcement=announcement)
    settings = world.settings.model_copy(
        update={
            "agents": {"reception": agent.model_copy(update={"recording": policy})},
            "media_fork": world.settings.media_fork.model_copy(update={"token_ms": token_ms}),
        }
    )
    prepare(settings, "worker-1")
    assert told in caplog.text
    assert ("will not be recorded" in caplog.text) is bool(told)
