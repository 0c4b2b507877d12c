"""Actions of the agent that are done at once, each answered with what came of it."""

from esl_app.recording import NotRecorded, Recording
from tandem.outcome import ActionOutcome
from tandem.seam import Acted, Record, RecordingAction

_WHAT_IT_DOES = {
    RecordingAction.START: "the call is being recorded",
    RecordingAction.STOP: "the call is no longer recorded",
    RecordingAction.PAUSE: "nothing is recorded until it is resumed",
    RecordingAction.RESUME: "the call is being recorded again",
    RecordingAction.CONSENT_GIVEN: "their consent is on record",
    RecordingAction.CONSENT_REFUSED: "their refusal is on record, and nothing is recorded",
}


def record(recording: Recording, wanted: Record) -> Acted:
    """The agent's tool of that name."""
    try:
        match wanted.action:
            case RecordingAction.START:
                recording.start()
            case RecordingAction.STOP:
                recording.stop()
            case RecordingAction.PAUSE:
                recording.pause()
            case RecordingAction.RESUME:
                recording.resume()
            case RecordingAction.CONSENT_GIVEN:
                recording.caller_answers(True)
            case RecordingAction.CONSENT_REFUSED:
                recording.caller_answers(False)
    except NotRecorded as error:
        outcome = ActionOutcome.FAILED if error.cause == "failed" else ActionOutcome.REFUSED
        return Acted(id=wanted.id, outcome=outcome, detail=str(error))
    return Acted(id=wanted.id, outcome=ActionOutcome.DONE, detail=_WHAT_IT_DOES[wanted.action])
