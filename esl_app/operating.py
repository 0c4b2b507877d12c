"""What the API may do with a call under way: look at its recording, begin, end, pause and resume it."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from esl_app.api import Api, ApiError, Reply, Request
from esl_app.line import Line, Services
from esl_app.recording import NotRecorded


class _Action(StrEnum):
    START = "start"
    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"


class _Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    action: _Action


class Operating:
    """Adds its routes to ``api``."""

    def __init__(self, api: Api, services: Services) -> None:
        self._services = services
        api.route("GET", "/v1/calls/{call}/recording", self._look)
        api.route("POST", "/v1/calls/{call}/recording", self._act)

    def _line(self, request: Request) -> Line:
        line = self._services.lines.get(request.parameters["call"])
        if line is None:
            raise ApiError(404, "no_call", "no such call is under way at this worker")
        return line

    def _look(self, request: Request) -> Reply:
        return Reply(200, _told(self._line(request)))

    def _act(self, request: Request) -> Reply:
        line = self._line(request)
        wanted = request.json(_Wanted)
        recording = line.recording
        actions = {
            _Action.START: recording.start,
            _Action.STOP: recording.stop,
            _Action.PAUSE: recording.pause,
            _Action.RESUME: recording.resume,
        }
        try:
            actions[wanted.action]()
        except NotRecorded as error:
            raise ApiError(503 if error.cause == "failed" else 409, error.cause, str(error)) from None
        line.leg.log.info("recording: %s, over the API", wanted.action.value)
        return Reply(200, _told(line))


def _told(line: Line) -> dict[str, Any]:
    recording = line.recording
    return {"call": line.arrival.call, "recording": recording.state, "consent": recording.consent.value}
