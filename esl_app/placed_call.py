"""The life of a call that we place: reserve, dial, ring, answer, and the agent joins; who answered decides how it goes on.

The model is ready before anybody's phone rings, so that the agent hears the first word. FreeSWITCH hands the answered leg over
on an event socket of its own, as it does with calls that come in.
"""

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import gevent
from gevent.event import Event as Flag
from gevent.queue import Empty, Queue

from esl_app import fallback, keys, transfer
from esl_app.arrival import Arrival
from esl_app.call import ANSWER_S, LAST_WORD_S, Shutdown
from esl_app.dialling import outcome_of, placed_dial_string
from esl_app.fork import ForkLost
from esl_app.happenings import Answered, Decision, Dialled, Digit, Happening, LegEnded, Ringing
from esl_app.inbound import Dialling, SwitchAway
from esl_app.leg import HungUp, TimedOut
from esl_app.line import BROKEN, AgentHangsUp, ConversationLost, Ending, Line, Services
from esl_app.media import Refused
from esl_app.metrics import CALLS, DUTY_ERRORS, JOINED, WHO_ANSWERED
from esl_app.placement import OnMachine, Placement
from esl_app.protocol import COMMAND_FAILURES
from esl_app.session import Session
from tandem.dial_policy import refusal_of_edge
from tandem.outcome import Answerer, Outcome, RefusalCause, TransferOutcome
from tandem.rows import CallRecord
from tandem.seam import Acknowledge, Codec, Ended, SessionReply, SessionRequest, Tell, Transfer, WhoAnswered

MACHINE_S = 60.0
"""From a machine's answer until it must be recording."""
ANNOUNCEMENT_S = 20.0
"""Longest announcement that the call is recorded; the session waits for its fork meanwhile."""
MESSAGE_S = 180.0
"""Longest message."""
ACKNOWLEDGING_KEY = "1"
CANCELLED = "cancelled"
RECORDED = "The greeting of the voicemail is over, it records. Leave your message now, in one go; then hang up."


class State(StrEnum):
    """How far a placed call is."""

    RESERVING = "reserving"
    DIALLING = "dialling"
    RINGING = "ringing"
    ANSWERED = "answered"
    ENDED = "ended"


class Acknowledged(StrEnum):
    """How the person called took it upon them."""

    KEY = "key"
    VOICE = "voice"


@dataclass(frozen=True)
class _Attached:
    session: Session


@dataclass(frozen=True)
class _Cancelled:
    pass


class _NotReached(Exception):
    def __init__(self, cause: str, sip_status: int | None = None) -> None:
        self.cause = cause
        self.sip_status = sip_status
        super().__init__(cause)


class _RefusedAtEdge(Exception):
    """The edge counts calls against the dial policy's caps. The message is the refusal."""


class PlacedCall:
    """Run in a greenlet of its own. ``turn`` returns when it is this call's turn on its trunk."""

    def __init__(
        self,
        placement: Placement,
        services: Services,
        turn: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.placement = placement
        self.state = State.RESERVING
        self.acknowledged: Acknowledged | None = None
        self.over = Flag()
        self._services = services
        self._turn = turn
        self._clock = clock
        self._log = logging.LoggerAdapter(logging.getLogger(__name__), {"call": placement.call})
        self._channel = str(uuid.uuid4())
        self._happenings: Queue[Happening | _Attached | _Cancelled] = Queue()
        self._cancelled = False
        self._answered_at: float | None = None
        self._line: Line | None = None
        self._reservation: SessionReply | None = None
        self._machine_until: float | None = None
        self._first = CallRecord(
            id=placement.call,
            worker=services.worker,
            trunk=placement.trunk,
            tenant=placement.tenant,
            caller=placement.caller_id,
            number=placement.number,
            agent=placement.asked.agent,
            verified="",
            codec="",
            sip_call_id="",
            started_at=services.now(),
            direction="out",
        )

    # From other greenlets

    def attach(self, session: Session) -> None:
        """The leg has been answered, and FreeSWITCH has opened its event socket. Returns when the call is over."""
        if self.over.is_set():
            session.stop()
            return
        self._happenings.put(_Attached(session))
        self.over.wait()

    def cancel(self) -> None:
        """End it, whatever it is doing."""
        self._cancelled = True
        self._happenings.put(_Cancelled())
        if self._line is not None:
            gevent.spawn(self._hang_up_from_outside)

    def tell(self, text: str) -> bool:
        """Have the agent speak about ``text``. False where there is no agent on the line."""
        line = self._line
        if line is None or not line.fork.live:
            return False
        line.fork.tell(Tell(text=text))
        return True

    @property
    def record(self) -> CallRecord:
        """What is on record of it by now."""
        return (self._line and self._line.record) or self._first

    def _hang_up_from_outside(self) -> None:
        try:
            self._services.inbound.api("uuid_kill", self._channel, "NORMAL_CLEARING")
        except (SwitchAway, *COMMAND_FAILURES) as error:
            self._log.warning("could not be ended as asked: %s", error)

    # Its life

    def run(self) -> None:
        """To its record's end. Raises nothing."""
        self._services.recorder.put(self._first)
        try:
            self._finish(self._life())
        except Shutdown:
            self._shut_down()
        except Exception:  # noqa: BLE001 - counted and logged
            DUTY_ERRORS.labels("placed_call").inc()
            self._log.exception("the call's end could not be put on record")
        finally:
            if self._reservation is not None and not (self._line and self._line.fork.was_live):
                self._services.media_fork.release(self._reservation.session)
            if self._line is not None:
                self._line.session.stop()
                self._line.forget()
            self.over.set()

    def _life(self) -> Ending:
        try:
            self._reservation = self._reserve()
            session = self._dial()
        except Refused as refused:
            self._log.warning("call not placed: %s: %s", refused.cause.value, refused)
            return Ending(Outcome.REFUSED, refused.cause.value)
        except _NotReached as failure:
            return Ending(Outcome.NOT_REACHED, failure.cause, failure.sip_status)
        except _RefusedAtEdge as refused:
            return Ending(Outcome.REFUSED, str(refused))
        except (SwitchAway, *COMMAND_FAILURES) as error:
            self._log.error("cannot be dialled: %s", error)
            return Ending(Outcome.REFUSED, RefusalCause.CONTROLLER_ERROR.value)
        return self._answered(session)

    def _reserve(self) -> SessionReply:
        """A session with its model ready. Raises Refused."""
        within_s = self._services.settings.esl_app.answer_within_ms / 1000
        return self._services.media_fork.reserve(self._request(), within_s)

    def _request(self) -> SessionRequest:
        placement = self.placement
        return SessionRequest(
            call=placement.call,
            agent=placement.asked.agent,
            caller=placement.number,
            number=placement.caller_id,
            codec=Codec.PCMU,
            trunk=placement.trunk,
            tenant=placement.tenant,
            placed=placement.placed(),
        )

    # Until it is answered

    def _dial(self) -> Session:
        """The answered leg's. Raises _NotReached, SwitchAway, COMMAND_FAILURES."""
        placement, services = self.placement, self._services
        self._turn()
        if self._cancelled:
            raise _NotReached(CANCELLED)
        cell = services.settings.workers[services.worker]
        target = placed_dial_string(
            services.settings.edge,
            channel=self._channel,
            number=placement.number,
            trunk=placement.trunk,
            tenant=placement.tenant,
            call=placement.call,
            caller_id=placement.caller_id,
            ring_seconds=placement.asked.ring_seconds,
        )
        then = f"'&socket({cell.loopback}:{services.settings.esl_app.port} async full)'"
        dialling: Dialling | None = None
        session: Session | None = None
        self.state = State.DIALLING
        services.inbound.watch(self._channel, self._happenings.put)
        try:
            dialling = services.inbound.dial(self._channel, placement.call, target, self._happenings.put, then)
            session = self._await_answer()
            return session
        finally:
            services.inbound.unwatch(self._channel)
            if dialling is not None and session is None:
                services.inbound.end(dialling, "ORIGINATOR_CANCEL")

    def _await_answer(self) -> Session:
        deadline = self._clock() + self.placement.asked.ring_seconds
        rang = False
        failure = ""
        while True:
            match self._next(deadline):
                case None if failure:
                    raise _NotReached(outcome_of(failure, None, rang).value)
                case None if self._answered_at is not None:
                    raise _NotReached(RefusalCause.CONTROLLER_ERROR.value)
                case None:
                    unanswered = TransferOutcome.NO_ANSWER if rang else TransferOutcome.UNREACHABLE
                    raise _NotReached(unanswered.value)
                case _Cancelled():
                    raise _NotReached(CANCELLED)
                case _Attached(session):
                    self._answered_at = self._answered_at or self._clock()
                    return session
                case Ringing():
                    rang = True
                    self.state = State.RINGING
                case Answered():
                    self._answered_at = self._clock()
                    deadline = self._answered_at + ANSWER_S
                case LegEnded(refusal=refusal) if (refused := refusal_of_edge(refusal)) is not None:
                    raise _RefusedAtEdge(refused.refusal.value)
                case LegEnded(_, cause, sip_status):
                    raise _NotReached(outcome_of(cause, sip_status, rang).value, sip_status)
                case Dialled(_, result) if result:
                    # The leg's own events say more, and come by another way.
                    failure = result
                    deadline = min(deadline, self._clock() + LAST_WORD_S)

    def _next(self, deadline: float) -> Happening | _Attached | _Cancelled | None:
        try:
            return self._happenings.get(timeout=max(0.0, deadline - self._clock()))
        except Empty:
            return None

    # Once it is answered

    def _answered(self, session: Session) -> Ending:
        line = self._line = Line(session, self._services)
        try:
            return self._conversation(line)
        except HungUp as gone:
            return self._left(line, gone)
        except AgentHangsUp:
            line.hang_up()
            return Ending(Outcome.AGENT_HUNG_UP)
        except BROKEN as error:
            return self._broken(line, error)
        except Exception as error:
            DUTY_ERRORS.labels("placed_call").inc()
            line.leg.log.exception("the call failed unforeseen")
            return self._broken(line, error)

    def _conversation(self, line: Line) -> Ending:
        assert self._reservation is not None and self._answered_at is not None
        line.arrived(self._arrival(line.session), self._first)
        self.state = State.ANSWERED
        line.session.subscribe()
        codec = line.session.variable("rtp_use_codec_name")
        line.note(
            answered_at=self._services.now() - (self._clock() - self._answered_at),
            codec=codec,
            sip_call_id=line.session.session_data.get("variable_sip_call_id", ""),
        )
        line.session.set(exclude_outgoing_extra_header="^sip_h_X-Tandem-")
        line.recording.announce(ANNOUNCEMENT_S)
        try:
            within_s = self._services.settings.esl_app.fork_within_ms / 1000
            line.fork.connect(self.placement.call, self._reservation, within_s)
        except ForkLost as lost:
            return fallback.fall_back(line, ConversationLost("fork_not_connected", str(lost)))
        joined_s = self._clock() - self._answered_at
        JOINED.observe(joined_s)
        line.note(joined_ms=round(joined_s * 1000))
        line.recording.begin()
        keys.listen(line.leg, line.arrival.telephone_event)
        try:
            return self._converse(line)
        except ConversationLost as lost:
            if self.record.answered_by in (Answerer.MACHINE, Answerer.FAX):
                line.hang_up()
                return Ending(Outcome.FAILED, f"{lost.what}_lost")
            return fallback.fall_back(line, lost)

    def _arrival(self, session: Session) -> Arrival:
        """As of a call that came in from the person called, to the number that they are shown."""
        placement = self.placement
        return Arrival(
            call=placement.call,
            trunk=placement.trunk,
            tenant=placement.tenant,
            agent=placement.asked.agent,
            number=placement.caller_id,
            caller=placement.number,
            verified="",
            is_last=False,
            codec="",
            telephone_event=bool(session.session_data.get("variable_rtp_2833_send_payload")),
            sip_call_id=session.session_data.get("variable_sip_call_id", ""),
        )

    def _converse(self, line: Line) -> Ending:
        while True:
            ending: Ending | None = None
            match line.leg.next(self._machine_until):
                case None:
                    line.leg.log.info("the machine does not record")
                    line.hang_up()
                    return Ending(Outcome.MACHINE_ANSWERED, Answerer.MACHINE.value)
                case Decision(Transfer() as wanted):
                    ending = transfer.carry_out(line, wanted)
                case Decision(WhoAnswered() as found):
                    ending = self._found_out(line, found)
                case Decision(Acknowledge()) if self.placement.asked.acknowledge:
                    self._acknowledge(Acknowledged.VOICE)
                case Digit(digit=digit) if self.placement.asked.acknowledge and digit == ACKNOWLEDGING_KEY:
                    self._acknowledge(Acknowledged.KEY)
                case happening if happening is not None:
                    line.meanwhile(happening)
            if ending is not None:
                return ending
            if line.lost is not None:
                raise line.lost

    def _acknowledge(self, by: Acknowledged) -> None:
        if self.acknowledged is None:
            self.acknowledged = by
            self._log.info("acknowledged by %s", by.value)

    # Who answered

    def _found_out(self, line: Line, found: WhoAnswered) -> Ending | None:
        assert self._answered_at is not None
        after_ms = round((self._clock() - self._answered_at) * 1000)
        if found.who is not self.record.answered_by:
            WHO_ANSWERED.labels(found.who.value, found.rule.value).inc()
            line.leg.log.info("answered by %s: %s after %d ms", found.who.value, found.rule.value, after_ms)
            line.note(answered_by=found.who, answer_rule=found.rule, detected_ms=after_ms)
        on_machine = self.placement.asked.on_machine
        if found.who is Answerer.FAX or (found.who is Answerer.MACHINE and on_machine is OnMachine.HANG_UP):
            line.hang_up()
            return Ending(Outcome.MACHINE_ANSWERED, found.who.value)
        if found.who is not Answerer.MACHINE:
            return None
        if not found.ready:
            self._machine_until = self._machine_until or line.leg.clock() + MACHINE_S
            return None
        self._machine_until = None
        if on_machine is OnMachine.MESSAGE:
            return self._leave_message(line)
        line.fork.tell(Tell(text=RECORDED))
        return None

    def _leave_message(self, line: Line) -> Ending:
        """The recorded message, all of it, and the end."""
        line.fork.stop(Ended(why="message"))
        started = self._clock()
        try:
            played = line.leg.play(str(self.placement.message), MESSAGE_S)
        except HungUp as gone:
            if gone.lost:
                raise
            line.leg.log.info("the machine hung up %.1f s into the message", self._clock() - started)
            return Ending(Outcome.MACHINE_ANSWERED, "message_cut")
        line.hang_up()
        if not played:
            return Ending(Outcome.FAILED, "message_not_played")
        return Ending(Outcome.MESSAGE_LEFT)

    # Ends

    def _left(self, line: Line, gone: HungUp) -> Ending:
        if gone.lost:
            return Ending(Outcome.FAILED, gone.cause)
        if self._cancelled:
            return Ending(Outcome.AGENT_HUNG_UP, CANCELLED)
        return Ending(Outcome.CALLEE_HUNG_UP, "" if gone.cause == "NORMAL_CLEARING" else gone.cause.lower())

    def _broken(self, line: Line, error: Exception) -> Ending:
        """Something did not work; often that they had hung up."""
        try:
            line.leg.until_hung_up(LAST_WORD_S)
        except HungUp as gone:
            return self._left(line, gone)
        except TimedOut:
            line.leg.log.error("the call cannot go on: %s", error)
        line.hang_up()
        return Ending(Outcome.FAILED, RefusalCause.CONTROLLER_ERROR.value)

    def _finish(self, ending: Ending) -> None:
        CALLS.labels(ending.outcome.value, ending.cause if ending.outcome is Outcome.REFUSED else "").inc()
        self._log.info("placed call ended: %s %s", ending.outcome.value, ending.cause)
        changes = {
            "ended_at": self._services.now(),
            "outcome": ending.outcome,
            "cause": ending.cause,
            "sip_status": ending.sip_status,
        }
        self.state = State.ENDED
        if self._line is not None:
            changes["transferred_to"] = ending.transferred_to or self._line.put_through_to
            self._line.note(**changes)
        else:
            self._first = self._first.model_copy(update=changes)
            self._services.recorder.put(self._first)

    def _shut_down(self) -> None:
        """The process cannot wait. A call that was put through goes on without it, its record open for the next one."""
        if self.record.outcome is not None:
            return
        if self._line is not None and self._line.put_through_to is not None:
            self._log.warning("left to the next esl_app: put through to %s", self._line.put_through_to)
            return
        if self._line is not None:
            self._line.hang_up()
        self._finish(Ending(Outcome.FAILED, RefusalCause.DRAINING.value))
