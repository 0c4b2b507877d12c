"""Rows and counters for the records' tests."""

from typing import Any

from prometheus_client import REGISTRY

from tandem.records import CallRecord, RecordingRecord, TimingRecord, ToolCallRecord, TransferRecord, TurnRecord


def call_row(id: str = "call-1", **changes: Any) -> CallRecord:
    values: dict[str, Any] = {
        "id": id,
        "worker": "worker-1",
        "trunk": "carrier",
        "tenant": "default",
        "caller": "+12025550147",
        "number": "+12025550100",
        "agent": "reception",
        "verified": "TN-Validation-Passed-A",
        "codec": "PCMU",
        "sip_call_id": "3848276298220188511@example",
        "started_at": 1_700_000_000.125,
    }
    return CallRecord(**(values | changes))


def turn_row(item: str = "item-1", call: str = "call-1", **changes: Any) -> TurnRecord:
    values: dict[str, Any] = {
        "call": call, "item": item, "who": "agent", "text": "Hello.", "started_at": 1_700_000_001.5, "duration_ms": 900,
    }  # fmt: skip
    return TurnRecord(**(values | changes))


def tool_call_row(call: str = "call-1") -> ToolCallRecord:
    return ToolCallRecord(
        call=call, id="tool-1", name="transfer", arguments='{"destination":"sales"}', result='{"outcome":"busy"}',
        started_at=1_700_000_002, ended_at=1_700_000_003, status="ok",
    )  # fmt: skip


def transfer_row(call: str = "call-1") -> TransferRecord:
    return TransferRecord(
        call=call, id="tool-1", destination="sales", method="bridge", outcome="busy", detail="the line is busy",
        sip_status=486, started_at=1_700_000_002, ended_at=1_700_000_003,
    )  # fmt: skip


def timing_row(call: str = "call-1", item: str = "item-1") -> TimingRecord:
    return TimingRecord(
        call=call, item=item, kind="turn", speech_ended_at=1_700_000_001, committed_at=1_700_000_001.2,
        first_model_audio_at=1_700_000_001.4, first_audio_out_at=1_700_000_001.42, response_ms=420,
    )  # fmt: skip


def recording_row(call: str = "call-1", id: str = "1", **changes: Any) -> RecordingRecord:
    values: dict[str, Any] = {
        "call": call, "id": id, "worker": "worker-1", "tenant": "default", "agent": "reception", "state": "stored",
        "consent": "announced", "consent_at": 1_700_000_001, "started_at": 1_700_000_002, "ended_at": 1_700_000_012,
        "pauses": "[[2000,4000]]", "duration_ms": 10_000, "format": "wav", "bytes": 5_000_000_000, "sha256": "ab" * 32,
        "file": f"worker-1/kept/2023-11-14/{call}.{id}.wav.age", "keep_until": 1_700_864_002,
    }  # fmt: skip
    return RecordingRecord(**(values | changes))


def counted(name: str, **labels: str) -> float:
    """Value of a metric now; 0 where it has none yet."""
    return REGISTRY.get_sample_value(name, labels) or 0.0
