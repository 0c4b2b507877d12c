"""The configuration: ``config/tandem.yaml`` and ``config/agents/*.yaml``, validated as one, all errors at once.

``load(path)`` gives :class:`Settings` or raises :class:`ConfigurationError`, whose problems each name file, line, what
is wrong and what was expected. Durations are milliseconds or seconds as the field's name says; numbers are E.164.
"""

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from sqlalchemy import make_url

from tandem import crosscheck, presets
from tandem.destinations import Destination, RingGroup, TransferMethod
from tandem.dial_rules import Policy
from tandem.fields import (
    E164,
    Address,
    ApiToken,
    DatabaseUrl,
    Extension,
    Host,
    LoopbackPort,
    Name,
    Network,
    Password,
    Port,
    Prefix,
    PrivatePort,
    Secret,
    ShortCode,
    SipUri,
    Text,
    matching,
)
from tandem.keying import Collection
from tandem.placing import Dialler, OnCall, Outbound
from tandem.realtime import RealtimeModel
from tandem.recipients import Notify, Section
from tandem.recording import Recording, Recordings
from tandem.shipped import shipped
from tandem.voicemail import Voicemail
from tandem.webhooks import Context, Transfers
from tandem.yamlfile import Document, Location, Problem
from tandem.yamlfile import load as load_yaml

VOICEMAIL, REGRET = crosscheck.VOICEMAIL, crosscheck.REGRET


class ConfigurationError(ValueError):
    """The configuration cannot be used. ``problems`` has every one found, in file order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Model(BaseModel):
    model_config = Section.model_config


class Transport(StrEnum):
    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


class Socket(Model):
    """One listening socket of the edge."""

    transport: Transport = Transport.UDP
    address: Address
    port: Port = 5060
    """Default: of TLS 5061."""
    advertise: Address | None = None
    """The public address, where the edge stands behind NAT."""

    @model_validator(mode="before")
    @classmethod
    def _sips(cls, data: Any) -> Any:
        is_tls = isinstance(data, dict) and data.get("transport") == Transport.TLS
        return {"port": 5061} | data if is_tls else data


class Tls(Model):
    """The edge's own certificate, shown to callers and to those it calls, and whose certificates it trusts."""

    certificate: Path
    """PEM: the certificate, then those between it and its authority."""
    key: Path
    """PEM, not encrypted."""
    ca: Path = Path("/etc/ssl/certs/ca-certificates.crt")
    """PEM: the authorities that peers' certificates must come from."""


class Cluster(Model):
    """Edges that share their addresses and what they know of calls (Kamailio's DMQ)."""

    address: PrivatePort
    """ADDRESS:PORT of this edge's own, for the others; it has no authentication, so private."""
    peers: Annotated[list[PrivatePort], Field(min_length=1, max_length=4)]
    """The others' ADDRESS:PORT."""


class Hep(Model):
    """A copy of all SIP of calls, for Homer and the like (HEPv3 over UDP)."""

    collector: PrivatePort
    """ADDRESS:PORT of the collector; what is sent is not encrypted, so private."""
    capture_id: Annotated[int, Field(ge=1, le=65535)] = 2001
    """By which the collector knows this edge."""


class Edge(Model):
    """Kamailio. Timers are those of one branch (RFC 3261 section 16.7)."""

    listen: Annotated[list[Socket], Field(min_length=1)]
    domain: Host = "tandem.invalid"
    """Host of the edge's own SIP addresses, where a peer wants a name."""
    children: Annotated[int, Field(ge=1, le=64)] = 4
    shared_memory_mb: Annotated[int, Field(ge=64, le=65536)] = crosscheck.SHARED_MEMORY_MB
    silent_worker_ms: Annotated[int, Field(ge=500, le=5000)] = 750
    """No reply at all from a worker in this time: the next one is tried."""
    provisional_only_ms: Annotated[int, Field(ge=500, le=30000)] = 900
    """100 Trying and then nothing: the next worker is tried. A worker's esl_app rings as soon as it has the call."""
    ringing_ms: Annotated[int, Field(ge=10000, le=300000)] = 120000
    probe_seconds: Annotated[int, Field(ge=1, le=60)] = 2
    rpc: LoopbackPort = "127.0.0.1:5067"
    """ADDRESS:PORT of JSON-RPC and metrics; loopback only."""
    run_directory: Path = Path("/run/tandem/kamailio")
    tls: Tls | None = None
    """Needed where anything listens on TLS or is sent over it."""
    cluster: Cluster | None = None
    """Default: the only edge."""
    hep: Hep | None = None
    """Default: no copy. Emergency calls are never copied: their bodies say where people are."""


class TrunkKind(StrEnum):
    TWILIO = "twilio"
    BANDWIDTH = "bandwidth"
    GENERIC = "generic"
    PBX = "pbx"


class Media(StrEnum):
    """What becomes of the RTP of a trunk's calls."""

    UNTOUCHED = "untouched"
    """SDP passes byte for byte; RTP goes straight between the two ends."""
    ANCHORED = "anchored"
    """rtpengine stands between: this trunk sees its public side, whoever is at the other end its private side."""


class Credentials(Model):
    """A name and a password for SIP digest authentication (RFC 8760)."""

    username: Annotated[str, matching(r"[A-Za-z0-9._~+-]{1,64}", "1 to 64 letters, digits, . _ ~ + and -")]
    password: Password


class Trunk(Model):
    """A peer that sends calls here or takes calls from here: known by source address, by certificate, or by digest."""

    kind: TrunkKind
    regions: list[str] = []
    """Twilio's locations (us1, ie1, ...) whose addresses ``sources`` are when not given. Default: all."""
    sources: Annotated[list[Network], Field(min_length=1)] = []
    """Addresses that it signals from. Default: none; of kind twilio those that Twilio publishes."""
    certificate: Host | None = None
    """Name in its TLS client certificate, by which it is known from any address."""
    challenge: Credentials | None = None
    """What it must prove by digest to place a call (407). With neither sources nor certificate it is known by that alone."""
    credentials: Credentials | None = None
    """What we answer with when it challenges us (401, 407)."""
    gateways: list[SipUri] = []
    """Where calls to this trunk are sent, in order of preference. A name stands for what DNS (SRV, then A and AAAA) has."""
    keepalive_seconds: Annotated[int | None, Field(ge=0, le=3600)] = None
    """Between two OPTIONS to each gateway; 0: none. Default: as the kind allows."""
    calls_per_second_out: Annotated[int | None, Field(ge=1, le=1000)] = None
    """At most so many new calls to it; emergency calls apart. Default: what the kind's carrier takes, if it says so."""
    calls_per_second_in: Annotated[int | None, Field(ge=1, le=10000)] = None
    """At most so many new calls from it; emergency calls apart. Default: its share of what shared_memory_mb bears."""
    domain: Host | None = None
    """Host of the Request-URI toward this trunk (Twilio: the termination domain). Default: the gateway's own."""
    transfer: TransferMethod = TransferMethod.BRIDGE
    caller_ids: list[E164] = []
    """Numbers that may be presented to this trunk; another is replaced by the first. Empty: the caller's own is passed on."""
    context: Context = Context.NONE
    """What it is told of callers who are transferred to it."""
    tenant: Name = "default"
    media: Media = Media.UNTOUCHED
    """``anchored``: without an rtpengine its calls are refused with 503, emergency calls go out as they came."""
    srtp: bool = False
    """It wants SRTP with its keys in the SDP (SDES, RFC 4568). Anchored calls have plain RTP on the other side."""

    @model_validator(mode="before")
    @classmethod
    def _published(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        regions = data.get("regions") or []
        if data.get("kind") != TrunkKind.TWILIO:
            if regions:
                raise ValueError("regions are Twilio's; expected sources")
        elif "sources" not in data and isinstance(regions, list):
            return data | {"sources": presets.twilio_sources(map(str, regions))}
        elif regions:
            raise ValueError("has both regions and sources; expected one of them")
        return data

    @model_validator(mode="after")
    def _known(self) -> "Trunk":
        if not self.sources and self.certificate is None and self.challenge is None:
            raise ValueError("cannot be known; expected sources, certificate or challenge")
        least = self.preset.least_keepalive_seconds
        if self.keepalive_seconds and self.keepalive_seconds < least:
            raise ValueError(
                f"keepalive_seconds is {self.keepalive_seconds}, for which a {self.kind.value} trunk is banned; expected 0 or "
                f"at least {least}"
            )
        return self

    @property
    def preset(self) -> presets.Preset:
        return presets.PRESETS[self.kind]


class Tenant(Model):
    """Whose trunks and calls they are."""

    max_calls: Annotated[int, Field(ge=1, le=100000)]
    """At one time, of all trunks of the tenant; emergency calls apart."""


def _listed(value: Any) -> Any:
    """One name is a list of one, and none of none."""
    return [] if value is None else value if isinstance(value, list) else [value]


class Route(Model):
    """What a dialled number leads to: an agent, a trunk that is simply connected, or a destination."""

    agent: Name | None = None
    trunk: Name | None = None
    destination: Name | None = None
    fallback: Annotated[list[Name], BeforeValidator(_listed), Field(max_length=8)] = []
    """Where callers go when the agent cannot be had, in order: destinations, ``voicemail``, ``regret``."""

    @model_validator(mode="after")
    def _one(self) -> "Route":
        if sum(target is not None for target in (self.agent, self.trunk, self.destination)) != 1:
            raise ValueError("needs exactly one of agent, trunk, destination")
        if self.agent is None and self.fallback:
            raise ValueError("fallback belongs to a number with an agent")
        return self


class Emergency(Model):
    """Numbers that go from the edge straight to the carriers, in order."""

    numbers: Annotated[list[ShortCode], Field(min_length=1)] = ["911", "933"]
    tests: list[ShortCode] = ["933"]
    """Those of ``numbers`` that are a carrier's test service: nobody comes, and nobody calls back."""
    carriers: list[Name] = []
    callback_number: E164 | None = None
    """What a PSAP is shown of phones without a number of their own. Default: the first of the carrier's caller_ids."""
    callback_numbers: dict[Name, dict[Extension, E164]] = {}
    """The same by PBX, and there by the first digits of the extension; the longest counts (an ELIN for each floor)."""
    callback_seconds: Annotated[int, Field(ge=1, le=86400)] = 3600
    """For so long after an emergency call, a call to the number that it presented rings the phone that dialled."""
    desk: Name | None = None
    """Destination of a PSAP's call for which no phone is known. Default: where the number leads."""
    notify: Notify = Notify()


class Ports(Model):
    """UDP ports for RTP; two a call leg."""

    first: Port = crosscheck.WORKER_PORTS[0]
    last: Port = crosscheck.WORKER_PORTS[1]

    @model_validator(mode="after")
    def _order(self) -> "Ports":
        if self.last - self.first < 20:
            raise ValueError("needs a range of at least 20 ports, first before last")
        return self


class Worker(Model):
    """A cell: one FreeSWITCH with its esl_app and media_fork on the same host."""

    address: Address
    """Where the edge reaches FreeSWITCH (SIP and RTP)."""
    sip_port: Port = 5080
    transport: Literal[Transport.UDP, Transport.TCP] = Transport.UDP
    """Of the edge's SIP to it. TCP finds out at once that nobody listens, and needs a TCP socket of the edge's."""
    loopback: Address = "127.0.0.1"
    """Address on which this cell's own processes talk. Cells on one machine take different ones of 127.0.0.0/8."""
    max_calls: Annotated[int, Field(ge=1, le=5000)] = 150
    weight: Annotated[int, Field(ge=1, le=1000)] = 100
    """Share of the calls: one of weight 200 carries twice as many as one of 100."""
    rtp: Ports = Ports()

    @model_validator(mode="after")
    def _private(self) -> "Worker":
        if not ipaddress.ip_address(self.loopback).is_loopback:
            raise ValueError(f"loopback must be in 127.0.0.0/8 or ::1, not {self.loopback}")
        return self


class MediaPorts(Ports):
    """UDP ports for RTP of an rtpengine, on either side; two a call."""

    first: Port = crosscheck.MEDIA_PORTS[0]
    last: Port = crosscheck.MEDIA_PORTS[1]


class RtpEngine(Model):
    """One rtpengine of the pool that anchors media."""

    control: PrivatePort = crosscheck.CONTROL
    """Where Kamailio tells it of calls (ng protocol over UDP); it has no authentication, so loopback or private."""
    public: Address
    """Where the anchored trunks send their RTP."""
    advertise: Address | None = None
    """What SDP names instead of ``public``, where the machine stands behind NAT."""
    private: Address
    """Where workers, the PBX and other trunks send theirs."""
    ports: MediaPorts = MediaPorts()
    metrics: LoopbackPort = crosscheck.MEDIA_METRICS
    """ADDRESS:PORT of its metrics; loopback only."""
    silence_seconds: Annotated[int, Field(ge=20, le=3600)] = 60
    """No RTP from either end for this long, and the call is forgotten; so one whose BYE was lost is."""


class FreeSwitch(Model):
    event_socket_port: Port = 8021
    password: Password
    """Of the event socket."""
    prompts: Path = shipped("freeswitch/prompts")
    """Folder of the recorded prompts, as FreeSWITCH sees it."""
    voicemail: Path = Path("voicemail")
    """Folder in which FreeSWITCH puts callers' messages, one WAV a call. esl_app makes it where both have one file system."""


class EslApp(Model):
    port: Port = 8084
    metrics_port: Port = 8085
    api_port: Port = 8086
    api_token: ApiToken | None = None
    """What a client of the API must present. None: there is no API."""
    answer_within_ms: Annotated[int, Field(ge=500, le=20000)] = 4000
    """A session must be reserved within this, else the call is refused before it was answered."""
    fork_within_ms: Annotated[int, Field(ge=500, le=20000)] = 3000
    voicemail_seconds: Annotated[int, Field(ge=5, le=600)] = 120
    drain_seconds: Annotated[int, Field(ge=0, le=86400)] = 3600
    adrift_seconds: Annotated[int, Field(ge=5, le=3600)] = 120
    """How long a call whose esl_app is gone goes on with its agent, waiting for the next one."""


class MediaFork(Model):
    http_port: Port = 8090
    fork_port: Port = 8091
    max_sessions: Annotated[int, Field(ge=1, le=10000)] = 1000
    lead_ms: Annotated[int, Field(ge=120, le=1000)] = 200
    """How far ahead of the caller's ear playout may run."""
    first_frame_ms: Annotated[int, Field(ge=500, le=30000)] = 5000
    """A connection that sends nothing for this long after its handshake is dropped."""
    token_ms: Annotated[int, Field(ge=1000, le=60000)] = 10000
    heard_within_ms: Annotated[int, Field(ge=1000, le=60000)] = 15000
    """A transfer or hang-up waits at most this long for what was said to be heard."""
    tool_failures: Annotated[int, Field(ge=1, le=100)] = 3
    """Requests in a row that a tool's server fails before its tools are withdrawn."""
    tool_rest_seconds: Annotated[int, Field(ge=1, le=3600)] = 15
    """Then it is left alone for this long."""
    drain_seconds: Annotated[int, Field(ge=0, le=86400)] = 3600


class Records(Model):
    url: Annotated[DatabaseUrl, Field(repr=False)] = "sqlite:///tandem.db"
    """SQLAlchemy URL: sqlite:////var/lib/tandem/tandem.db or postgresql+psycopg://user:password@host/tandem."""
    spool: Path = Path("spool")
    """Where records wait while the database is away."""
    spool_mb: Annotated[int, Field(ge=1, le=100000)] = 256


def _arguments(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type") != "object":
        raise ValueError("a model gives arguments by name; expected a JSON Schema with type: object")
    return schema


class HttpTool(Model):
    """A tool the model may call, carried out as one HTTP request whose JSON (or text) reply is the result."""

    name: Annotated[str, matching(r"[a-zA-Z0-9_-]{1,64}", "1 to 64 letters, digits, - and _")]
    description: Text
    url: Annotated[str, matching(r"https?://\S+", "http:// or https:// and a host")]
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: dict[str, Secret] = {}
    parameters: Annotated[dict[str, Any], AfterValidator(_arguments)] = {"type": "object", "properties": {}}
    """JSON Schema of the arguments."""
    timeout_ms: Annotated[int, Field(ge=100, le=60000)] = 5000


class ServerVad(Model):
    type: Literal["server_vad"] = "server_vad"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    prefix_padding_ms: Annotated[int, Field(ge=0, le=5000)] = 300
    silence_duration_ms: Annotated[int, Field(ge=50, le=10000)] = 500


class SemanticVad(Model):
    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"


class Agent(Model):
    """One agent: ``config/agents/NAME.yaml``."""

    instructions: Text
    safe_instructions: Text | None = None
    """In their place while a server of its tools is down. Default: its instructions, and what is out of order."""
    voice: Text = "marin"
    greeting: Text
    """What the agent opens with, in words; the model says it in its voice."""
    briefing: Annotated[str, matching(r"(?s).*\{summary\}.*", "text with {summary} in it")] = (
        "You have a call. {summary} To take it, say yes or press one. To decline, say no or press two."
    )
    """What the agent opens a warm transfer with, to the person who is to take the call."""
    language: Annotated[str, matching(r"[a-z]{2}", "an ISO 639-1 code of two small letters, e.g. en")] = "en"
    destinations: list[Name] = []
    free_numbers: list[Name] = []
    """Rules of policy.rules: a number that one of them allows, the agent may name itself."""
    tools: list[HttpTool] = []
    turn_detection: Annotated[ServerVad | SemanticVad, Field(discriminator="type")] = ServerVad()
    noise_reduction: Literal["near_field", "far_field"] | None = None
    transcription: str | None = "gpt-transcribe"
    """Model that writes down what the caller says; null: no transcript of the caller."""
    recording: Recording = Recording()
    collect: list[Collection] = []
    """What it may have callers key in."""
    sends_digits: bool = False
    holds: bool = False


class Settings(Model):
    """Everything an operator configures, cross-checked."""

    edge: Edge
    trunks: dict[Name, Trunk]
    tenants: dict[Name, Tenant] = {}
    """Those of the trunks' tenants that have limits."""
    numbers: dict[E164, Route] = {}
    routes: dict[Prefix, Annotated[list[Name], Field(min_length=1)]] = {}
    """The PBX's calls to the outside world: trunks in order of preference (least cost first) by the longest E.164 prefix, "+"
    being every number. Default: all carriers with gateways, in the order of the file."""
    destinations: dict[Name, Destination] = {}
    ring_groups: dict[Name, RingGroup] = {}
    """Names of several destinations that are rung as one; used wherever a destination's name is, but not by the edge alone."""
    policy: Policy = Policy()
    outbound: Outbound = Outbound()
    dialler: Dialler = Dialler()
    on_call: dict[Name, OnCall] = {}
    emergency: Emergency = Emergency()
    workers: Annotated[dict[Name, Worker], Field(min_length=1, max_length=100)]
    rtpengine: dict[Name, RtpEngine] = {}
    """The pool for trunks with ``media: anchored``; calls are spread over it."""
    freeswitch: FreeSwitch
    voicemail: Voicemail = Voicemail()
    esl_app: EslApp = EslApp()
    media_fork: MediaFork = MediaFork()
    model: RealtimeModel = RealtimeModel()
    records: Records = Records()
    recordings: Recordings = Recordings()
    transfers: Transfers = Transfers()
    agents: dict[Name, Agent] = {}
    """From ``agents/*.yaml`` beside the file; not a key of it."""

    @property
    def places(self) -> dict[str, Destination | RingGroup]:
        """All that agents may be given to transfer to, by name."""
        return {**self.destinations, **self.ring_groups}

    def place(self, name: str | None) -> Destination | None:
        """What is dialled where only one can be: of a ring group its first member. None where there is no such name."""
        group = self.ring_groups.get(name or "")
        return self.destinations.get(group.members[0] if group else name or "")


_M = TypeVar("_M", bound=Model)
_NAME: TypeAdapter[str] = TypeAdapter(Name)
_PORTS: dict[Location, int] = {
    ("freeswitch", "event_socket_port"): FreeSwitch.model_fields["event_socket_port"].default,
    ("esl_app", "port"): EslApp.model_fields["port"].default,
    ("esl_app", "metrics_port"): EslApp.model_fields["metrics_port"].default,
    ("esl_app", "api_port"): EslApp.model_fields["api_port"].default,
    ("media_fork", "http_port"): MediaFork.model_fields["http_port"].default,
    ("media_fork", "fork_port"): MediaFork.model_fields["fork_port"].default,
}
"""Where the processes of one worker listen on its loopback address."""


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read ``path`` and the ``agents/*.yaml`` beside it.

    Relative paths in ``records``, ``recordings``, ``transfers``, ``edge.run_directory``, ``emergency.notify``, ``freeswitch`` and secret
    files count from the file's folder.
    Raises ConfigurationError with every problem of every file; of a file that is no YAML, only that.
    """
    document = load_yaml(path, environment)
    folder = path.parent.resolve()
    agents = {file.stem: load_yaml(file, environment) for file in sorted((path.parent / "agents").glob("*.yaml"))}
    problems = [problem for source in (document, *agents.values()) for problem in source.problems]
    valid_agents: dict[str, Agent] = {}
    for name, agent in agents.items():
        try:
            _NAME.validate_python(name)
        except ValidationError as error:
            problems.append(Problem(agent.file, 0, "", f"file name: {_message(error.errors()[0])}"))
        if checked := _checked(agent, Agent, agent.data, folder, problems):
            valid_agents[name] = checked
    settings: Settings | None = None
    if isinstance(document.data, dict) and document.readable:
        sections = {key: value for key, value in document.data.items() if key != "agents"}
        if len(sections) < len(document.data):
            problems.append(document.problem(("agents",), "is not a key; agents are files, agents/NAME.yaml"))
        problems += crosscheck.cross_checks(document, agents, _PORTS)
        settings = _checked(document, Settings, sections, folder, problems)
    elif document.readable:
        problems.append(document.problem((), "expected a mapping of sections"))
    if problems or settings is None:
        raise ConfigurationError(problems)
    edge, records, freeswitch = settings.edge, settings.records, settings.freeswitch
    tls = edge.tls and edge.tls.model_copy(
        update={name: (folder / path).resolve() for name, path in edge.tls if isinstance(path, Path)}
    )
    notify = settings.emergency.notify
    return settings.model_copy(
        update={
            "agents": valid_agents,
            "edge": edge.model_copy(update={"run_directory": (folder / edge.run_directory).resolve(), "tls": tls}),
            "freeswitch": freeswitch.model_copy(
                update={
                    "prompts": (folder / freeswitch.prompts).resolve(),
                    "voicemail": (folder / freeswitch.voicemail).resolve(),
                }
            ),
            "recordings": settings.recordings.model_copy(
                update={"folder": (folder / settings.recordings.folder).resolve()}
            ),
            "dialler": settings.dialler.model_copy(update={"jobs": _anchored(settings.dialler.jobs, folder)}),
            "outbound": settings.outbound.model_copy(
                update={"messages": (folder / settings.outbound.messages).resolve()}
            ),
            "voicemail": settings.voicemail.model_copy(
                update={"journal": (folder / settings.voicemail.journal).resolve()}
            ),
            "emergency": settings.emergency.model_copy(
                update={"notify": notify.model_copy(update={"journal": (folder / notify.journal).resolve()})}
            ),
            "transfers": settings.transfers.model_copy(
                update={"journal": (folder / settings.transfers.journal).resolve()}
            ),
            "records": records.model_copy(
                update={"url": _anchored(records.url, folder), "spool": (folder / records.spool).resolve()}
            ),
        }
    )


def _anchored(text: str, folder: Path) -> str:
    url = make_url(text)
    if url.get_backend_name() == "sqlite":
        url = url.set(database=str((folder / str(url.database)).resolve()))
    return url.render_as_string(hide_password=False)


def _checked(document: Document, model: type[_M], data: Any, folder: Path, problems: list[Problem]) -> _M | None:
    """``data`` as a ``model``, or None with what is wrong added to ``problems``."""
    if not document.readable:
        return None
    try:
        return model.model_validate(data, context={"folder": folder})
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            where = _in_file(document, detail["loc"])
            if detail["type"] == "extra_forbidden":
                known = ", ".join(_known_keys(model, detail["loc"]))
                problems.append(document.problem(where, f"is not a known key; expected one of: {known}"))
            elif where not in document.unset:
                problems.append(document.problem(where, _message(detail)))
    return None


_MESSAGES = {
    "missing": "is missing",
    "dict_type": "expected a mapping of keys",
    "model_type": "expected a mapping of keys",
    "model_attributes_type": "expected a mapping of keys",
    "list_type": "expected a list",
    "string_type": "expected text (in quotes, where it looks like something else)",
    "string_too_short": "is empty; expected text",
}


def _message(detail: ErrorDetails) -> str:
    said = detail["msg"].removeprefix("Value error, ")
    return _MESSAGES.get(detail["type"], re.sub(r"^Input should be", "expected", said))


def _in_file(document: Document, location: Location) -> Location:
    """pydantic's location without the steps that are not in the file (``[key]``, a union's member names)."""
    where: Location = ()
    for part in location:
        if (*where, part) in document.lines or (part == location[-1] and part != "[key]"):
            where = (*where, part)
    return where


def _known_keys(model: Any, location: Location) -> list[str]:
    """Keys of the section that holds ``location``, which is in pydantic's terms: of a union it names the member."""
    for part in location[:-1]:
        model = _section(model)
        if get_origin(model) in (dict, list):
            model = get_args(model)[-1]
        elif get_origin(model) in (Union, UnionType):
            model = next(member for member in get_args(model) if _is_member(member, part))
        else:
            model = model.model_fields[part].annotation
    model = _section(model)
    return sorted(set(model.model_fields) - ({"agents"} if model is Settings else set()))


def _section(model: Any) -> Any:
    """An annotation's model: without its constraints, and without the None of one that may be left out."""
    while True:
        members = [member for member in get_args(model) if member is not NoneType]
        if get_origin(model) is Annotated or (get_origin(model) in (Union, UnionType) and len(members) == 1):
            model = members[0]
        else:
            return model


def _is_member(model: Any, tag: str | int) -> bool:
    return tag in get_args(model.model_fields["type"].annotation)
