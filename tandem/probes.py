"""The probes of ``tandem check``: each asks one thing, gives up in seconds, and says what to do about a bad answer.

A probe returns what it found in words, or raises :class:`Failed` or :class:`Skipped`. What listens on a worker's
loopback address can only be asked on that worker's machine.
"""

import ipaddress
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from tandem import database, dial_policy
from tandem.edge import PRIVATE_MEMORY, host_port
from tandem.realtime import Endpoint
from tandem.settings import Records, RtpEngine, Settings, TrunkKind, Worker

PATIENCE_S = 5.0
"""For one answer."""
DATAGRAM_S = 0.5
"""T1 of RFC 3261: what is asked by UDP is sent again after this."""
STREAMING_WORD = "bidirectionalaudio_stream_samplerate"
"""In the usage text of the build of mod_audio_fork that can also stream audio to the caller."""


class Failed(Exception):
    """A bad answer, and what to do about it."""

    def __init__(self, why: object, advice: str) -> None:
        super().__init__(why)
        self.advice = advice


class Skipped(Exception):
    """A question that cannot be asked from here."""


def model(settings: Endpoint) -> str:
    """The Realtime server takes the key and opens a session."""
    import websocket

    if not settings.headers and "api.openai.com" in settings.url:
        raise Failed("model.key is empty", "set OPENAI_API_KEY")
    header = [f"{name}: {value}" for name, value in settings.headers.items()]
    try:
        connection = websocket.create_connection(settings.session_url, timeout=PATIENCE_S, header=header)
        try:
            first = json.loads(connection.recv())
        finally:
            connection.close()
    except websocket.WebSocketBadStatusException as error:
        advice = "check model.key" if error.status_code in (401, 403) else "check model.url and model.name"
        raise Failed(f"{settings.url} answers HTTP {error.status_code}", advice) from error
    except (OSError, ValueError, websocket.WebSocketException) as error:
        raise Failed(f"{settings.url}: {error}", "check model.url, name resolution and the firewall") from error
    kind = first.get("type") if isinstance(first, dict) else None
    if kind != "session.created":
        said = (first.get("error") or {}).get("message") if kind == "error" else f"first event is {kind!r}"
        raise Failed(f"{settings.url}: {said}", "check model.name, and that the server speaks the GA Realtime protocol")
    return f"{settings.name} opens a session"


def records_database(settings: Records) -> str:
    """The database can be opened, and its tables are of this version or still to be made."""
    url = make_url(settings.url)
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        _require_writable(Path(str(url.database)).parent)
        return f"{shown} will be made"
    engine = database.connect(settings.url, "tandem-check").execution_options(**{database.READING: True})
    try:
        with engine.connect() as connection:
            revision = database.revision(connection)
    except SQLAlchemyError as error:
        raise Failed(f"{shown}: {database.cause(error)}", "start the database, or correct records.url") from error
    finally:
        engine.dispose()
    newest = database.newest_revision()
    if revision is None:
        return f"{shown}: empty, tables will be made"
    if revision > newest:
        raise Failed(
            f"{shown}: schema {revision} is newer than {newest}", "run a version of Tandem as new as the schema"
        )
    return f"{shown}: schema {revision}" + ("" if revision == newest else f", will become {newest}")


def spool(settings: Records) -> str:
    """Records can wait on disk while the database is away."""
    _require_writable(settings.spool)
    free_mb = shutil.disk_usage(_existing(settings.spool)).free >> 20
    if free_mb < settings.spool_mb:
        raise Failed(f"{free_mb} MB are free at {settings.spool}, spool_mb is {settings.spool_mb}", "make room")
    return f"{settings.spool}, {settings.spool_mb} MB at most"


def destination(settings: Settings, name: str) -> str:
    """The dial policy lets agents dial it, at some time and for some tenant."""
    dial = settings.destinations[name].dial
    decision = dial_policy.resolve_ever(settings, name, time.time())
    if isinstance(decision, dial_policy.Refused):
        raise Failed(
            f"{dial} is never dialled: {decision.detail}", "correct its dial, or policy where it forbids too much"
        )
    return f"{dial} over {decision.trunk}"


def kamailio_configuration(settings: Settings) -> str:
    """Kamailio itself takes the configuration that ``tandem render`` makes."""
    from tandem.render import RenderError, render

    kamailio = shutil.which("kamailio") or shutil.which("kamailio", path="/usr/sbin")
    with tempfile.TemporaryDirectory() as folder:
        try:
            render(settings, Path(folder))
        except (RenderError, OSError) as error:
            raise Failed(f"cannot be rendered: {error}", "correct the configuration") from error
        if kamailio is None:
            raise Skipped("no kamailio on this machine")
        result = subprocess.run(
            [kamailio, *PRIVATE_MEMORY, "-c", "-f", f"{folder}/kamailio/kamailio.cfg"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if "CRITICAL" in line or "ERROR" in line]
        raise Failed(
            (lines or result.stderr.splitlines() or ["no word why"])[0], "see kamailio -c on the rendered file"
        )
    return "kamailio -c takes it"


def edge(settings: Settings) -> str:
    """Kamailio runs here and answers on its loopback listener."""
    address = settings.edge.listen[0].address
    if not is_here(address):
        raise Skipped(f"{address} is on another machine; run this there")
    return _health(settings.edge.rpc, "kamailio", "start kamailio with the rendered kamailio.cfg")


def rtpengine(engine: RtpEngine) -> str:
    """An rtpengine answers where Kamailio asks it: ``ping`` of the ng protocol, one datagram each way, a cookie before it."""
    host, _, port = engine.control.rpartition(":")
    if ipaddress.ip_address(host).is_loopback and not is_here(engine.private):
        raise Skipped(f"{engine.private} is on another machine; run this there")
    cookie = secrets.token_hex(8).encode()
    answer = _asked((host, int(port)), cookie + b" d7:command4:pinge")
    if answer is None:
        raise Failed(
            f"no answer from {engine.control}/udp", "start rtpengine with its rendered file; check the firewall"
        )
    if answer != cookie + b" d6:result4:ponge":
        raise Failed(f"what listens at {engine.control} is no rtpengine", "check rtpengine.NAME.control")
    return f"{engine.control} answers"


def _asked(target: tuple[str, int], question: bytes) -> bytes | None:
    """The answer to a datagram; None where none comes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(DATAGRAM_S)
        connection.connect(target)
        for _ in range(int(PATIENCE_S / DATAGRAM_S)):
            try:
                connection.send(question)
                return connection.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                return None
    return None


def callback_numbers(settings: Settings) -> str:
    """Whatever phone dials an emergency number, the PSAP is shown a number that it can call back."""
    phones = [name for name, trunk in settings.trunks.items() if trunk.kind is TrunkKind.PBX]
    if not phones:
        raise Skipped("no trunk is a pbx: emergency calls come from nowhere")
    shared = settings.emergency.callback_number
    shown = {}
    for name in dict.fromkeys(settings.emergency.carriers):
        approved = settings.trunks[name].caller_ids
        shown[name] = shared if shared and (not approved or shared in approved) else next(iter(approved), None)
    missing = [name for name, number in shown.items() if number is None]
    if missing:
        raise Failed(
            f"{', '.join(missing)} is shown extensions as they are", "set emergency.callback_number, or its caller_ids"
        )
    return ", ".join(f"{name} is shown {number} of phones without their own" for name, number in shown.items())


def notifier(settings: Settings) -> str:
    """The notifier runs, reaches the edge, and keeps its journal on disk."""
    notify = settings.emergency.notify
    if not notify.recipients:
        raise Skipped("nobody is told of emergency calls (emergency.notify.recipients)")
    if not is_here(settings.edge.listen[0].address):
        raise Skipped("the notifier is on the edge's machine; run this there")
    return _health(notify.listen, "notify", "start python -m tandem.notify")


def sip(settings: Settings, worker: Worker) -> str:
    """The worker answers OPTIONS as the edge would send it, with 200: it takes calls."""
    ours, target = settings.edge.listen[0].address, (worker.address, worker.sip_port)
    if not is_here(ours):
        raise Skipped("workers take SIP from the edge alone; run this on the edge's machine")
    status = _options(ours, target)
    if status is None:
        raise Failed(f"no answer from {worker.address}:{worker.sip_port}/udp", "start the switch; check the firewall")
    if status == 503:
        raise Failed(
            "answers 503: it takes no calls now", "start its esl_app and media_fork, or wait for its drain to end"
        )
    if status != 200:
        raise Failed(
            f"answers {status} to OPTIONS", "render the worker's files again, and restart the switch with them"
        )
    return "answers OPTIONS, takes calls"


def switch(settings: Settings, worker: Worker) -> str:
    """The event socket lets us in, and the switch has mod_audio_fork in its streaming build."""
    _require_here(worker)
    place = (worker.loopback, settings.freeswitch.event_socket_port)
    shown = f"event socket {place[0]}:{place[1]}"
    try:
        with _EventSocket(place) as events:
            if not events.authenticate(settings.freeswitch.password.get_secret_value()):
                raise Failed(f"{shown} refuses the password", "make freeswitch.password the switch's own")
            if events.api("module_exists mod_audio_fork") != "true":
                raise Failed(
                    "mod_audio_fork is not loaded", "install its streaming build and load it in modules.conf.xml"
                )
            if STREAMING_WORD not in events.api("uuid_audio_fork").lower():
                raise Failed(
                    "this build of mod_audio_fork cannot stream to the caller",
                    "install a bidirectional build (jambonz/freeswitch-modules)",
                )
    except OSError as error:
        raise Failed(f"{shown}: {error.strerror or error}", "start the switch") from error
    return "mod_audio_fork, streaming build"


def component(worker: Worker, name: str, port: int) -> str:
    """The process runs and takes calls."""
    _require_here(worker)
    return _health(host_port(worker.loopback, port), name, f"start python -m {name} on it")


def _health(place: str, component: str, advice: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{place}/healthz", timeout=PATIENCE_S) as reply:
            body = reply.read(65536)
    except urllib.error.HTTPError as error:
        raise Failed(f"{component} at {place} answers {error.code}: {_words(error.read(65536))}", advice) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        why = getattr(reason, "strerror", None) or reason
        raise Failed(f"{component} at {place}: {why}", advice) from error
    return f"{place} {_words(body)}".rstrip()


def _words(body: bytes) -> str:
    """``{"status": "ok", "sessions": 0}`` → ``status ok, sessions 0``; anything else as it is, on one line."""
    try:
        said = json.loads(body)
    except ValueError:
        return " ".join(body.decode(errors="replace").split())[:200]
    return ", ".join(f"{key} {value}" for key, value in said.items()) if isinstance(said, dict) else str(said)


class _EventSocket:
    """FreeSWITCH's event socket, as far as a probe needs it: one question, one answer, with a deadline on each."""

    def __init__(self, place: tuple[str, int]) -> None:
        self._connection = socket.create_connection(place, PATIENCE_S)
        self._file = self._connection.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._connection.close()

    def authenticate(self, password: str) -> bool:
        kind, said = self._read()
        if kind == "text/rude-rejection":
            raise Failed("the event socket refuses this address", "let loopback in by its ACL")
        if kind != "auth/request":
            raise Failed(f"what listens there is no event socket (it says {said or kind!r})", "check the port")
        return self._ask(f"auth {password}").startswith("+OK")

    def api(self, command: str) -> str:
        return self._ask(f"api {command}")

    def _ask(self, command: str) -> str:
        self._connection.sendall(f"{command}\n\n".encode())
        return self._read()[1]

    def _read(self) -> tuple[str, str]:
        """Content-Type, and the reply's text."""
        headers: dict[str, str] = {}
        while line := self._file.readline(65536).decode(errors="replace").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if not headers:
            raise ConnectionResetError("the connection was closed")
        length = headers.get("content-length", "0")
        body = self._file.read(min(int(length), 1 << 20)) if length.isdecimal() else b""
        return headers.get("content-type", ""), headers.get("reply-text") or body.decode(errors="replace").strip()


def _options(ours: str, target: tuple[str, int]) -> int | None:
    """Status of the answer to an OPTIONS from one of our addresses; None where none comes."""
    family = socket.AF_INET6 if ":" in ours else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as connection:
        connection.bind((ours, 0))
        connection.settimeout(DATAGRAM_S)
        connection.connect(target)
        here, there = host_port(ours, connection.getsockname()[1]), host_port(*target)
        request = (
            f"OPTIONS sip:{there} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {here};rport;branch=z9hG4bK{secrets.token_hex(8)}\r\n"
            f"Max-Forwards: 70\r\n"
            f"From: <sip:check@{here}>;tag={secrets.token_hex(4)}\r\n"
            f"To: <sip:{there}>\r\n"
            f"Call-ID: {secrets.token_hex(8)}\r\n"
            f"CSeq: 1 OPTIONS\r\n"
            f"Content-Length: 0\r\n\r\n"
        )
        for _ in range(int(PATIENCE_S / DATAGRAM_S)):
            try:
                connection.send(request.encode())
                status = connection.recv(65536).split(b" ", 2)[1:2]
            except TimeoutError:
                continue
            except OSError:
                return None
            if status and status[0].isdigit():
                return int(status[0])
    return None


def is_here(address: str) -> bool:
    """Whether this machine has the address."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _require_here(worker: Worker) -> None:
    if not is_here(worker.address):
        raise Skipped(f"{worker.address} is on another machine; run this there")


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _require_writable(folder: Path) -> None:
    existing = _existing(folder)
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise Failed(f"{folder} cannot be written", f"make {existing} a folder this user may write")
