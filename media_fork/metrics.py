"""What is counted, for /metrics. The hot path adds to plain integers; Prometheus reads them when it asks.

Label values come from the closed vocabularies here and in tandem.outcome, or from the configuration, never from the wire.
"""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_COUNTERS: Final = {
    "leg_frames": "Audio frames received on fork legs.",
    "leg_bytes": "Bytes of L16 received on fork legs.",
    "model_deltas": "Audio deltas received from models.",
    "model_bytes": "Bytes of audio received from models.",
    "chunks": "Chunks of audio sent to fork legs.",
    "underruns": "Times that playout ran dry in mid-utterance.",
    "barge_ins": "Times that playout was cut because the caller spoke.",
    "late_deltas": "Audio deltas of cut responses, ignored.",
    "caller_frames_dropped": "Caller audio not sent on because the model's connection was full, in frames.",
    "agent_bytes_dropped": "Agent audio beyond the bound of a call's queue, or out of order, in bytes.",
    "events_dropped": "Live events not delivered to a subscriber that was too slow.",
}

_LABELLED: Final[dict[str, tuple[str, str]]] = {
    "sessions_reserved": ("codec", "Sessions reserved."),
    "sessions_refused": ("cause", "Session requests refused."),
    "sessions_ended": ("why", "Sessions ended."),
    "legs_refused": ("why", "Fork connections turned away or dropped."),
    "leg_texts_ignored": ("why", "Text frames on fork legs that were not understood."),
    "model_events_ignored": ("why", "Messages from models that were not understood."),
    "model_errors": ("code", "Error events from models."),
    "model_lost": ("cause", "Models lost in mid-call."),
    "models_opened": ("endpoint", "Models made ready, by endpoint."),
    "models_resumed": ("how", "Models that took over in mid-call."),
    "endpoint_failures": ("endpoint", "Endpoints that failed, were late, or lost a call's model."),
    "tool_calls": ("status", "Tool calls of models."),
}

_MODEL_ERROR_CODES: Final = frozenset(
    {
        "invalid_value",
        "session_expired",
        "beta_api_shape_disabled",
        "conversation_already_has_active_response",
        "response_cancel_not_active",
        "input_audio_buffer_commit_empty",
        "rate_limit_exceeded",
        "insufficient_quota",
    }
)


def error_code(code: object) -> str:
    """``code`` of a model's error as a label value: itself where it is known, else ``other``."""
    return code if isinstance(code, str) and code in _MODEL_ERROR_CODES else "other"


class Counts:
    """Plain integers, one process's. Attributes are the keys of the tables above."""

    def __init__(self) -> None:
        self.leg_frames = 0
        self.leg_bytes = 0
        self.model_deltas = 0
        self.model_bytes = 0
        self.chunks = 0
        self.underruns = 0
        self.barge_ins = 0
        self.late_deltas = 0
        self.caller_frames_dropped = 0
        self.agent_bytes_dropped = 0
        self.events_dropped = 0
        self._labelled: dict[str, dict[str, int]] = {name: {} for name in _LABELLED}

    def add(self, name: str, label: str) -> None:
        """One more of a labelled counter."""
        values = self._labelled[name]
        values[label] = values.get(label, 0) + 1

    def labelled(self, name: str) -> dict[str, int]:
        return dict(self._labelled[name])


class Metrics(Collector):
    """The exposition of one media_fork process. ``sessions`` and ``max_sessions`` are read when asked."""

    def __init__(self, counts: Counts, max_sessions: int) -> None:
        self.counts = counts
        self.max_sessions = max_sessions
        self.sessions = 0
        self.tool_servers_down = 0
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.ready_seconds = self._histogram(
            "model_ready_seconds", "Connect to session.updated.", (0.1, 0.2, 0.5, 1, 2, 5)
        )
        self.response_seconds = self._histogram(
            "response_seconds",
            "Caller's end of speech to the first audio out.",
            (0.2, 0.4, 0.6, 0.8, 1, 1.5, 2, 3, 5, 10),
        )
        self.cut_seconds = self._histogram(
            "cut_seconds", "The model's speech_started to killAudio sent.", (0.0005, 0.001, 0.003, 0.01, 0.03, 0.1)
        )

    def _histogram(self, name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"tandem_media_{name}", help, buckets=buckets, registry=self.registry)

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("tandem_media_sessions", "Sessions reserved or live.", value=self.sessions)
        yield GaugeMetricFamily("tandem_media_max_sessions", "Sessions at most.", value=self.max_sessions)
        down = "Servers of HTTP tools that are left alone, or on trial."
        yield GaugeMetricFamily("tandem_media_tool_servers_down", down, value=self.tool_servers_down)
        for name, help in _COUNTERS.items():
            yield CounterMetricFamily(f"tandem_media_{name}", help, value=getattr(self.counts, name))
        for name, (label, help) in _LABELLED.items():
            family = CounterMetricFamily(f"tandem_media_{name}", help, labels=[label])
            for value, count in self.counts.labelled(name).items():
                family.add_metric([value], count)
            yield family

    def exposition(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)
