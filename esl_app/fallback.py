"""Down the ladder: a caller whom no agent serves is taken to the number's fallbacks, in order, until somebody is reached.


    [apology] ──▶ rung ──▶ rung ──▶ … ──▶ words of regret

A rung is a destination or ring group, which is rung under the dial policy; ``voicemail``; or ``regret``, which always ends it.
"""

from collections.abc import Sequence

from esl_app.leg import HungUp
from esl_app.line import BROKEN, ConversationLost, Ending, Line
from esl_app.media import Refused
from esl_app.message import message
from esl_app.metrics import DIAL_REFUSED, FALLBACKS, RUNGS
from esl_app.transfer import consult
from esl_app.voicemail import PROMPT_S, Taken, file_of, take_message
from tandem import dial_policy, hunting
from tandem.destinations import TransferMethod
from tandem.outcome import Outcome, TransferOutcome
from tandem.rows import TransferRecord
from tandem.seam import Ended
from tandem.settings import REGRET, VOICEMAIL


def fall_back(line: Line, lost: ConversationLost) -> Ending:
    """The conversation is lost: from there to the end of the call. ``failed`` where nobody was reached."""
    cause = lost.what if lost.what == "fork_not_connected" else f"{lost.what}_lost"
    line.leg.log.error("conversation lost: %s: %s", cause, lost)
    FALLBACKS.labels(lost.what).inc()
    line.fork.stop(Ended(why=cause))
    return _Ladder(line, cause).descend("apology")


def stand_in(line: Line, refusal: Refused) -> Ending:
    """There is no model for the call, which this worker was the last to be asked for and has answered: to its end."""
    line.leg.log.warning("down the ladder: %s: %s", refusal.cause.value, refusal)
    FALLBACKS.labels("no_model").inc()
    return _Ladder(line, refusal.cause.value).descend(None)


def rungs(line: Line) -> Sequence[str]:
    """The called number's fallbacks, in order."""
    route = line.settings.numbers.get(line.arrival.number)
    return route.fallback if route else ()


class _Ladder:
    def __init__(self, line: Line, cause: str) -> None:
        self._line = line
        self._cause = cause

    def descend(self, first_words: str | None) -> Ending:
        line = self._line
        reached: str | None = None
        try:
            if first_words is not None:
                self._say(first_words)
            reached = next((rung for number, rung in enumerate(rungs(line), 1) if self._reaches(number, rung)), None)
            if reached in (None, REGRET):
                self._say("regret")
        except HungUp as gone:
            line.leg.log.warning("nobody was reached: %s", gone)
        line.hang_up()
        if reached in (None, REGRET):
            return Ending(Outcome.FAILED, self._cause)
        return Ending(Outcome.FELL_BACK, self._cause, transferred_to=None if reached == VOICEMAIL else reached)

    def _say(self, prompt: str) -> None:
        """Raises HungUp; a prompt that cannot be played is no reason to stop."""
        try:
            self._line.leg.play(str(self._line.settings.freeswitch.prompts / f"{prompt}.wav"), PROMPT_S)
        except BROKEN as error:
            self._line.leg.log.error("%s was not said: %s", prompt, error)

    def _reaches(self, number: int, rung: str) -> bool:
        """Try one rung, put it on record, and be done with it where it is reached. Raises HungUp."""
        if rung == REGRET:
            RUNGS.labels(rung, "reached").inc()
            return True
        line = self._line
        row = TransferRecord(
            call=line.arrival.call,
            id=f"fallback-{number}",
            destination=rung,
            method=VOICEMAIL if rung == VOICEMAIL else TransferMethod.BRIDGE.value,
            started_at=line.services.now(),
        )
        line.services.recorder.put(row)
        outcome, detail = TransferOutcome.CALLER_HUNG_UP, "the caller hung up"
        try:
            outcome, detail = self._take_message() if rung == VOICEMAIL else self._ring(rung)
        except BROKEN as error:
            outcome, detail = TransferOutcome.FAILED, str(error)
        finally:
            reached = outcome is TransferOutcome.ANSWERED
            RUNGS.labels(
                VOICEMAIL if rung == VOICEMAIL else "destination", "reached" if reached else outcome.value
            ).inc()
            line.leg.log.info("fallback %s: %s (%s)", rung, outcome.value, detail)
            over = {"outcome": outcome, "detail": detail, "ended_at": line.services.now()}
            line.services.recorder.put(row.model_copy(update=over))
        return reached

    def _take_message(self) -> tuple[TransferOutcome, str]:
        line = self._line
        taken = take_message(line.leg, line.settings, line.arrival.call)
        if taken is Taken.FAILED:
            return TransferOutcome.FAILED, "FreeSWITCH cannot record"
        if taken is Taken.MESSAGE:
            file = file_of(line.settings, line.arrival.call)
            line.services.message_left(
                message(line.arrival, line.services.worker, self._cause, file, line.services.now())
            )
        return TransferOutcome.ANSWERED, taken.value

    def _ring(self, rung: str) -> tuple[TransferOutcome, str]:
        """The destination, and where it answers the whole talk."""
        line = self._line
        plan = hunting.resolve(line.settings, rung, tenant=line.arrival.tenant, now=line.services.now())
        if isinstance(plan, dial_policy.Refused):
            DIAL_REFUSED.labels(plan.refusal.value).inc()
            return plan.outcome, plan.detail
        attempt = consult(line, plan, lambda how: None)
        if attempt.target is not None:
            line.talk(attempt.target, rung)
        return attempt.outcome, attempt.detail
