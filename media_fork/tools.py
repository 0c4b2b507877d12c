"""What the model may call: transfer and hang_up, which are decisions for the switch, and the agent's HTTP tools."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from tandem.destinations import Destination, RingGroup
from tandem.keying import Collection
from tandem.recording import ConsentBy, Recording, RecordingMode
from tandem.seam import Placed, RecordingAction
from tandem.settings import Agent, HttpTool

TRANSFER: Final = "transfer"
HANG_UP: Final = "hang_up"
RECORDING: Final = "recording"
COLLECT_DIGITS: Final = "collect_digits"
COLLECT_SECRET: Final = "collect_secret"
SEND_DTMF: Final = "send_dtmf"
HOLD: Final = "hold"
ACKNOWLEDGE: Final = "acknowledge"
MACHINE: Final = "answering_machine"
MAX_BODY_BYTES: Final = 64 << 10
"""Of a tool's reply; a larger one is an error."""
MAX_OUTPUT_CHARACTERS: Final = 16 << 10
"""Of what the model is told."""
CALL_HEADER: Final = "X-Tandem-Call"
"""Tells an HTTP tool which call it serves."""


@dataclass(frozen=True)
class Result:
    """How a tool call ended: ``status`` for record and metric, ``output`` for the model, in JSON or plain text."""

    status: str
    output: str
    unfit: bool = False
    """It says that the tool's server is not in order."""
    on_record: str | None = None
    """What the record has instead of ``output``, where that is not for the record."""


NOTED: Final = Result(
    "noted", orjson.dumps({"outcome": "noted", "detail": "You will be told what comes of it."}).decode()
)


def failure(status: str, message: str, *, unfit: bool = False) -> Result:
    """A tool call that came to nothing, and why, in words that the model can use."""
    return Result(status, orjson.dumps({"error": message}).decode(), unfit)


def definitions(
    agent: Agent, destinations: Mapping[str, Destination | RingGroup], placed: Placed | None = None
) -> list[dict[str, Any]]:
    """The ``tools`` of session.update. ``destinations``: those of the settings and their ring groups; the agent's are offered."""
    tools = [_function(tool.name, tool.description, tool.parameters) for tool in agent.tools]
    places = _places(agent, destinations)
    if places:
        tools.append(
            _function(
                TRANSFER,
                "Put the caller through to a person or department. Tell the caller first. The result says whether"
                " they answered; where they did not, the caller is still with you: tell them and offer help.",
                {
                    "type": "object",
                    "properties": places
                    | {
                        "reason": {"type": "string", "description": "What the caller wants, in a few words."},
                        "summary": {
                            "type": "string",
                            "description": "For the person who takes the call, in two or three sentences: who is calling,"
                            " what they want, what was said and found out so far.",
                        },
                    },
                    # With both on offer it is one or the other.
                    "required": [*(places if len(places) == 1 else ()), "reason", "summary"],
                    "additionalProperties": False,
                },
            )
        )
    if actions := recording_actions(agent.recording):
        tools.append(_recording(actions))
    tools += _keypad(agent)
    tools.append(
        _function(
            HANG_UP,
            "End the call. Say goodbye first.",
            {
                "type": "object",
                "properties": {"reason": {"type": "string", "description": "Why the call is over, in a few words."}},
                "required": ["reason"],
                "additionalProperties": False,
            },
        )
    )
    if placed is not None:
        tools += _placed(placed)
    return tools


def _places(agent: Agent, destinations: Mapping[str, Destination | RingGroup]) -> dict[str, Any]:
    """What the model may say for where a transfer goes: a destination's name; a number where the agent has rules for some."""
    places: dict[str, Any] = {}
    if agent.destinations:
        offered = "; ".join(f"{name}: {destinations[name].description}" for name in agent.destinations)
        places["destination"] = {"type": "string", "enum": list(agent.destinations), "description": offered}
    if agent.free_numbers:
        otherwise = "Instead of a destination, where none fits: a" if agent.destinations else "A"
        places["number"] = {
            "type": "string",
            "description": f"{otherwise} telephone number that the caller gave, in E.164, e.g. +12025550147.",
        }
    return places


def recording_actions(recording: Recording) -> dict[RecordingAction, str]:
    """What the agent may do about its recording, each in words for the model; nothing where it has no such tool."""
    actions: dict[RecordingAction, str] = {}
    if recording.mode is RecordingMode.OFF:
        return actions
    if recording.consent is ConsentBy.ANSWER:
        actions |= {
            RecordingAction.CONSENT_GIVEN: "the caller was asked, and agrees to being recorded",
            RecordingAction.CONSENT_REFUSED: "the caller does not agree",
        }
    if recording.mode is RecordingMode.ON_DEMAND:
        actions |= {RecordingAction.START: "begin recording", RecordingAction.STOP: "end the recording"}
    if recording.agent_pauses:
        actions |= {
            RecordingAction.PAUSE: "leave out what is said from now on, before anything confidential is said",
            RecordingAction.RESUME: "go on recording afterwards",
        }
    return actions


def _recording(actions: Mapping[RecordingAction, str]) -> dict[str, Any]:
    meanings = "; ".join(f"{action.value}: {meaning}" for action, meaning in actions.items())
    return _function(
        RECORDING,
        "The recording of this call. The result says whether it was done.",
        {
            "type": "object",
            "properties": {
                "action": {"type": "string", "enum": [action.value for action in actions], "description": meanings}
            },
            "required": ["action"],
            "additionalProperties": False,
        },
    )


def _placed(placed: Placed) -> Iterator[dict[str, Any]]:
    """What there is to say on a call that we placed."""
    if placed.detect:
        yield report(MACHINE, "Call this as soon as you notice that a voicemail or an announcement has answered.")
    if placed.acknowledge:
        yield report(
            ACKNOWLEDGE, "Call this when the person says that they take it upon them. Wait for what you are told."
        )


def _keypad(agent: Agent) -> list[dict[str, Any]]:
    """The tools for keys both ways, and for hold; those that the agent has."""
    tools = []
    asked = [collection for collection in agent.collect if collection.sink is None]
    secret = [collection for collection in agent.collect if collection.sink is not None]
    if asked:
        how = "Have the caller key something in on their telephone: ask them in the same breath. The result has the digits."
        tools.append(_function(COLLECT_DIGITS, how, _named(asked)))
    if secret:
        how = (
            "Have the caller key in something confidential, which goes where it is needed and not to you: ask them in the same"
            " breath, and tell them not to say it aloud. The result says what came of it. You hear nothing meanwhile."
        )
        tools.append(_function(COLLECT_SECRET, how, _named(secret)))
    if agent.sends_digits:
        digits = {
            "type": "string",
            "description": "0 to 9, *, #, A to D; w is a pause of half a second, W of a whole one.",
        }
        tools.append(_function(SEND_DTMF, "Press keys, as a menu of the other side asks for.", _object(digits=digits)))
    if agent.holds:
        seconds = {"type": "number", "description": "At most so long; 30 where nothing is said."}
        music = {"type": "boolean", "description": "Whether they hear music meanwhile, or silence."}
        how = (
            "Have the caller wait, after telling them so. You hear nothing until it is over: when its time is up, or another tool"
            " has its result."
        )
        tools.append(_function(HOLD, how, _object(seconds=seconds, music=music)))
    return tools


def _named(collections: Sequence[Collection]) -> dict[str, Any]:
    meanings = "; ".join(f"{collection.name}: {collection.description}" for collection in collections)
    names = [collection.name for collection in collections]
    return _object(name={"type": "string", "enum": names, "description": meanings})


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in ("seconds", "music")],
        "additionalProperties": False,
    }


def report(name: str, description: str) -> dict[str, Any]:
    """A tool without arguments: that it is called says it all."""
    nothing = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    return _function(name, description, nothing)


def _function(name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "name": name, "description": description, "parameters": parameters}


async def request(client: aiohttp.ClientSession, tool: HttpTool, arguments: dict[str, Any], call: str) -> Result:
    """Carry ``tool`` out: its arguments in the query for GET and DELETE, as a JSON body otherwise. Never raises but for
    cancellation; redirects are not followed, they would take the tool's headers elsewhere."""
    headers = {name: value.get_secret_value() for name, value in tool.headers.items()} | {CALL_HEADER: call}
    in_query = tool.method in ("GET", "DELETE")
    try:
        async with client.request(
            tool.method,
            tool.url,
            params={name: _query_value(value) for name, value in arguments.items()} if in_query else None,
            json=None if in_query else arguments,
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=tool.timeout_ms / 1000),
        ) as response:
            body = bytearray()
            async for part in response.content.iter_chunked(8192):
                body += part
                if len(body) > MAX_BODY_BYTES:
                    return failure("too_large", f"{tool.name} answered with more than {MAX_BODY_BYTES} bytes")
            status = response.status
    except TimeoutError:
        return failure("timeout", f"{tool.name} did not answer within {tool.timeout_ms} ms", unfit=True)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return failure("unreachable", f"{tool.name} could not be reached: {type(error).__name__}", unfit=True)
    output = _output(bytes(body))
    if status >= 300:
        message = f"{tool.name} answered with HTTP status {status}: {output[:1024]}"
        return failure("http_error", message, unfit=status >= 500)
    return Result("ok", output)


def _query_value(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _output(body: bytes) -> str:
    """Compact JSON where ``body`` is JSON, else its text, cut to what the model is told."""
    try:
        text = orjson.dumps(orjson.loads(body)).decode()
    except orjson.JSONDecodeError:
        text = body.decode("utf-8", "replace")
    return text if len(text) <= MAX_OUTPUT_CHARACTERS else text[:MAX_OUTPUT_CHARACTERS] + " [cut]"


def client() -> aiohttp.ClientSession:
    """The HTTP client of one process; it keeps connections to the tools open between calls, and no cookies."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=256, limit_per_host=64, keepalive_timeout=30),
        cookie_jar=aiohttp.DummyCookieJar(),
    )
