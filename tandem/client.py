"""Programs of this site as clients of its HTTP APIs: JSON with the bearer token, on this machine's addresses."""

import json
import urllib.error
import urllib.request
from typing import Any

from tandem.settings import Settings

WITHIN_S = 15.0


class ClientError(Exception):
    """Nothing came of the request. ``status`` of HTTP, 0 where there was no answer; ``cause`` in one word."""

    def __init__(self, status: int, cause: str, message: str) -> None:
        self.status = status
        self.cause = cause
        super().__init__(message)


class Client:
    """``token``: what the server's clients must present."""

    def __init__(self, host: str, port: int, token: str) -> None:
        shown = f"[{host}]" if ":" in host else host
        self._base = f"http://{shown}:{port}"
        self._token = token

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The reply's JSON; None where it has no body. Raises ClientError."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._base}{path}", data, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=WITHIN_S) as response:
                reply = response.read()
        except urllib.error.HTTPError as error:
            raise _refused(error) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise ClientError(0, "unreachable", f"{self._base} cannot be reached: {reason}") from error
        return json.loads(reply) if reply else None


def worker_client(settings: Settings, worker: str) -> Client:
    """Of a worker's API. Raises ClientError where it has none."""
    token = settings.esl_app.api_token
    if token is None:
        raise ClientError(0, "no_api", "esl_app.api_token is not set, so the workers have no API")
    return Client(settings.workers[worker].loopback, settings.esl_app.api_port, token.get_secret_value())


def _refused(error: urllib.error.HTTPError) -> ClientError:
    try:
        said = json.loads(error.read())
        return ClientError(error.code, str(said["error"]), str(said["message"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ClientError(error.code, "not_understood", f"answered with HTTP status {error.code}")
