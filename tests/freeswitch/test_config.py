"""The rendered files on a real FreeSWITCH: it starts, hears the edge alone, and hands each call to the controller or says 503."""

import contextlib
import signal
import socket
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.switches import NoFreeSwitch, find_freeswitch
from tandem.render import render
from tandem.settings import Settings
from tests.edge.endpoints import Calling, Dialog, Endpoint, Message
from tests.edge.world import DID, free_network, load_site

PASSWORD = 'p<&">x'
READY_S = 40.0


class Worker:
    """A FreeSWITCH with the files of worker-1, the edge's address, and the event socket."""

    def __init__(self, settings: Settings, folder: Path, net: str) -> None:
        install = find_freeswitch()
        self.settings, self.net = settings, net
        self.config = folder / "site/freeswitch/worker-1"
        self.at = (settings.workers["worker-1"].address, settings.workers["worker-1"].sip_port)
        self.loopback = settings.workers["worker-1"].loopback
        self.log = folder / "log/freeswitch.log"
        render(settings, folder / "site", install.prefix)
        argv = [str(install.program), "-nonat", "-nf", "-nc", "-conf", str(self.config), "-mod", str(install.modules)]
        for option in ("log", "db", "run", "temp", "certs", "scripts", "recordings", "sounds", "storage", "cache"):
            (folder / option).mkdir(parents=True)
            argv += [f"-{option}", str(folder / option)]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.edge = Endpoint(f"{net}.1")
        self._until(lambda: self.api("module_exists mod_audio_fork") == "true", "FreeSWITCH to be ready")

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"FreeSWITCH ended with {self._process.returncode}"
            with contextlib.suppress(OSError):
                if condition():
                    return
            time.sleep(0.1)
        raise TimeoutError(f"waited for {what}")

    def api(self, command: str) -> str:
        """An ``api`` command on the event socket; its reply."""
        port = self.settings.freeswitch.event_socket_port
        with socket.create_connection((self.loopback, port), timeout=5) as connection:
            stream = connection.makefile("rwb")
            _block(stream)
            stream.write(f"auth {PASSWORD}\n\n".encode())
            stream.flush()
            if "+OK" not in _block(stream).get("Reply-Text", ""):
                raise ConnectionRefusedError("password not accepted")
            stream.write(f"api {command}\n\n".encode())
            stream.flush()
            return stream.read(int(_block(stream).get("Content-Length", "0"))).decode().strip()

    def call(self, **options: object) -> Calling:
        return self.edge.invite(DID, self.at, **options)  # type: ignore[arg-type]

    def close(self) -> None:
        self.edge.close()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)


def _block(stream: object) -> dict[str, str]:
    found: dict[str, str] = {}
    while line := stream.readline().decode().strip():  # type: ignore[attr-defined]
        name, _, value = line.partition(": ")
        found[name] = value
    return found


class Controller:
    """What esl_app is to FreeSWITCH: a listener on the outbound socket's port."""

    def __init__(self, worker: Worker) -> None:
        self._listener = socket.create_server((worker.loopback, worker.settings.esl_app.port))
        self._listener.settimeout(5)

    def accept(self) -> tuple[socket.socket, str]:
        """The next call's connection, and the channel's data."""
        connection, _ = self._listener.accept()
        connection.settimeout(5)
        connection.sendall(b"connect\n\n")
        data = b""
        while b"\n\n" not in data:
            data += connection.recv(65536)
        return connection, data.decode()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    try:
        find_freeswitch()
    except NoFreeSwitch as reason:
        pytest.skip(str(reason))
    folder, net = tmp_path_factory.mktemp("freeswitch"), free_network()
    settings = load_site(
        net, folder, lambda site: site.update(freeswitch={"password": PASSWORD}, esl_app={"adrift_seconds": 5})
    )
    worker = Worker(settings, folder / "switch", net)
    yield worker
    worker.close()


@pytest.fixture
def controller(worker: Worker) -> Iterator[Controller]:
    controller = Controller(worker)
    yield controller
    controller.close()


def refusal(calling: Calling) -> Message:
    """The final reply, with nothing before it but 100 Trying."""
    final = calling.final()
    assert {reply.status for reply in calling.replies(100)} <= {100, final.status}
    return final


def answered(controller: Controller, calling: Calling) -> tuple[socket.socket, Dialog]:
    connection, _ = controller.accept()
    connection.sendall(b"sendmsg\ncall-command: execute\nexecute-app-name: answer\n\n")
    final = calling.final()
    assert final.status == 200, final.start
    target = final["Contact"].partition("<")[2].partition(">")[0]
    dialog = Dialog(calling.phone, calling.edge, calling.call_id, final["From"], final["To"], target, [])
    dialog.cseq = calling.cseq
    dialog.send("ACK")
    return connection, dialog


def hang_up(connection: socket.socket) -> None:
    connection.sendall(b"sendmsg\ncall-command: hangup\n\n")
    connection.close()


@pytest.mark.parametrize("name", ["freeswitch", "modules", "event_socket", "sofia", "dialplan"])
def test_files_are_xml(tmp_path: Path, name: str):
    settings = load_site("127.99.99", tmp_path, lambda site: site.update(freeswitch={"password": PASSWORD}))
    render(settings, tmp_path / "site")
    tree = ET.parse(tmp_path / f"site/freeswitch/worker-1/{name}.xml")
    if name == "event_socket":
        assert [node.get("value") for node in tree.iter("param") if node.get("name") == "password"] == [PASSWORD]


def test_answers_the_edges_options(worker: Worker):
    assert worker.edge.options_of(worker.at) == 200


def test_profile_is_the_one_that_dial_strings_name(worker: Worker):
    assert f"sip:mod_sofia@{worker.at[0]}:{worker.at[1]}" in worker.api("sofia status profile tandem")


def test_call_from_anywhere_but_the_edge_is_refused(worker: Worker, controller: Controller):
    stranger = Endpoint(f"{worker.net}.99")
    try:
        assert stranger.invite(DID, worker.at).final().status == 403
    finally:
        stranger.close()


def test_nobody_gets_at_the_event_socket_with_another_password(worker: Worker):
    with socket.create_connection((worker.loopback, worker.settings.freeswitch.event_socket_port), timeout=5) as other:
        stream = other.makefile("rwb")
        _block(stream)
        stream.write(b"auth ClueCon\n\n")
        stream.flush()
        assert _block(stream)["Reply-Text"] == "-ERR invalid"


def test_call_goes_to_the_controller_unanswered_with_the_headers_of_the_seam(worker: Worker, controller: Controller):
    calling = worker.call(headers=[("X-Tandem-Call", "t-1"), ("X-Tandem-Agent", "reception")])
    connection, data = controller.accept()
    assert "variable_sip_h_X-Tandem-Call: t-1" in data
    assert "variable_sip_h_X-Tandem-Agent: reception" in data
    assert "Answer-State: ringing" in data
    assert "variable_sip_copy_custom_headers: false" in data
    assert [reply.status for reply in calling.replies(100)] == [100]
    connection.sendall(b"sendmsg\ncall-command: hangup\nhangup-cause: USER_BUSY\n\n")
    assert refusal(calling).status == 486
    connection.close()


def test_503_when_there_is_no_controller(worker: Worker):
    final = refusal(worker.call())
    assert (final.status, final.reason) == (503, "NORMAL_TEMPORARY_FAILURE")


def test_503_when_the_controller_is_lost_before_the_answer(worker: Worker, controller: Controller):
    calling = worker.call()
    connection, _ = controller.accept()
    connection.close()
    assert refusal(calling).status == 503


def test_an_answered_call_outlives_its_controller_for_a_time(worker: Worker, controller: Controller):
    connection, dialog = answered(controller, worker.call())
    connection.close()
    deadline = time.monotonic() + 10
    while "park" not in worker.api("show channels"):
        assert time.monotonic() < deadline, worker.api("show channels")
    # Beyond adrift_seconds, 5 here, nobody has come for it.
    bye = worker.edge.request("BYE", dialog.call_id, 15)
    assert "NORMAL_TEMPORARY_FAILURE" in bye["Reason"]
    worker.edge.reply(bye, 200)


def test_credentials_meant_for_others_are_not_asked_for_again(worker: Worker, controller: Controller):
    calling = worker.call(headers=[("Proxy-Authorization", 'Digest username="a", realm="b", response="c"')])
    connection, _ = answered(controller, calling)
    hang_up(connection)
    worker.edge.reply(worker.edge.request("BYE", calling.call_id), 200)


def test_refer_from_outside_is_refused(worker: Worker, controller: Controller):
    connection, dialog = answered(controller, worker.call())
    answer = dialog.ask("REFER", headers=[("Refer-To", f"<sip:+14155550100@{worker.net}.21>")])
    assert answer.status in (403, 405)
    hang_up(connection)
    worker.edge.reply(worker.edge.request("BYE", dialog.call_id), 200)


@pytest.mark.parametrize(("payload", "codec"), [("0", "PCMU/8000"), ("8", "PCMA/8000"), ("9", "G722/8000")])
def test_codecs(worker: Worker, controller: Controller, payload: str, codec: str):
    address = worker.edge.address
    sdp = (
        f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
        f"m=audio 40000 RTP/AVP {payload}\r\na=rtpmap:{payload} {codec}\r\n"
    )
    calling = worker.call(body=sdp)
    connection, _ = answered(controller, calling)
    media = calling.replies(200)[0].body.decode()
    assert f"a=rtpmap:{payload} {codec}" in media
    port = int(media.partition("m=audio ")[2].split()[0])
    ports = worker.settings.workers["worker-1"].rtp
    assert ports.first <= port <= ports.last
    hang_up(connection)
    worker.edge.reply(worker.edge.request("BYE", calling.call_id), 200)


def test_paused_worker_tells_the_edge_by_503(worker: Worker):
    worker.api("fsctl pause inbound")
    try:
        assert worker.edge.options_of(worker.at) == 503
        assert refusal(worker.call()).status == 503
    finally:
        worker.api("fsctl resume inbound")
    assert worker.edge.options_of(worker.at) == 200


def test_streaming_module_is_there(worker: Worker):
    assert "uuid_audio_fork" in worker.api("show api")
