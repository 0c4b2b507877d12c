"""The HTTP side of media_fork: a session is reserved before the call is answered, and given back when it was not used."""

import logging

import gevent
from gevent import socket
from geventhttpclient.response import HTTPParseError, HTTPSocketResponse
from pydantic import BaseModel, ValidationError

from tandem.outcome import RefusalCause
from tandem.seam import SessionRefusal, SessionReply, SessionRequest

MAX_REPLY = 64 * 1024
RELEASE_S = 2.0
HEALTH_S = 1.0
_CONNECT_S = 1.0

_log = logging.getLogger(__name__)


class Refused(Exception):
    """The call cannot be taken. ``cause`` decides what the caller's side is told (tandem.outcome.SIP_STATUS)."""

    def __init__(self, cause: RefusalCause, message: str) -> None:
        self.cause = cause
        super().__init__(message)


class Health(BaseModel):
    """media_fork's /healthz, as far as it matters here. ``status``: ok or draining; ``model``: ok or resting."""

    status: str
    model: str = "ok"


class MediaFork:
    """media_fork on ``host:port``. A connection a request: on loopback it costs nothing, and none can go stale."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        # An address, which geventhttpclient's own client would have looked up in a thread each time.
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def reserve(self, request: SessionRequest, within_s: float) -> SessionReply:
        """Have a session made ready. Raises Refused; media_unavailable where no sound answer came ``within_s``."""
        try:
            with gevent.Timeout(within_s, TimeoutError(f"no answer in {within_s:g} s")):
                status, body = self._ask("POST", "/v1/sessions", request.model_dump_json().encode(), within_s)
            if status == 201:
                return SessionReply.model_validate_json(body)
            refusal = SessionRefusal.model_validate_json(body)
        except (OSError, HTTPParseError, ValidationError) as error:
            shown = f"{error.error_count()} errors in its answer" if isinstance(error, ValidationError) else str(error)
            raise Refused(RefusalCause.MEDIA_UNAVAILABLE, f"media_fork: {shown or type(error).__name__}") from error
        raise Refused(_cause(refusal.cause), f"media_fork refused with {status}: {refusal.message}")

    def health(self) -> "Health | None":
        """What media_fork says of itself; None where it says nothing sound."""
        try:
            with gevent.Timeout(HEALTH_S, TimeoutError(f"no answer in {HEALTH_S:g} s")):
                _, body = self._ask("GET", "/healthz", b"", HEALTH_S)
            return Health.model_validate_json(body)
        except (OSError, HTTPParseError, ValidationError):
            return None

    def release(self, session: str) -> None:
        """Give back a session whose fork will not come. Never raises: its token runs out by itself."""
        try:
            with gevent.Timeout(RELEASE_S, TimeoutError(f"no answer in {RELEASE_S:g} s")):
                status, _ = self._ask("DELETE", f"/v1/sessions/{session}", b"", RELEASE_S)
        except (OSError, HTTPParseError) as error:
            _log.warning("session %s was not given back: %s", session, error)
            return
        if status not in (204, 404):
            _log.warning("session %s was not given back: media_fork answered %d", session, status)

    def _ask(self, method: str, path: str, body: bytes, within_s: float) -> tuple[int, bytes]:
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            sock.settimeout(min(_CONNECT_S, within_s))
            sock.connect((self._host, self._port))
            sock.settimeout(within_s)
            sock.sendall(
                f"{method} {path} HTTP/1.1\r\nHost: {self._authority}\r\nConnection: close\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            response = HTTPSocketResponse(sock, method=method)
            return response.get_code(), bytes(response.read(MAX_REPLY))
        finally:
            sock.close()


def _cause(text: str) -> RefusalCause:
    try:
        return RefusalCause(text)
    except ValueError:
        return RefusalCause.MEDIA_UNAVAILABLE
