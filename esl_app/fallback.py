"""An answered caller has nobody to talk to any more: an apology, then the number's fallback, a person or voicemail."""

from esl_app.leg import HungUp
from esl_app.line import BROKEN, ConversationLost, Ending, Line
from esl_app.metrics import FALLBACKS
from esl_app.transfer import consult
from esl_app.voicemail import PROMPT_S, take_message
from tandem import hunting
from tandem.dial_policy import Refused
from tandem.outcome import Outcome
from tandem.seam import Ended
from tandem.settings import VOICEMAIL


def fall_back(line: Line, lost: ConversationLost) -> Ending:
    """From the loss to the end of the call. ``failed`` where the fallback was not reached."""
    cause = lost.what if lost.what == "fork_not_connected" else f"{lost.what}_lost"
    line.leg.log.error("conversation lost: %s: %s", cause, lost)
    FALLBACKS.labels(lost.what).inc()
    line.fork.stop(Ended(why=cause))
    try:
        reached = _apologise_and_reach(line)
    except (HungUp, *BROKEN) as error:
        line.leg.log.warning("the fallback was not reached: %s", error)
        reached = None
    line.hang_up()
    if reached is None:
        return Ending(Outcome.FAILED, cause)
    return Ending(Outcome.FELL_BACK, cause, transferred_to=None if reached == VOICEMAIL else reached)


def leave_message(line: Line) -> bool:
    """Voicemail, to the end of the call: whether the caller could leave a message. Raises BROKEN, HungUp."""
    seconds = line.settings.esl_app.voicemail_seconds
    taken = take_message(line.leg, line.settings.freeswitch, line.arrival.call, seconds)
    line.hang_up()
    return taken


def _apologise_and_reach(line: Line) -> str | None:
    """The fallback that was reached, and is done with, or None."""
    line.leg.play(str(line.settings.freeswitch.prompts / "apology.wav"), PROMPT_S)
    route = line.settings.numbers.get(line.arrival.number)
    fallback = route.fallback if route else None
    if fallback == VOICEMAIL:
        return VOICEMAIL if leave_message(line) else None
    if fallback is None:
        return None
    plan = hunting.resolve(line.settings, fallback, tenant=line.arrival.tenant, now=line.services.now())
    if isinstance(plan, Refused):
        line.leg.log.error("the fallback %s is refused: %s", fallback, plan.refusal.value)
        return None
    attempt = consult(line, plan, lambda: None)
    if attempt.target is None:
        line.leg.log.error("the fallback %s was not reached: %s", fallback, attempt.detail)
        return None
    line.talk(attempt.target, fallback)
    return fallback
