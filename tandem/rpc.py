"""JSON-RPC of the running Kamailio, on its loopback listener (``edge.rpc``)."""

import json
import urllib.error
import urllib.request
from typing import Any

PATIENCE_S = 5.0
MAX_REPLY = 16 << 20
"""Bytes."""


class RpcError(Exception):
    """Kamailio could not be asked, or refused; the message says which and why."""


class Rpc:
    """``rpc("dispatcher.list")``: one question, one answer. ``place`` is HOST:PORT."""

    def __init__(self, place: str) -> None:
        self._url = f"http://{place}/rpc"

    def __call__(self, method: str, *params: str | int) -> Any:
        """The result. Raises RpcError."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        try:
            reply = json.loads(self._post(body))
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", error)
            raise RpcError(f"Kamailio at {self._url}: {why}; is it running on this machine?") from error
        if not isinstance(reply, dict) or "error" in reply:
            why = reply["error"].get("message") if isinstance(reply, dict) else reply
            raise RpcError(f"Kamailio refuses {' '.join(map(str, (method, *params)))}: {why}")
        return reply.get("result")

    def _post(self, body: bytes) -> bytes:
        try:
            with urllib.request.urlopen(self._url, body, timeout=PATIENCE_S) as reply:
                return bytes(reply.read(MAX_REPLY))
        except urllib.error.HTTPError as error:
            # What it refuses it says with 500, and why in the body.
            return bytes(error.read(MAX_REPLY))
