"""docs/calls.md and docs/media.md name every metric of their process, and no other."""

import re
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import Metric

from esl_app import metrics as esl_app_metrics
from media_fork.metrics import Counts, Metrics
from tandem.telemetry import SUPPRESSED

ROOT = Path(__file__).parents[2]
IN_TABLE = re.compile(r"`([a-z_]+)(?:\{[a-z_,]+\})?`")


def named(page: str, prefix: str) -> set[str]:
    """Metrics of the first columns under the page's heading that has them."""
    section = (ROOT / "docs" / page).read_text(encoding="utf-8").partition("| Metric | Meaning |")[2]
    cells = re.findall(r"^\| ([^|]+) \|", section.partition("\n\n")[0], re.MULTILINE)
    return {prefix + name for cell in cells for name in IN_TABLE.findall(cell)}


def exposed(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def test_every_metric_of_esl_app_is_in_its_page():
    collectors = [value for value in vars(esl_app_metrics).values() if isinstance(value, Counter | Gauge | Histogram)]
    ours = {exposed(metric) for collector in (*collectors, SUPPRESSED) for metric in collector.collect()}
    assert named("calls.md", "") == ours


def test_every_metric_of_media_fork_is_in_its_page():
    metrics = Metrics(Counts(), 1)
    assert named("media.md", "tandem_media_") == {exposed(metric) for metric in metrics.registry.collect()}
