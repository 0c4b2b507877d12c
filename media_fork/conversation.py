"""One conversation: the caller's audio to the model, the agent's to the caller, and what the two do to each other.

What comes from the model arrives by ``on_audio`` and ``on_event``, what comes from the fork by ``on_caller_audio`` and
``on_notice``. Nothing here waits: every method returns at once. Models may follow one another (``attach``): each is told
what was said before it, and hears what the caller said that no model has understood yet.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import aiohttp

from media_fork import client_events, lifesign, tools
from media_fork.actions import Actions
from media_fork.answering import Answering
from media_fork.asides import Asides
from media_fork.briefing import DECLINE, TAKE
from media_fork.carriage import Carriage
from media_fork.chronicle import Chronicle
from media_fork.clock import Clock
from media_fork.decisions import Decisions
from media_fork.errands import Errands
from media_fork.events import LiveEvents
from media_fork.floor import Floor, Silence
from media_fork.keypad import Keypad
from media_fork.lifesign import LifeSign, tone
from media_fork.memory import Memory
from media_fork.metrics import Metrics
from media_fork.playout import Cut, Playout, Utterance
from media_fork.recent import Recent
from media_fork.server_events import MalformedError, id_of, number_of, object_of, text_of
from media_fork.speech import Speech
from media_fork.tools import Result
from media_fork.toolservers import ToolServers
from media_fork.turns import Turns
from tandem.rows import Row
from tandem.seam import (
    MAX_TEXT,
    Acknowledge,
    Acted,
    Answer,
    Command,
    Dtmf,
    Ended,
    ForkMessage,
    LiveEventKind,
    ModelLost,
    Notice,
    Placed,
    Present,
    Resumed,
    Tell,
    Verdict,
)
from tandem.settings import Agent, MediaFork, ServerVad

OWN: Final = ""
"""Item and response of our own sounds."""
KILL_AUDIO: Final = b'{"type":"killAudio"}'
CUT_RESPONSES: Final = 8
"""Cut responses whose late deltas are still looked out for."""
GO_ON: Final = (
    "A fault of the line cut off what you were saying. Go on where the caller stopped hearing you, in few words, without"
    " greeting again."
)
ALREADY_ACTIVE: Final = "conversation_already_has_active_response"

_log = logging.getLogger(__name__)


class Fork(Protocol):
    """The leg's connection, as far as a conversation uses it."""

    def send_audio(self, l16: bytes) -> None: ...

    def send_text(self, text: bytes) -> None: ...


class Model(Protocol):
    """The model's session, as far as a conversation uses it."""

    send_audio: Callable[[bytes], None]

    def send(self, event: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class World:
    """What all conversations of a process share."""

    settings: MediaFork
    clock: Clock
    metrics: Metrics
    events: LiveEvents
    put: Callable[[Row], None]
    http: aiohttp.ClientSession
    tool_servers: ToolServers


class Conversation:
    """``attach`` gives it the model, then ``connected`` the fork.

    A model that is lost is reported to ``on_lost``, which owes another ``attach`` or ``give_up``; the latter by default.
    """

    def __init__(
        self,
        call: str,
        agent: Agent,
        carriage: Carriage,
        world: World,
        placed: Placed | None = None,
        *,
        is_briefing: bool = False,
    ) -> None:
        clock = world.clock
        self.call = call
        self.lost: str | None = None
        """Why the model is gone."""
        self.ended: str | None = None
        """What esl_app said of why the call leaves the agent."""
        self.on_lost: Callable[[str, str], None] = self.give_up
        self.has_answered = False
        """The model that is there now has said something."""
        self._greeting = agent.greeting.strip()
        self._metrics = world.metrics
        self._counts = world.metrics.counts
        self._clock = clock
        self._chronicle = Chronicle(call, clock, world.events, world.put)
        self._model: Model | None = None
        self._send_audio: Callable[[bytes], None] = _nowhere
        self._model_full = True
        self._fork: Fork | None = None
        self._carriage = carriage
        self._to_model = carriage.to_model()
        self._recent = Recent()
        self._sent_before = 0.0
        """Audio of the caller, ms, that the model of now has not been sent."""
        self._memory = Memory()
        self._fork_bytes_per_ms = 2 * carriage.rate / 1000
        self._greeted = False
        self._closed = False
        self._speech = Speech(clock, self._chronicle, self._memory)
        self._playout = Playout(
            carriage, world.settings.lead_ms, self._send_chunk, self._kill, self, self._counts, clock
        )
        self._life_sign = LifeSign(clock, self._is_awaited, self._playout.is_playing, self._sound)
        self._speaking: Utterance | None = None
        """Whose deltas are coming."""
        self._cut: deque[str] = deque(maxlen=CUT_RESPONSES)
        silence_ms = agent.turn_detection.silence_duration_ms if isinstance(agent.turn_detection, ServerVad) else 0
        self._turns = Turns(clock, self._sent_ms, silence_ms)
        self._floor = Floor(clock, self._ask, self._on_silence)
        self._asked_by: str | None = None
        """event_id of the last response.create."""
        self._keypad = Keypad(clock, self._enter)
        self._decisions = Decisions(
            clock, world.settings.heard_within_ms, self._playout.is_playing, self._command, self._settle
        )
        self._actions = Actions(clock, self._command, self._settle)
        self._asides = Asides(
            clock,
            agent,
            world.settings.heard_within_ms,
            is_playing=self._playout.is_playing,
            keypad=self._keypad,
            floor=self._floor,
            actions=self._actions,
            command=self._command,
            hush=self._hush,
            deliver=lambda tool, arguments: world.tool_servers.request(world.http, tool, arguments, call),
            settle=self._settle,
        )
        self._errands = Errands(
            agent,
            world.http,
            world.tool_servers,
            self._decisions,
            self._actions,
            self._floor,
            self._chronicle,
            self._counts,
            self._memory,
            self._answer,
            self._verdicts()
            if is_briefing
            else {tools.ACKNOWLEDGE: self._acknowledge, tools.MACHINE: lambda _: self._is_machine()},
            self._asides.tools,
        )
        self._answering: Answering | None = None
        """Of a call that we placed, where it is to be found out who answered."""
        if placed is not None and placed.detect:
            self._answering = Answering(carriage.rate, self._command, self._greet)
        self._ids = 0

    def attach(self, model: Model) -> None:
        """A model is ready: the first one, or one that takes over from another."""
        if self._closed or self.lost is not None:
            model.close()
            return
        if self._model is not None:
            self._suspend()
        self._life_sign.stop()
        for event in self._memory.retell():
            model.send(event)
        heard_again_ms = 0.0
        for append in self._recent:
            model.send_audio(append)
            heard_again_ms += self._carriage.appended_ms(append)
        self._sent_before = self._received_ms() - heard_again_ms
        self._model = model
        self._send_audio = model.send_audio
        self._model_full = False
        self.has_answered = False
        self._floor.resume(self._recent.held)
        resumed = len(self._memory) > 0 or self._greeted
        self._chronicle.publish(LiveEventKind.MODEL_RESUMED if resumed else LiveEventKind.SESSION_READY)

    @property
    def is_quiet(self) -> bool:
        """Nobody speaks, nothing is owed and nothing is under way: nobody would notice another model taking over."""
        idle = self._floor.is_idle and not self._playout.is_playing()
        return idle and not (self._decisions.is_open or self._asides.is_open or self._errands.is_running)

    # The fork.

    def connected(self, fork: Fork) -> None:
        """The leg has said hello."""
        self._fork = fork
        self._chronicle.publish(LiveEventKind.FORK_CONNECTED)
        if self.lost is None:
            self._playout.prime()
        else:
            self._command(ModelLost(cause=self.lost))

    def on_caller_audio(self, l16: bytes) -> None:
        """The next bytes of the caller's L16, any number of them."""
        if self._answering is not None:
            self._answering.hear(l16)
            if self._answering.holding:
                return
        if self._model_full:
            self._counts.caller_frames_dropped += 1
            return
        if self._asides.is_deaf:
            l16 = bytes(len(l16))
        event = self._to_model.append(l16)
        if event:
            self._recent.add(event)
            self._send_audio(event)
        self._greet()

    def _greet(self) -> None:
        if not self._greeted:
            self._greeted = True
            self._floor.request(f'Say exactly this to the caller: "{self._greeting}"')

    def on_fork_full(self, full: bool) -> None:
        """The leg's connection takes no more for now, or takes it again."""
        if full:
            self._playout.pause()
        elif not self._closed:
            self._playout.resume()

    def on_notice(self, notice: Notice) -> None:
        """A word from esl_app."""
        if isinstance(notice, Ended):
            self.ended = notice.why
        elif isinstance(notice, Resumed):
            self._resumed()
        elif self._closed or self.lost is not None:
            return
        elif isinstance(notice, Dtmf):
            self._chronicle.publish(LiveEventKind.DTMF, "" if self._asides.masks_keys else notice.digit)
            self._asides.press(notice.digit)
        elif isinstance(notice, Acted):
            if not self._actions.on_acted(notice):
                self._counts.add("leg_texts_ignored", "unknown_action")
        elif isinstance(notice, Tell):
            self._on_tell(notice.text)
        elif not self._decisions.on_state(notice):
            self._counts.add("leg_texts_ignored", "unknown_transfer")

    def _resumed(self) -> None:
        """Another esl_app has the call, and knows nothing of what was decided."""
        if self._closed:
            return
        self._command(Present())
        if self.lost is None:
            self._asides.repeat()
            self._decisions.repeat()
        else:
            self._command(ModelLost(cause=self.lost))

    def close(self, why: str) -> None:
        """The call is over for the agent. What was still open is recorded."""
        if self._closed:
            return
        self._closed = self._model_full = True
        self._fork = None
        for cut in self._playout.close():
            self._speech.over(cut.utterance, cut.heard_ms, cut.received_ms)
        self._stop()
        self._chronicle.publish(LiveEventKind.SESSION_ENDED, why)

    # The model.

    def on_audio(self, response: str, item: str, content_index: int, audio: bytes) -> None:
        utterance = self._speaking
        if utterance is None or utterance.item != item:
            if response in self._cut:
                self._counts.late_deltas += 1
                return
            utterance = self._speaking = self._speech.utterance(response, item, content_index, self._model)
            self._turns.model_audio()
            self.has_answered = True
        self._playout.push(utterance, audio)
        self._floor.output()

    def on_event(self, event: dict[str, Any]) -> None:
        handler = _HANDLERS.get(event["type"])
        if handler is None or self._closed:
            return
        try:
            handler(self, event)
        except MalformedError:
            self._counts.add("model_events_ignored", "malformed")

    def on_model_full(self, full: bool) -> None:
        self._model_full = full or self._closed or self.lost is not None

    def on_model_lost(self, cause: str, message: str) -> None:
        """The model is gone. What it has said already is still played; another one may take over."""
        if self._closed or self._model is None:
            return
        _log.error("model lost: %s", message, extra={"call": self.call, "cause": cause})
        self._counts.add("model_lost", cause)
        self._chronicle.publish(LiveEventKind.MODEL_LOST, cause)
        self._suspend()
        self._recent.keep()
        self._life_sign.start(lifesign.AFTER_S)
        self.on_lost(cause, message)

    def give_up(self, cause: str, message: str) -> None:
        """No model will take over: silence at once, and esl_app takes the caller on."""
        if self._closed or self.lost is not None:
            return
        self.lost = cause
        _log.error("given up without a model: %s", message, extra={"call": self.call, "cause": cause})
        if self._model is not None:
            self._suspend()
        self._model_full = True
        for cut in self._playout.cut():
            self._speech.over(cut.utterance, cut.heard_ms, cut.received_ms)
        self._stop()
        self._command(ModelLost(cause=cause))

    def _suspend(self) -> None:
        """Be without a model."""
        assert self._model is not None
        self._model.close()
        self._model = None
        self._send_audio = _nowhere
        self._model_full = False
        self._speaking = None
        self._cut.clear()
        for utterance in self._speech.break_off():
            self._playout.complete(utterance)
        self._errands.forget()
        self._turns.break_off()
        self._floor.suspend(GO_ON)

    # The caller's turns.

    def _on_speech_started(self, event: dict[str, Any]) -> None:
        self._hush()
        self._decisions.interrupted()
        self._asides.interrupted()
        unanswered = self._turns.interrupted()
        if unanswered is not None:
            self._chronicle.response(unanswered)
        self._floor.caller_started()
        self._life_sign.stop()
        self._recent.hold()
        self._chronicle.publish(LiveEventKind.CALLER_SPEAKING)
        self._turns.started(id_of(event, "item_id"), number_of(event, "audio_start_ms"))

    def _hush(self) -> None:
        """The agent is silent at once."""
        at = self._clock.now()
        if self._floor.active is not None:
            self._cut.append(self._floor.active)
        self._speaking = None
        kills = self._playout.kills
        cuts = self._playout.cut()
        if cuts:
            self._barge_in(self._clock.now() - at, cuts, killed=self._playout.kills > kills)

    def _barge_in(self, cut_s: float, cuts: list[Cut], *, killed: bool) -> None:
        for utterance, heard_ms, received_ms in cuts:
            self._speech.over(utterance, heard_ms, received_ms)
            if utterance.owner is not self._model:
                for event in self._memory.amend(utterance.item):
                    self._send(event)
            elif heard_ms < received_ms:
                self._send(client_events.truncate(utterance.item, utterance.content_index, heard_ms))
        first = cuts[0]
        if killed and first.utterance.response != OWN:
            self._counts.barge_ins += 1
            self._metrics.cut_seconds.observe(cut_s)
            self._chronicle.barge_in(first.utterance.item, round(cut_s * 1000), first.heard_ms)

    def _on_speech_stopped(self, event: dict[str, Any]) -> None:
        self._floor.caller_stopped()
        self._turns.stopped(id_of(event, "item_id"), number_of(event, "audio_end_ms"))

    def _on_committed(self, event: dict[str, Any]) -> None:
        self._floor.caller_committed()
        self._life_sign.start(lifesign.SLOW_S)
        turn = self._turns.committed(id_of(event, "item_id"))
        self._memory.said(turn.item, "user", turn.text)
        self._chronicle.caller_turn(turn)

    def _on_transcription_completed(self, event: dict[str, Any]) -> None:
        turn = self._turns.find(id_of(event, "item_id"))
        turn.text = text_of(event, "transcript").strip()
        self._turns.close(turn.item)
        self._memory.said(turn.item, "user", turn.text)
        self._understood()
        self._chronicle.caller_turn(turn)
        self._chronicle.publish(LiveEventKind.CALLER_SAID, turn.text)

    def _on_transcription_failed(self, event: dict[str, Any]) -> None:
        self._turns.close(id_of(event, "item_id"))

    def _understood(self) -> None:
        """What the caller said need not be heard again by a model that takes over."""
        if not self._floor.caller_speaks:
            self._recent.release()

    # Responses.

    def _on_item_added(self, event: dict[str, Any]) -> None:
        self._floor.item_added(text_of(object_of(event, "item"), "id"))

    def _on_response_created(self, event: dict[str, Any]) -> None:
        self._errands.forget()
        self._asides.answered()
        self._floor.created(text_of(object_of(event, "response"), "id"))

    def _on_output_item_added(self, event: dict[str, Any]) -> None:
        item, response = object_of(event, "item"), text_of(event, "response_id")
        if item.get("type") == "message" and response not in self._cut:
            self._speech.utterance(response, id_of(item, "id"), 0, self._model)
        self._floor.output()

    def _on_output_item_done(self, event: dict[str, Any]) -> None:
        self._errands.note(object_of(event, "item"))
        self._floor.output()

    def _on_output_audio_done(self, event: dict[str, Any]) -> None:
        utterance = self._speech.find(text_of(event, "item_id"))
        if utterance is not None:
            self._playout.complete(utterance)

    def _on_transcript_delta(self, event: dict[str, Any]) -> None:
        self._speech.words(text_of(event, "item_id"), text_of(event, "delta"))

    def _on_transcript_done(self, event: dict[str, Any]) -> None:
        self._speech.all_words(text_of(event, "item_id"), text_of(event, "transcript"))

    def _on_response_done(self, event: dict[str, Any]) -> None:
        response = object_of(event, "response")
        id, status = text_of(response, "id"), response.get("status")
        for utterance in self._speech.response_done(id):
            self._playout.complete(utterance)
        output = response.get("output")
        for item in output if isinstance(output, list) else []:
            if isinstance(item, dict):
                self._errands.note(item)
        if status == "completed":
            self.has_answered = True
            self._understood()
            self._errands.carry_out(interrupted=id in self._cut)
            if self._errands.is_running:
                self._life_sign.start(lifesign.SLOW_S)
        else:
            self._errands.forget()
        if status == "failed":
            details = str(response.get("status_details"))[:MAX_TEXT]
            _log.warning("response failed: %s", details, extra={"call": self.call})
        self._floor.done(failed=status == "failed")

    def _on_error(self, event: dict[str, Any]) -> None:
        error = object_of(event, "error")
        code = str(error.get("code") or error.get("type") or "unknown")
        message = text_of(error, "message")[:MAX_TEXT]
        _log.warning("error from the model: %s: %s", code, message, extra={"call": self.call})
        if code == ALREADY_ACTIVE or (self._asked_by is not None and error.get("event_id") == self._asked_by):
            self._floor.refused(already_active=code == ALREADY_ACTIVE)

    def _ask(self, instructions: str | None) -> None:
        self._asked_by = self._new_id("ask")
        self._life_sign.start(lifesign.SLOW_S)
        self._send(client_events.response_create(self._asked_by, instructions))

    def _on_silence(self, why: Silence) -> None:
        self.on_model_lost(why.value, f"the model does not answer: {why.value}")

    # Playout.

    def on_first_audio(self, utterance: Utterance) -> None:
        if utterance.response == OWN:
            return
        self._speech.started(utterance)
        self._chronicle.publish(LiveEventKind.AGENT_SPEAKING)
        turn = self._turns.audio_out()
        if turn is not None:
            if turn.response_ms is not None:
                self._metrics.response_seconds.observe(turn.response_ms / 1000)
            self._chronicle.response(turn)

    def on_heard(self, utterance: Utterance) -> None:
        received_ms = self._playout.received_ms(utterance)
        self._speech.over(utterance, received_ms, received_ms)
        self._decisions.heard()
        self._asides.heard()

    # Ways out.

    def _answer(self, call_id: str, output: str) -> None:
        item = self._new_id("output")
        if self._model is not None:
            self._floor.item_sent(item)
            self._send(client_events.function_call_output(item, call_id, output))

    def _on_tell(self, text: str) -> None:
        """What the agent is told is what it speaks about, in place of a greeting that was not said yet."""
        self._greeted = True
        if self._answering is not None:
            self._answering.release()
        item = self._new_id("told")
        self._memory.said(item, "user", f"[Tandem] {text}")
        if self._model is not None:
            self._floor.item_sent(item)
            self._send(client_events.user_message(item, f"[Tandem] {text}"))
        self._floor.request()

    def _acknowledge(self, call_id: str) -> None:
        self._command(Acknowledge(id=call_id))

    def _is_machine(self) -> None:
        if self._answering is not None:
            self._answering.agent_says_machine()

    def _settle(self, call_id: str, result: Result, respond: bool) -> None:
        self._errands.settle(call_id, result, respond)

    def _enter(self, digits: str) -> None:
        item = self._new_id("keys")
        self._memory.said(item, "user", f"[DTMF] {digits}")
        if self._model is not None:
            self._floor.item_sent(item)
            self._send(client_events.user_message(item, f"[DTMF] {digits}"))
        self._floor.request()

    def _is_awaited(self) -> bool:
        """The caller waits for something to be said, and does nothing else meanwhile."""
        under_way = self._model is None or self._floor.is_owed or self._errands.is_running
        return under_way and not self._asides.is_open

    def _sound(self) -> None:
        """A sound of life."""
        utterance = Utterance(OWN, OWN, 0)
        self._playout.push(utterance, tone(self._carriage))
        self._playout.complete(utterance)

    def _send(self, event: dict[str, Any]) -> None:
        if self._model is not None:
            self._model.send(event)

    def _send_chunk(self, l16: bytes) -> None:
        if self._fork is not None:
            self._fork.send_audio(l16)

    def _kill(self) -> None:
        if self._fork is not None:
            self._fork.send_text(KILL_AUDIO)

    def _command(self, command: Command) -> None:
        if self._fork is not None:
            self._fork.send_text(ForkMessage(data=command).model_dump_json().encode())

    def _received_ms(self) -> float:
        return self._to_model.received / self._fork_bytes_per_ms

    def _verdicts(self) -> dict[str, Callable[[str], None]]:
        answers = {TAKE: Answer.TAKES, DECLINE: Answer.DECLINES, tools.MACHINE: Answer.MACHINE}
        return {name: partial(self._is_answered, answer) for name, answer in answers.items()}

    def _is_answered(self, answer: Answer, call_id: str) -> None:
        del call_id
        self._command(Verdict(answer=answer))

    def _sent_ms(self) -> float:
        return self._received_ms() - self._sent_before

    def _new_id(self, kind: str) -> str:
        self._ids += 1
        return f"tandem_{kind}_{self._ids}"

    def _stop(self) -> None:
        self._life_sign.stop()
        self._floor.close()
        self._keypad.close()
        self._decisions.close()
        self._asides.close()
        self._actions.close()
        self._errands.close()


def _nowhere(event: bytes) -> None:
    del event


_HANDLERS: Final[dict[str, Callable[[Conversation, dict[str, Any]], None]]] = {
    "error": Conversation._on_error,
    "input_audio_buffer.speech_started": Conversation._on_speech_started,
    "input_audio_buffer.speech_stopped": Conversation._on_speech_stopped,
    "input_audio_buffer.committed": Conversation._on_committed,
    "conversation.item.input_audio_transcription.completed": Conversation._on_transcription_completed,
    "conversation.item.input_audio_transcription.failed": Conversation._on_transcription_failed,
    "conversation.item.added": Conversation._on_item_added,
    "response.created": Conversation._on_response_created,
    "response.output_item.added": Conversation._on_output_item_added,
    "response.output_item.done": Conversation._on_output_item_done,
    "response.output_audio.done": Conversation._on_output_audio_done,
    "response.output_audio_transcript.delta": Conversation._on_transcript_delta,
    "response.output_audio_transcript.done": Conversation._on_transcript_done,
    "response.done": Conversation._on_response_done,
}
