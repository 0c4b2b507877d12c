"""Any course of a conversation, in simulated time: what is sent is always valid, and never more than was meant."""

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media_fork import tools
from media_fork.carriage import CARRIAGES
from media_fork.client_events import session_update
from media_fork.conversation import KILL_AUDIO, Conversation, World
from media_fork.events import LiveEvents
from media_fork.g711 import ulaw_to_l16
from media_fork.metrics import Counts, Metrics
from media_fork.toolservers import ToolServers
from tandem.destinations import Destination
from tandem.rows import Row, TimingRecord, TurnRecord
from tandem.seam import NOTICE, Codec
from tandem.settings import Agent, MediaFork
from tests.media.scripted_model import function_call, judge_client_event
from tests.media.simulated import SimulatedClock, SwitchOutput

AGENT = Agent(instructions="Help.", greeting="Hello.", destinations=["sales"], language="en")
LOUD = 0x10
SAID = np.frombuffer(ulaw_to_l16(bytes([LOUD])), "<i2")[0]


class Model:
    """Says what it is told to, and keeps the rules of a Realtime server."""

    def __init__(self, conversation: Conversation, count: int = 0) -> None:
        self.conversation = conversation
        self.events: list[dict[str, Any]] = []
        self.appended = 0
        self.closed = False
        self.active: str | None = None
        self.received: dict[str, int] = {}
        self.truncated: set[str] = set()
        self.told: set[str] = set()
        """Ids of items that it was told."""
        self.count = self.count_speech = count

    def send_audio(self, event: bytes) -> None:
        self.appended += 1

    def close(self) -> None:
        self.closed = True

    def send(self, event: dict[str, Any]) -> None:
        assert not self.closed
        judge_client_event(event)
        self.events.append(event)
        match event["type"]:
            case "response.create":
                assert self.active is None, "a response is asked for while one is active"
            case "conversation.item.truncate":
                item = event["item_id"]
                assert 1 <= event["audio_end_ms"] <= self.received[item] // 8
                assert item not in self.truncated
                self.truncated.add(item)
            case "conversation.item.create":
                item, previous = event["item"]["id"], event.get("previous_item_id", "root")
                assert item not in self.told
                assert previous == "root" or previous in self.told
                self.told.add(item)
                if self is self.conversation._model:
                    self.tell("conversation.item.added", item=event["item"])
            case "conversation.item.delete":
                self.told.remove(event["item_id"])

    def tell(self, kind: str, **fields: Any) -> None:
        self.conversation.on_event({"type": kind, **fields})

    def begin(self) -> None:
        if self.active is None:
            self.count += 1
            self.active = f"resp_{self.count}"
            self.tell("response.created", response={"id": self.active})

    def speak(self, ms: int, item: int = 0) -> None:
        self.begin()
        name = f"item_{self.count}_{item}"
        self.received[name] = self.received.get(name, 0) + ms * 8
        assert self.active is not None
        self.conversation.on_audio(self.active, name, 0, bytes([LOUD]) * (ms * 8))

    def finish(self, status: str = "completed", calls: tuple[dict[str, Any], ...] = ()) -> None:
        if self.active is not None:
            response, self.active = self.active, None
            self.tell("response.done", response={"id": response, "status": status, "output": list(calls)})

    def hear_speech(self) -> None:
        self.count_speech += 1
        self.tell("input_audio_buffer.speech_started", item_id=f"u{self.count_speech}", audio_start_ms=0)
        self.finish("cancelled")

    def hear_silence(self) -> None:
        item = f"u{self.count_speech}"
        self.tell("input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=100)
        self.tell("input_audio_buffer.committed", item_id=item)


class Fork:
    def __init__(self, switch: SwitchOutput) -> None:
        self.switch = switch
        self.texts: list[bytes] = []

    def send_audio(self, l16: bytes) -> None:
        self.switch.send(l16)

    def send_text(self, text: bytes) -> None:
        self.texts.append(text)
        if text == KILL_AUDIO:
            self.switch.kill()


class Rig:
    def __init__(self, phase: float = 0.0) -> None:
        self.clock = SimulatedClock()
        self.rows: list[Row] = []
        counts = Counts()
        metrics = Metrics(counts, 10)
        world = World(
            MediaFork(),
            self.clock,
            metrics,
            LiveEvents(counts, self.clock),
            self.rows.append,
            None,  # type: ignore[arg-type]
            ToolServers(MediaFork(), self.clock, metrics),
        )
        self.conversation = Conversation("call-1", AGENT, CARRIAGES[Codec.PCMU], world)
        self.model = Model(self.conversation)
        self.before: list[Model] = []
        self.conversation.on_lost = lambda cause, message: None
        self.fork = Fork(SwitchOutput(self.clock, phase=phase))
        self.conversation.attach(self.model)
        self.conversation.connected(self.fork)

    def take_over(self) -> None:
        self.before.append(self.model)
        self.model = Model(self.conversation, self.model.count + 100)
        self.conversation.attach(self.model)

    @property
    def hummed(self) -> bool:
        """Whether there was a sound of life."""
        heard = self.fork.switch.heard
        return bool(np.any((heard != 0) & (heard != SAID)))

    @property
    def heard_ms(self) -> float:
        """Of what the models said; not of sounds of life."""
        return np.count_nonzero(self.fork.switch.heard == SAID) / 8


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.floats(0, 1.5)),
        st.tuples(st.just("speak"), st.integers(1, 900)),
        st.tuples(st.just("speak_more"), st.integers(1, 900)),
        st.tuples(st.just("finish"), st.sampled_from(["completed", "cancelled", "incomplete"])),
        st.tuples(st.just("call"), st.sampled_from(["transfer", "hang_up", "nothing"])),
        st.tuples(st.just("speech"), st.none()),
        st.tuples(st.just("silence"), st.none()),
        st.tuples(st.just("key"), st.sampled_from("0123456789*#")),
        st.tuples(st.just("outcome"), st.sampled_from(["busy", "answered", "no_answer"])),
        st.tuples(st.just("already_active"), st.none()),
        st.tuples(st.just("lost"), st.none()),
        st.tuples(st.just("take_over"), st.none()),
    ),
    max_size=40,
)


@given(STEPS, st.floats(0, 0.0199))
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_course_keeps_the_rules(steps, phase):
    rig = Rig(phase)
    conversation = rig.conversation
    conversation.on_caller_audio(bytes(320))
    for number, (step, value) in enumerate(steps):
        model = rig.model
        if model.closed and step not in ("wait", "key", "outcome"):
            rig.take_over()
            continue
        match step:
            case "lost":
                conversation.on_model_lost("closed", "closed by the model")
            case "take_over":
                rig.take_over()
            case "wait":
                rig.clock.run_for(value)
            case "speak":
                model.speak(value)
            case "speak_more":
                model.speak(value, item=1)
            case "finish":
                model.finish(value)
            case "call":
                model.begin()
                model.finish(calls=(function_call(f"fc_{number}", value, {"destination": "sales"}),))
            case "speech":
                model.hear_speech()
            case "silence":
                model.hear_silence()
            case "key":
                conversation.on_notice(NOTICE.validate_json(f'{{"notice":"dtmf","digit":"{value}","duration_ms":80}}'))
            case "outcome":
                for earlier in range(number):
                    conversation.on_notice(
                        NOTICE.validate_json(f'{{"notice":"transfer","id":"fc_{earlier}","outcome":"{value}"}}')
                    )
            case "already_active":
                model.tell("error", error={"code": "conversation_already_has_active_response"})
    rig.clock.run_for(3)
    received: dict[str, int] = {}
    truncated: set[str] = set()
    for model in (*rig.before, rig.model):
        assert model.truncated <= set(model.received)
        received |= model.received
        truncated |= model.truncated
    conversation.close("fork_closed")
    turns = {row.item: row for row in rig.rows if isinstance(row, TurnRecord) and row.who == "agent"}
    for item, turn in turns.items():
        assert 0 <= turn.heard_ms <= turn.duration_ms <= received[item] // 8
        assert (item in truncated) <= turn.interrupted
    kills = rig.fork.texts.count(KILL_AUDIO)
    cuts = sum(isinstance(row, TimingRecord) and row.kind == "barge_in" for row in rig.rows)
    # A sound of life is cut too, and that is no barge-in.
    assert kills == cuts or (rig.hummed and kills > cuts)
    total = sum(turn.heard_ms for turn in turns.values())
    assert abs(total - rig.heard_ms) <= 21 * (kills + 1)


def test_a_whole_conversation_is_heard_as_it_is_recorded():
    rig = Rig()
    rig.conversation.on_caller_audio(bytes(320))
    rig.model.speak(1000)
    rig.model.finish()
    rig.clock.run_for(0.5)
    rig.model.hear_speech()
    rig.model.hear_silence()
    rig.model.speak(700)
    rig.model.finish()
    rig.clock.run_for(2)
    rig.conversation.close("fork_closed")
    heard = {row.item: row.heard_ms for row in rig.rows if isinstance(row, TurnRecord) and row.who == "agent"}
    assert heard["item_2_0"] == 700
    assert abs(heard["item_1_0"] + 700 - rig.heard_ms) <= 21
    assert rig.clock.idle or rig.fork.switch.held == 0


def test_the_session_of_every_kind_of_agent_is_valid():
    destinations = {"sales": Destination(description="sales", dial="2001", trunk="pbx")}
    for agent in (
        AGENT,
        AGENT.model_copy(update={"transcription": None, "noise_reduction": "far_field", "destinations": []}),
        Agent.model_validate(
            {
                "instructions": "x",
                "greeting": "y",
                "turn_detection": {"type": "semantic_vad", "eagerness": "low"},
                "tools": [{"name": "look_up", "description": "d", "url": "http://127.0.0.1/"}],
            }
        ),
    ):
        for carriage in CARRIAGES.values():
            judge_client_event(session_update(agent, carriage, "x", tools.definitions(agent, destinations)))
