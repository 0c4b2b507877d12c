"""``tandem check`` tells what is reachable, what is wrong with what is not, and what to do."""

import http.server
import json
import shutil
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner
from websockets.sync.server import ServerConnection, serve

from tandem import database, probes
from tandem.check import State, check_all
from tandem.cli import app
from tandem.probes import Failed, Skipped
from tandem.settings import RealtimeModel, Records, RtpEngine, Settings, Worker, load
from tests.tandem.site_files import write_site

HERE = "127.0.41.1"
"""An address of loopback that no other test uses."""
STREAMING = "-USAGE: <uuid> [start | stop] [bugname] [metadata] [bidirectionalAudio_enabled] " + (
    "[bidirectionalAudio_stream_enabled] [bidirectionalAudio_stream_samplerate]"
)
PLAIN = "-USAGE: <uuid> [start | stop] [wss-url] [mono | mixed | stereo] [8000] [bugname] [metadata]"


def failure(probe: Callable[[], str]) -> tuple[str, str]:
    with pytest.raises(Failed) as caught:
        probe()
    return str(caught.value), caught.value.advice


# The model


@pytest.fixture
def realtime() -> Iterator[Callable[..., str]]:
    """Starts a Realtime server that says one thing, and gives its URL."""
    servers = []

    def start(first: object, key: str = "sk-right") -> str:
        def handler(connection: ServerConnection) -> None:
            assert connection.request
            assert connection.request.path == "/v1/realtime?model=gpt-realtime-2.1"
            connection.send(json.dumps(first))

        def authorise(connection: ServerConnection, request):
            right = request.headers.get("Authorization") == f"Bearer {key}"
            return None if right else connection.respond(401, "no\n")

        server = serve(handler, HERE, 0, process_request=authorise)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"ws://{HERE}:{server.socket.getsockname()[1]}/v1/realtime"

    yield start
    for server in servers:
        server.shutdown()


def test_a_model_that_opens_a_session_is_ok(realtime):
    url = realtime({"type": "session.created", "session": {}})
    assert probes.model(RealtimeModel(url=url, key="sk-right")) == "gpt-realtime-2.1 opens a session"


def test_a_key_that_the_model_refuses_is_told_and_not_shown(realtime):
    url = realtime({"type": "session.created"})
    why, advice = failure(lambda: probes.model(RealtimeModel(url=url, key="sk-wrong")))
    assert (why, advice) == (f"{url} answers HTTP 401", "check model.key")


def test_a_model_that_answers_with_an_error_is_told_in_its_words(realtime):
    url = realtime({"type": "error", "error": {"message": "no such model"}})
    assert failure(lambda: probes.model(RealtimeModel(url=url, key="sk-right")))[0] == f"{url}: no such model"


def test_a_model_that_is_not_there_is_told():
    url = f"ws://{HERE}:1/v1/realtime"
    assert "Connection refused" in failure(lambda: probes.model(RealtimeModel(url=url)))[0]


def test_openai_without_a_key_is_told_without_asking_it():
    assert failure(lambda: probes.model(RealtimeModel())) == ("model.key is empty", "set OPENAI_API_KEY")


# The database


def test_a_database_is_told_with_its_schema(database_url, tmp_path):
    records = Records(url=database_url, spool=tmp_path)
    assert "will be made" in probes.records_database(records)
    engine = database.connect(database_url)
    database.upgrade(engine)
    engine.dispose()
    assert probes.records_database(records).endswith(f": schema {database.newest_revision()}")


def test_a_database_that_is_away_is_told_without_its_password():
    records = Records(url="postgresql+psycopg://tandem:s3cret@127.0.0.1:1/tandem")
    why, advice = failure(lambda: probes.records_database(records))
    assert "s3cret" not in why
    assert advice == "start the database, or correct records.url"


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    records = Records(url=f"sqlite:///{tmp_path}/file/x/tandem.db", spool=tmp_path / "file/spool")
    for probe in (probes.records_database, probes.spool):
        assert failure(lambda probe=probe: probe(records))[1] == f"make {tmp_path}/file a folder this user may write"


def test_a_disk_with_less_room_than_the_spool_may_take_is_told(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10 << 20)
    monkeypatch.setattr("tandem.probes.shutil.disk_usage", lambda _: usage)
    assert failure(lambda: probes.spool(Records(spool=tmp_path, spool_mb=11)))[1] == "make room"
    assert probes.spool(Records(spool=tmp_path, spool_mb=10)) == f"{tmp_path}, 10 MB at most"


# Kamailio


@pytest.mark.skipif(not shutil.which("kamailio", path="/usr/sbin:/usr/bin"), reason="no kamailio on this machine")
def test_kamailio_takes_the_rendered_configuration(tmp_path):
    assert probes.kamailio_configuration(load(write_site(tmp_path), {})) == "kamailio -c takes it"


# Workers


class Switch(socketserver.ThreadingTCPServer):
    """An event socket: what it says first, the password, and its answers to api."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, answers: dict[str, str], greeting: str = "Content-Type: auth/request\n\n") -> None:
        self.answers = answers
        self.greeting = greeting
        super().__init__((HERE, 0), SwitchConnection)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class SwitchConnection(socketserver.StreamRequestHandler):
    server: Switch

    def handle(self) -> None:
        self.wfile.write(self.server.greeting.encode())
        while line := self.rfile.readline().decode().strip():
            self.rfile.readline()
            if line.startswith("auth"):
                said = "+OK accepted" if line == "auth ClueCon" else "-ERR invalid"
                self.wfile.write(f"Content-Type: command/reply\nReply-Text: {said}\n\n".encode())
            else:
                said = self.server.answers.get(line.removeprefix("api "), "-ERR no such command")
                self.wfile.write(f"Content-Type: api/response\nContent-Length: {len(said)}\n\n{said}".encode())


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., Settings]:
    def build(event_socket_port: int = 8021, password: str = "ClueCon", dial: str = "2001") -> Settings:
        changes = {
            "edge/listen": [{"address": HERE}],
            "edge/rpc": f"{HERE}:5067",
            "workers/worker-1": {"address": HERE, "loopback": HERE},
            "freeswitch": {"password": password, "event_socket_port": event_socket_port},
            "destinations/sales/dial": dial,
        }
        return load(write_site(tmp_path, changes), {})

    return build


def ask_switch(
    site: Callable[..., Settings], answers: dict[str, str], password: str = "ClueCon", greeting: str | None = None
) -> str:
    with Switch(answers, *([greeting] if greeting is not None else [])) as switch:
        settings = site(switch.server_address[1], password)
        try:
            return probes.switch(settings, settings.workers["worker-1"])
        finally:
            switch.shutdown()


def test_a_switch_with_the_streaming_module_is_ok(site):
    answers = {"module_exists mod_audio_fork": "true", "uuid_audio_fork": STREAMING}
    assert ask_switch(site, answers) == "mod_audio_fork, streaming build"


@pytest.mark.parametrize(
    ("answers", "password", "greeting", "expected"),
    [
        ({"module_exists mod_audio_fork": "false"}, "ClueCon", None, "mod_audio_fork is not loaded"),
        (
            {"module_exists mod_audio_fork": "true", "uuid_audio_fork": PLAIN},
            "ClueCon",
            None,
            "this build of mod_audio_fork cannot stream to the caller",
        ),
        ({}, "wrong", None, "refuses the password"),
        ({}, "ClueCon", "Content-Type: text/rude-rejection\nContent-Length: 0\n\n", "refuses this address"),
        ({}, "ClueCon", "220 mail.example ESMTP\n\n", "is no event socket"),
        ({}, "ClueCon", "\n", "the connection was closed"),
    ],
    ids=["no module", "plain build", "password", "ACL", "no event socket", "closed"],
)
def test_a_switch_that_cannot_serve_is_told(site, answers, password, greeting, expected):
    why, advice = failure(lambda: ask_switch(site, answers, password, greeting))
    assert expected in why
    assert advice


def test_a_switch_that_is_not_there_is_told(site):
    settings = site(1)
    why, advice = failure(lambda: probes.switch(settings, settings.workers["worker-1"]))
    assert (why, advice) == (f"event socket {HERE}:1: Connection refused", "start the switch")


@pytest.fixture
def sip_worker() -> Iterator[Callable[[int | None], Worker]]:
    """Starts a SIP server that answers OPTIONS with one status, None for never on the first two."""
    sockets = []

    def start(status: int | None) -> Worker:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind((HERE, 0))
        sockets.append(server)

        def answer() -> None:
            for number in range(100):
                try:
                    request, peer = server.recvfrom(65536)
                except OSError:
                    return
                assert request.startswith(b"OPTIONS sip:")
                if status is not None or number >= 2:
                    server.sendto(f"SIP/2.0 {status or 200} X\r\n\r\n".encode(), peer)

        threading.Thread(target=answer, daemon=True).start()
        return Worker(address=HERE, sip_port=server.getsockname()[1], loopback=HERE)

    yield start
    for server in sockets:
        server.close()


def test_a_worker_that_answers_options_is_ok_even_when_requests_are_lost(site, sip_worker):
    assert probes.sip(site(), sip_worker(200)) == "answers OPTIONS, takes calls"
    assert probes.sip(site(), sip_worker(None)) == "answers OPTIONS, takes calls"


def test_a_worker_that_takes_no_calls_is_told(site, sip_worker):
    assert failure(lambda: probes.sip(site(), sip_worker(503)))[0] == "answers 503: it takes no calls now"
    assert failure(lambda: probes.sip(site(), sip_worker(403)))[0] == "answers 403 to OPTIONS"
    nothing = Worker(address=HERE, sip_port=9, loopback=HERE)
    assert failure(lambda: probes.sip(site(), nothing))[0] == f"no answer from {HERE}:9/udp"


@pytest.fixture
def datagrams() -> Iterator[Callable[[Callable[[bytes], bytes | None]], RtpEngine]]:
    """Starts what answers datagrams as it is told to, where an rtpengine should be."""
    sockets = []

    def start(answer: Callable[[bytes], bytes | None]) -> RtpEngine:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind((HERE, 0))
        sockets.append(server)

        def serve_all() -> None:
            while True:
                try:
                    question, peer = server.recvfrom(65536)
                except OSError:
                    return
                if (said := answer(question)) is not None:
                    server.sendto(said, peer)

        threading.Thread(target=serve_all, daemon=True).start()
        return RtpEngine(control=f"{HERE}:{server.getsockname()[1]}", public=HERE, private=HERE)

    yield start
    for server in sockets:
        server.close()


def test_an_rtpengine_that_answers_is_ok_even_when_a_question_is_lost(datagrams):
    asked = []

    def answer(question: bytes) -> bytes | None:
        cookie, _, command = question.partition(b" ")
        assert command == b"d7:command4:pinge"
        asked.append(cookie)
        return cookie + b" d6:result4:ponge" if len(asked) > 1 else None

    engine = datagrams(answer)
    assert probes.rtpengine(engine) == f"{engine.control} answers"
    assert asked[0] == asked[1]


def test_an_rtpengine_that_is_none_or_not_there_is_told(datagrams):
    other = datagrams(lambda question: b"SIP/2.0 400 Bad Request")
    assert failure(lambda: probes.rtpengine(other))[0] == f"what listens at {other.control} is no rtpengine"
    nothing = RtpEngine(control=f"{HERE}:9", public=HERE, private=HERE)
    why, advice = failure(lambda: probes.rtpengine(nothing))
    assert (why, advice) == (
        f"no answer from {HERE}:9/udp",
        "start rtpengine with its rendered file; check the firewall",
    )
    with pytest.raises(Skipped, match=r"203\.0\.113\.9 is on another machine"):
        probes.rtpengine(RtpEngine(public="203.0.113.9", private="203.0.113.9"))


def test_what_stands_on_another_machine_is_skipped(site):
    elsewhere = Worker(address="203.0.113.9", loopback=HERE)
    for probe in (lambda: probes.switch(site(), elsewhere), lambda: probes.component(elsewhere, "esl_app", 8085)):
        with pytest.raises(Skipped, match="on another machine"):
            probe()


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        draining = self.path != "/healthz" or getattr(self.server, "draining", False)
        body = json.dumps({"status": "draining" if draining else "ok", "sessions": 3}).encode()
        self.send_response(503 if draining else 200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_the_health_of_a_process_is_told_in_its_words():
    worker = Worker(address=HERE, loopback=HERE)
    with http.server.ThreadingHTTPServer((HERE, 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        assert probes.component(worker, "media_fork", port) == f"{HERE}:{port} status ok, sessions 3"
        server.draining = True
        why, _ = failure(lambda: probes.component(worker, "media_fork", port))
        assert why == f"media_fork at {HERE}:{port} answers 503: status draining, sessions 3"
        server.shutdown()
    why, advice = failure(lambda: probes.component(worker, "media_fork", port))
    assert why == f"media_fork at {HERE}:{port}: Connection refused"
    assert advice == "start python -m media_fork on it"


def test_one_bad_finding_makes_the_exit_code_1_and_all_are_listed(tmp_path, site):
    site()
    result = CliRunner().invoke(app, ["check", "--config", str(tmp_path / "tandem.yaml")])
    assert result.exit_code == 1
    for what in (
        "model",
        "database",
        "spool",
        "destination sales",
        "edge",
        "worker-1 SIP",
        "worker-1 FreeSWITCH",
        "worker-1 esl_app",
    ):
        assert f" {what} " in result.stdout
    assert "start the switch" in result.stdout


@pytest.mark.parametrize(
    ("dial", "expected"),
    [
        ("+19005550199", "+19005550199 is never dialled: premium numbers are not allowed"),
        ("+442079460000", "+442079460000 is never dialled: international numbers are not allowed"),
        ("+1202555", "+1202555 is never dialled: that is not a number that can be called"),
        ("+12025550100", "+12025550100 is never dialled: our own numbers are not allowed"),
    ],
    ids=["premium", "international", "impossible", "own"],
)
def test_a_destination_that_the_policy_never_dials_is_told_by_name(site, dial, expected):
    assert probes.destination(site(), "sales") == "2001 over pbx"
    settings = site(dial=dial)
    why, advice = failure(lambda: probes.destination(settings, "sales"))
    assert why == expected
    assert advice


def test_every_finding_that_failed_says_what_to_do(site):
    findings = check_all(site())
    assert {finding.state for finding in findings} >= {State.OK, State.FAILED}
    assert all(finding.why for finding in findings)
    assert all(finding.advice for finding in findings if finding.state is State.FAILED)
