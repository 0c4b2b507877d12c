"""A briefing: who answered a warm transfer is told who is calling, and says whether they take the call.

An agent tells them, in a session of media_fork on a fork of the target's own leg, and hears their answer; the keys 1 and 2 count
as well. Where no such session can be had, a recorded prompt asks for the keys.
"""

import gevent

from esl_app.context import Carried
from esl_app.fork import BUG, start_of
from esl_app.happenings import Briefed, Decision, Digit, Elsewhere, ForkDown, Happening, LegEnded
from esl_app.hunt import Target
from esl_app.leg import HungUp
from esl_app.line import Line
from esl_app.media import Refused
from esl_app.protocol import COMMAND_FAILURES, CommandFailed
from esl_app.quoting import quote
from tandem import seam
from tandem.outcome import TransferOutcome
from tandem.seam import Answer, Codec, Ended, HangUp, ModelLost, SessionReply, SessionRequest, Verdict

RESERVE_S = 4.0
"""For a session; then the prompt is played."""
PROMPT = "briefing.wav"
"""In freeswitch.prompts: asks for 1 or 2."""
TAKE, DECLINE = "1", "2"
SUFFIX = ".briefing"
"""What the turns of a briefing have behind the call's id, so that they are none of the caller's."""

_OUTCOMES = {
    Answer.TAKES: TransferOutcome.ANSWERED,
    Answer.DECLINES: TransferOutcome.DECLINED,
    Answer.MACHINE: TransferOutcome.VOICEMAIL,
}


class Briefing:
    """One, of the caller on ``line`` to ``target``, whose leg is parked."""

    def __init__(self, line: Line, target: Target, carried: Carried) -> None:
        self._line = line
        self._leg = line.leg
        self._channel = target.channel
        self._carried = carried
        self._call = line.arrival.call + SUFFIX
        self._reservation: SessionReply | None = None
        self._forked = False
        self._prompted = False
        self._over = False

    def run(self, within_s: float) -> TransferOutcome:
        """ANSWERED: they take the call. Raises HungUp where the caller leaves, and what Session's commands raise."""
        gevent.spawn(self._reserve, self._request())
        deadline = self._leg.clock() + within_s
        try:
            while (happening := self._leg.next(deadline)) is not None:
                outcome = self._answer_in(happening)
                if outcome is not None:
                    return outcome
            return TransferOutcome.NOT_ACCEPTED
        finally:
            self._end()

    def _answer_in(self, happening: Happening) -> TransferOutcome | None:
        match happening:
            case Elsewhere(self._channel, Digit(digit=digit)) if digit in (TAKE, DECLINE):
                return TransferOutcome.ANSWERED if digit == TAKE else TransferOutcome.DECLINED
            case Elsewhere(self._channel, Decision(Verdict(answer=answer))):
                return _OUTCOMES[answer]
            case Elsewhere(self._channel, Decision(HangUp())):
                return TransferOutcome.DECLINED
            case Elsewhere(self._channel, ForkDown() | Decision(ModelLost())):
                self._prompt("the agent that told them is lost")
            case LegEnded(self._channel):
                return TransferOutcome.TARGET_HUNG_UP
            case Briefed(self._channel, result):
                self._reserved(result)
            case Digit() | Decision(HangUp() | seam.Hold()):
                # The caller is on hold: their agent neither hears nor ends anything.
                return None
            case other:
                self._line.meanwhile(other)
        return None

    # The session that tells them

    def _request(self) -> SessionRequest:
        arrival = self._line.arrival
        codec = self._leg.session.variable("rtp_use_codec_name", self._channel)
        return SessionRequest(
            call=self._call,
            agent=arrival.agent,
            caller=arrival.caller,
            number=arrival.number,
            codec=Codec(codec) if codec in (Codec.PCMU, Codec.PCMA) else Codec.L16,
            trunk=arrival.trunk,
            tenant=arrival.tenant,
            verified=arrival.verified,
            briefing=seam.Briefing(caller=arrival.caller, reason=self._carried.reason, summary=self._carried.summary),
        )

    def _reserve(self, request: SessionRequest) -> None:
        result: SessionReply | Exception
        try:
            result = self._line.services.media_fork.reserve(request, RESERVE_S)
        except Refused as refused:
            result = refused
        if not self._over:
            self._leg.put(Briefed(self._channel, result))
        elif isinstance(result, SessionReply):
            self._line.services.media_fork.release(result.session)

    def _reserved(self, result: SessionReply | Exception) -> None:
        if isinstance(result, Exception):
            self._prompt(str(result))
            return
        self._reservation = result
        try:
            self._leg.session.api("uuid_audio_fork", self._channel, *start_of(self._call, result))
            self._forked = True
        except CommandFailed as error:
            self._prompt(str(error))

    def _prompt(self, why: str) -> None:
        """Ask by a recording, once."""
        if self._prompted:
            return
        self._prompted = True
        self._leg.log.warning("nobody tells who is calling, a prompt does: %s", why)
        file = self._line.settings.freeswitch.prompts / PROMPT
        self._leg.session.api("uuid_broadcast", self._channel, str(file), "aleg")

    def _end(self) -> None:
        self._over = True
        try:
            if self._forked:
                self._leg.session.api("uuid_audio_fork", self._channel, "stop", BUG, quote(_ENDED))
            if self._prompted:
                self._leg.session.api("uuid_break", self._channel, "all")
        except (HungUp, *COMMAND_FAILURES) as error:
            self._leg.log.info("the end of a briefing: %s", error)
        if self._reservation is not None and not self._forked:
            gevent.spawn(self._line.services.media_fork.release, self._reservation.session)


_ENDED = Ended(why="briefed").model_dump_json()
