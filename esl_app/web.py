"""HTTP servers of esl_app: gevent's, without patience for connections that say nothing."""

from typing import Any

from gevent import socket
from gevent.pywsgi import WSGIServer

SILENT_S = 5.0
"""A connection on which nothing comes for so long is closed, be it before a request, within one, or after it."""


class WebServer(WSGIServer):
    """Logs nothing: requests are counted where they are served."""

    def __init__(self, listener: tuple[str, int], application: Any, spawn: Any = "default") -> None:
        super().__init__(listener, application, spawn=spawn, log=None, error_log=None)

    def handle(self, sock: socket.socket, address: Any) -> None:
        sock.settimeout(SILENT_S)
        super().handle(sock, address)
