"""``tandem check``: is what the configuration names there, does it answer, and is it what it must be?"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from rich import box
from rich.table import Table
from rich.text import Text

from tandem import probes
from tandem.certificate import certificate
from tandem.settings import Settings
from tandem.show import printable


class State(StrEnum):
    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """What one probe found: ``why`` it is so, and ``advice`` where it is not good."""

    what: str
    state: State
    why: str
    advice: str = ""


def check_all(settings: Settings) -> list[Finding]:
    """Every probe, some at a time; findings in the order of the configuration."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda named: _finding(*named), _probes(settings)))


def is_failed(finding: Finding) -> bool:
    return finding.state is State.FAILED


def findings_table(findings: Sequence[Finding]) -> Table:
    colours = {State.OK: "green", State.FAILED: "red", State.SKIPPED: "yellow"}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("what", "", "why", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        state = Text(finding.state.value, colours[finding.state])
        table.add_row(finding.what, state, Text(printable(finding.why)), Text(printable(finding.advice)))
    return table


def _probes(settings: Settings) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "model", partial(probes.model, settings.model)
    for number, endpoint in enumerate(settings.model.alternatives, 1):
        yield f"model alternative {number}", partial(probes.model, endpoint)
    yield "database", partial(probes.records_database, settings.records)
    yield "spool", partial(probes.spool, settings.records)
    for name in settings.destinations:
        yield f"destination {name}", partial(probes.destination, settings, name)
    if settings.edge.tls:
        yield "certificate", partial(certificate, settings.edge.tls)
    yield "kamailio.cfg", partial(probes.kamailio_configuration, settings)
    yield "edge", partial(probes.edge, settings)
    yield "emergency caller ID", partial(probes.callback_numbers, settings)
    yield "notify", partial(probes.notifier, settings)
    for name, engine in settings.rtpengine.items():
        yield f"rtpengine {name}", partial(probes.rtpengine, engine)
    for name, worker in settings.workers.items():
        yield f"{name} SIP", partial(probes.sip, settings, worker)
        yield f"{name} FreeSWITCH", partial(probes.switch, settings, worker)
        yield f"{name} esl_app", partial(probes.component, worker, "esl_app", settings.esl_app.metrics_port)
        yield f"{name} media_fork", partial(probes.component, worker, "media_fork", settings.media_fork.http_port)


def _finding(what: str, probe: Callable[[], str]) -> Finding:
    try:
        return Finding(what, State.OK, probe())
    except probes.Failed as failed:
        return Finding(what, State.FAILED, str(failed), failed.advice)
    except probes.Skipped as skipped:
        return Finding(what, State.SKIPPED, str(skipped))
