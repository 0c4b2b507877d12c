"""The life of a call: arrive, reserve, answer, connect the fork, converse; and how each of these may end."""

from collections.abc import Mapping

import gevent

from esl_app import arrival, fallback, keys, resumption, transfer
from esl_app.dialling import SEND_SILENCE
from esl_app.fork import ForkLost
from esl_app.happenings import Decision, Reserved
from esl_app.leg import HungUp, TimedOut
from esl_app.line import BROKEN, HANGUP_S, AgentHangsUp, ConversationLost, Ending, Line, Services
from esl_app.media import Refused
from esl_app.metrics import CALLS, DUTY_ERRORS, SETUP, UNHEARD
from esl_app.recording import FORK_MARGIN_S
from esl_app.ringing import RingTone
from esl_app.session import Session
from tandem.outcome import SIP_STATUS, Outcome, RefusalCause
from tandem.seam import SessionReply, Transfer

ANSWER_S = 5.0
"""From `answer` to FreeSWITCH's CHANNEL_ANSWER."""
RESUME_S = 2.0
"""For media_fork to say that the conversation of a call taken over is there."""
LAST_WORD_S = 0.3
"""A command that failed may have failed because the caller was going: the hangup is given this long to show."""
NO_CONVERSATION = frozenset(
    {
        RefusalCause.MODEL_UNAVAILABLE,
        RefusalCause.MEDIA_UNAVAILABLE,
        RefusalCause.AT_CAPACITY,
        RefusalCause.DRAINING,
    }
)
"""What media_fork may say, or not say, that a fallback can stand in for."""


class Shutdown(gevent.GreenletExit):
    """Thrown into a call's greenlet when the process cannot wait any longer."""


class Call:
    """One call, run in a greenlet of its own; ``session`` is connected.

    ``refusal``: why it is not to be taken, where that is known on arrival.
    """

    def __init__(self, session: Session, services: Services, refusal: RefusalCause | None = None) -> None:
        self._session = session
        self._services = services
        self._refusal = refusal
        self._line = Line(session, services)
        self._leg = self._line.leg
        self._answering = False
        """FreeSWITCH answers the call, or has."""
        self._reserving: gevent.Greenlet[..., SessionReply | Exception] | None = None

    def run(self) -> None:
        """From arrival to record. Raises nothing: what goes wrong in one call is that call's alone."""
        try:
            self._finish(self._live())
        except Shutdown:
            self._shut_down()
        except Exception:
            DUTY_ERRORS.labels("call").inc()
            self._leg.log.exception("the call's end could not be put on record")
        finally:
            self._session.stop()
            self._leave_no_channel()
            self._give_back()
            self._let_go()

    def _live(self) -> Ending:
        try:
            return self._life()
        except Refused as refusal:
            return self._refuse(refusal)
        except HungUp as gone:
            return self._left(gone)
        except AgentHangsUp as decided:
            self._line.hang_up()
            if decided.heard:
                return Ending(Outcome.AGENT_HUNG_UP)
            UNHEARD.labels("hang_up").inc()
            return Ending(Outcome.AGENT_HUNG_UP, "unheard")
        except BROKEN as error:
            return self._broken(error)
        except Exception as error:
            DUTY_ERRORS.labels("call").inc()
            self._leg.log.exception("the call failed unforeseen")
            return self._broken(error)

    def _life(self) -> Ending:
        if arrival.is_resumed(self._session.session_data):
            return self._resume()
        self._arrive()
        try:
            reservation = self._reserve()
        except Refused as refusal:
            if not self._line.arrival.is_last or refusal.cause not in NO_CONVERSATION:
                raise
            self._answer()
            return fallback.stand_in(self._line, refusal)
        self._answer()
        self._line.recording.announce(reservation.expires_in_ms / 1000 - FORK_MARGIN_S)
        try:
            self._connect(reservation)
            self._line.recording.begin()
            keys.listen(self._leg, self._line.arrival.telephone_event)
            return self._converse()
        except ConversationLost as lost:
            return fallback.fall_back(self._line, lost)

    def _resume(self) -> Ending:
        """Take over a call that an esl_app before this one had answered. Raises BROKEN, HungUp, AgentHangsUp."""
        self._answering = True
        channel = self._session.session_data
        arrived = arrival.read(channel)
        self._line.arrived(arrived, resumption.recall(self._services, arrived, channel))
        self._leg.log.warning("taken over from an esl_app that is gone")
        self._session.subscribe()
        RingTone(self._leg, self._services.settings.policy.home_country).silence()
        self._line.music.silence()
        self._line.recording.take_over()
        try:
            try:
                self._line.fork.resume(RESUME_S)
            except ForkLost as lost:
                raise ConversationLost("fork", str(lost)) from lost
            return self._converse()
        except ConversationLost as lost:
            return fallback.fall_back(self._line, lost)

    def _arrive(self) -> None:
        """Know the call, put it on record as live, prepare its channel, and ring. Raises Refused."""
        channel = self._session.session_data
        self._started = self._leg.clock()
        arrived = arrival.read(channel)
        self._line.arrived(arrived)
        try:
            self._check(arrived, channel)
        except Refused:
            self._session.subscribe()
            raise
        self._session.subscribe(
            # All of it before the answer: send_silence_when_idle has no effect afterwards.
            self._session.setting(
                send_silence_when_idle=SEND_SILENCE,
                hangup_after_bridge="true",
                ignore_display_updates="true",
                exclude_outgoing_extra_header="^sip_h_X-Tandem-",
                playback_terminators="none",
            ),
            # 180: the edge gives up a worker from which it hears no more than 100, however soon the model would be ready.
            self._session.execution("ring_ready"),
        )

    def _check(self, arrived: arrival.Arrival, channel: Mapping[str, str]) -> None:
        """Raises Refused."""
        if self._refusal is not None:
            raise Refused(self._refusal, "this worker takes no call now")
        arrival.check(arrived, channel)
        if arrived.agent not in self._services.settings.agents:
            raise Refused(RefusalCause.UNKNOWN_AGENT, f"no agent named {arrived.agent!r}")

    def _reserve(self) -> SessionReply:
        """A session with its model ready. Raises Refused, HungUp."""
        self._reserving = gevent.spawn(self._ask_for_session)
        while True:
            # Without a deadline: the greenlet reports within its own, whatever comes.
            happening = self._leg.next()
            if isinstance(happening, Reserved):
                if isinstance(happening.result, Exception):
                    raise happening.result
                return happening.result

    def _ask_for_session(self) -> SessionReply | Exception:
        result: SessionReply | Exception
        try:
            within_s = self._services.settings.esl_app.answer_within_ms / 1000
            result = self._services.media_fork.reserve(self._line.arrival.request(), within_s)
        except Exception as error:  # noqa: BLE001 - the call's own greenlet raises it
            result = error
        self._leg.put(Reserved(result))
        return result

    def _answer(self) -> None:
        self._answering = True
        self._leg.answer(ANSWER_S)
        SETUP.observe(self._leg.clock() - self._started)
        self._line.note(answered_at=self._services.now())

    def _connect(self, reservation: SessionReply) -> None:
        within_s = self._services.settings.esl_app.fork_within_ms / 1000
        try:
            self._line.fork.connect(self._line.arrival.call, reservation, within_s)
        except ForkLost as lost:
            raise ConversationLost("fork_not_connected", str(lost)) from lost
        if self._line.fork.codec not in ("", self._line.arrival.codec):
            self._line.note(codec=self._line.fork.codec)

    def _converse(self) -> Ending:
        """Until the caller hangs up (HungUp), the agent does (AgentHangsUp), or the caller is put through."""
        while True:
            match self._leg.next():
                case Decision(Transfer() as wanted):
                    ending = transfer.carry_out(self._line, wanted)
                    if ending is not None:
                        return ending
                case happening if happening is not None:
                    self._line.meanwhile(happening)
            if self._line.lost is not None:
                raise self._line.lost

    # Ends

    def _refuse(self, refusal: Refused) -> Ending:
        """Refused before answer, with its cause in the Reason header."""
        status, hangup_cause = SIP_STATUS[refusal.cause]
        self._leg.log.warning("call refused with %d: %s: %s", status, refusal.cause.value, refusal)
        ending = Ending(Outcome.REFUSED, refusal.cause.value, status)
        try:
            self._session.set(sip_reason=f'SIP;cause={status};text="{refusal.cause.value}"')
            self._session.api("uuid_kill", self._leg.uuid, hangup_cause)
            self._leg.until_hung_up(HANGUP_S)
        except HungUp:
            return ending
        except BROKEN as error:
            self._leg.log.warning("the refusal may not have reached the caller: %s", error)
        return ending

    def _left(self, gone: HungUp) -> Ending:
        """The caller's leg ended without our doing."""
        if gone.lost:
            if self._line.is_answered:
                return Ending(Outcome.FAILED, gone.cause)
            return Ending(Outcome.REFUSED, RefusalCause.CONTROLLER_ERROR.value)
        cause = "" if gone.cause in ("NORMAL_CLEARING", "ORIGINATOR_CANCEL") else gone.cause.lower()
        return Ending(Outcome.CALLER_HUNG_UP if self._line.is_answered else Outcome.ABANDONED, cause)

    def _broken(self, error: Exception) -> Ending:
        """Something did not work; often that the caller had gone."""
        try:
            self._leg.until_hung_up(LAST_WORD_S)
        except HungUp as gone:
            return self._left(gone)
        except TimedOut:
            self._leg.log.error("the call cannot go on: %s", error)
        if not self._line.is_answered:
            return self._refuse(Refused(RefusalCause.CONTROLLER_ERROR, str(error)))
        self._line.hang_up()
        return Ending(Outcome.FAILED, RefusalCause.CONTROLLER_ERROR.value)

    def _finish(self, ending: Ending) -> None:
        CALLS.labels(ending.outcome.value, ending.cause if ending.outcome is Outcome.REFUSED else "").inc()
        self._leg.log.info("call ended: %s %s", ending.outcome.value, ending.cause)
        self._line.note(
            ended_at=self._services.now(),
            outcome=ending.outcome,
            cause=ending.cause,
            sip_status=ending.sip_status,
            transferred_to=ending.transferred_to or self._line.put_through_to,
        )

    def _let_go(self) -> None:
        """A call that was put through goes on without this process, and so does its recording."""
        if self._line.is_over or self._line.put_through_to is None:
            self._line.forget()

    def _shut_down(self) -> None:
        """The process cannot wait. A call that was put through goes on without it, its record open for the next one."""
        if self._line.is_over:
            return
        if self._line.put_through_to is not None:
            self._leg.log.warning("left to the next esl_app: put through to %s", self._line.put_through_to)
            return
        self._line.hang_up()
        self._finish(Ending(Outcome.FAILED, RefusalCause.DRAINING.value))

    def _leave_no_channel(self) -> None:
        """An answered call outlives its event socket, for the next esl_app to take over: not one that is done with here."""
        if self._answering and self._line.put_through_to is None and not self._leg.has_hung_up:
            self._services.inbound.end_channel(self._leg.uuid, self._line.arrival.call)

    def _give_back(self) -> None:
        """A session that was reserved and whose fork never came."""
        if self._reserving is None or self._line.fork.was_live:
            return
        result = self._reserving.get()
        if isinstance(result, SessionReply):
            self._services.media_fork.release(result.session)
