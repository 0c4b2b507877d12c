"""``tandem call dial``: have a worker place a call, and say what comes of it."""

import time
from typing import Annotated, Any

import typer

from tandem.command import CONFIG, ConfigOption, fail, load

POLL_S = 0.5
REACHED = ("callee_hung_up", "agent_hung_up", "transferred", "message_left")
"""Outcomes with which the call has done what it was for."""


def dial(
    to: Annotated[str, typer.Option(help="Whom to call: a number, as people write it.")],
    agent: Annotated[str, typer.Option(help="Who speaks with them.")],
    context: Annotated[str, typer.Option(help="What the call is about, told to the agent.")] = "",
    trunk: Annotated[str | None, typer.Option(help="Over which trunk; default: as `routes` has it.")] = None,
    caller_id: Annotated[str | None, typer.Option(help="Number to show; default: the trunk's first.")] = None,
    ring_seconds: Annotated[int, typer.Option(min=5, max=120, help="How long it may ring.")] = 30,
    on_machine: Annotated[
        str, typer.Option(help="When a voicemail answers: hang_up, message, or agent (it leaves one itself).")
    ] = "hang_up",
    message: Annotated[str | None, typer.Option(help="NAME of outbound.messages, for --on-machine message.")] = None,
    detect: Annotated[bool, typer.Option(help="Find out whether a person answers.")] = True,
    worker: Annotated[str | None, typer.Option(help="Who places it; default: the first.")] = None,
    wait: Annotated[bool, typer.Option(help="Follow the call to its end.")] = True,
    config: ConfigOption = CONFIG,
) -> None:
    """Have a worker call somebody, by its API. Exit code 0: they, or their voicemail, were spoken to."""
    from tandem.client import ClientError, worker_client

    settings = load(config)
    name = worker or next(iter(settings.workers))
    if name not in settings.workers:
        fail(f"no worker {name!r}; expected one of: {', '.join(settings.workers)}")
    asked = {
        "to": to,
        "agent": agent,
        "context": context,
        "trunk": trunk,
        "caller_id": caller_id,
        "ring_seconds": ring_seconds,
        "on_machine": on_machine,
        "message": message,
        "answer_detection": detect,
    }
    shown = ""
    try:
        client = worker_client(settings, name)
        state = client.ask("POST", "/v1/calls", {key: value for key, value in asked.items() if value is not None})
        typer.echo(f"{state['call']}: {name} calls {state['to']} as {state['caller_id']} over {state['trunk']}")
        while wait:
            line = _line(state)
            if line != shown:
                typer.echo(line)
                shown = line
            if state["outcome"]:
                raise typer.Exit(0 if state["outcome"] in REACHED else 1)
            time.sleep(POLL_S)
            state = client.ask("GET", f"/v1/calls/{state['call']}")
    except ClientError as error:
        fail(f"{error.cause}: {error}" if error.status else str(error))


def _line(state: dict[str, Any]) -> str:
    parts = [state["state"]]
    if state["joined_ms"] is not None:
        parts.append(f"agent joined after {state['joined_ms']} ms")
    if state["answered_by"]:
        parts.append(f"by a {state['answered_by']} ({state['answer_rule']}, {state['detected_ms']} ms)")
    if state["outcome"]:
        parts.append(" ".join(str(part) for part in (state["outcome"], state["cause"], state["sip_status"]) if part))
    return ", ".join(parts)
