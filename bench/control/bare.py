"""The peer: a bare greenswitch OutboundESLServer that has FreeSWITCH do what esl_app has it do, and nothing more.

No record, no metrics, no bounds, no policy; the same commands, the same reservation over HTTP.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

from gevent.event import Event as Flag
from geventhttpclient import HTTPClient
from greenswitch import OutboundESLServer

EVENTS = (
    "CHANNEL_ANSWER CHANNEL_HANGUP CHANNEL_EXECUTE_COMPLETE DTMF CUSTOM mod_audio_fork::connect"
    " mod_audio_fork::disconnect mod_audio_fork::json"
)


class BareCall:
    def __init__(self, session: Any, host: str, http_port: int) -> None:
        self.session = session
        self.host = host
        self.http_port = http_port

    def when(self, event: str) -> Flag:
        flag = Flag()
        self.session.register_handle(event, lambda _: flag.set())
        return flag

    def run(self) -> None:
        session = self.session
        answered, connected = self.when("CHANNEL_ANSWER"), self.when("mod_audio_fork::connect")
        over = self.when("CHANNEL_HANGUP")
        session.register_handle("DTMF", self.digit)
        session.send(f"filter Unique-ID {session.uuid}")
        session.linger(5)
        session.send(f"event plain {EVENTS}")
        session.send(f"api uuid_setvar_multi {session.uuid} send_silence_when_idle=-1;hangup_after_bridge=true")
        session.call_command("ring_ready")
        reservation = self.reserve()
        session.answer()
        answered.wait()
        hello = json.dumps({"call": session.uuid, "session": reservation["session"]})
        session.send(
            f"api uuid_audio_fork {session.uuid} start '{reservation['url']}' mono 8000 tandem '{hello}' true true 8000"
        )
        connected.wait()
        session.send(f"api uuid_getvar {session.uuid} rtp_use_codec_name")
        session.send(f"api uuid_setvar_multi {session.uuid} absolute_codec_string=PCMU,PCMA")
        over.wait()

    def digit(self, event: Any) -> None:
        notice = json.dumps({"notice": "dtmf", "digit": event.headers["DTMF-Digit"]})
        self.session.send(f"api uuid_audio_fork {self.session.uuid} send_text tandem '{notice}'")

    def reserve(self) -> dict[str, Any]:
        client = HTTPClient(self.host, self.http_port, concurrency=1)
        try:
            request = json.dumps({"call": self.session.uuid, "agent": "bench", "codec": "PCMU"}).encode()
            response = client.request("POST", "/v1/sessions", request, {"Connection": "close"})
            reply: dict[str, Any] = json.loads(response.read())
            return reply
        finally:
            client.close()


def application(host: str, http_port: int) -> Callable[[Any], BareCall]:
    return lambda session: BareCall(session, host, http_port)


if __name__ == "__main__":
    address, app_port, media_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    OutboundESLServer(address, app_port, application(address, media_port), max_connections=10000).listen()
