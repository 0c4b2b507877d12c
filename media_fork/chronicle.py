"""What is told of one call: its rows for the records, its live events for those who watch."""

from collections.abc import Callable

from media_fork.clock import Clock
from media_fork.events import LiveEvents
from media_fork.turns import Turn
from tandem.rows import Row, TimingRecord, ToolCallRecord, TurnRecord
from tandem.seam import MAX_TEXT, LiveEventKind


class Chronicle:
    """One call's. ``put`` has a row written, and never waits."""

    def __init__(self, call: str, clock: Clock, events: LiveEvents, put: Callable[[Row], None]) -> None:
        self.call = call
        self._clock = clock
        self._events = events
        self._put = put

    def publish(self, kind: LiveEventKind, text: str = "", **data: str | float | bool | None) -> None:
        self._events.publish(self.call, kind, text, **data)

    def caller_turn(self, turn: Turn) -> None:
        self._put(
            TurnRecord(
                call=self.call,
                item=turn.item,
                who="caller",
                text=turn.text,
                started_at=turn.started_at,
                ended_at=turn.ended_at,
                duration_ms=turn.duration_ms,
            )
        )

    def agent_turn(
        self, item: str, text: str, started_at: float, ended_at: float, duration_ms: int, heard_ms: int
    ) -> None:
        self._put(
            TurnRecord(
                call=self.call,
                item=item,
                who="agent",
                text=text,
                started_at=started_at,
                ended_at=ended_at,
                duration_ms=duration_ms,
                heard_ms=heard_ms,
                interrupted=heard_ms < duration_ms,
            )
        )

    def response(self, turn: Turn) -> None:
        """How quickly ``turn`` was answered, or that it was not."""
        if turn.answered_at is not None:
            self.publish(LiveEventKind.TURN, response_ms=turn.response_ms)
        self._put(
            TimingRecord(
                call=self.call,
                item=turn.item,
                kind="turn",
                speech_ended_at=turn.ended_at,
                committed_at=turn.committed_at,
                first_model_audio_at=turn.first_model_audio_at,
                first_audio_out_at=turn.answered_at,
                response_ms=turn.response_ms,
            )
        )

    def barge_in(self, item: str, cut_ms: int, heard_ms: int) -> None:
        self.publish(LiveEventKind.BARGE_IN, heard_ms=heard_ms, cut_ms=cut_ms)
        self._put(TimingRecord(call=self.call, item=item, kind="barge_in", cut_ms=cut_ms, heard_ms=heard_ms))

    def tool_call(self, id: str, name: str, arguments: str) -> ToolCallRecord:
        """A tool call begins; its record, for ``tool_result``."""
        record = ToolCallRecord(
            call=self.call,
            id=id,
            name=name,
            arguments=arguments,
            result="",
            started_at=self._clock.unix(),
            status="running",
        )
        self._put(record)
        self.publish(LiveEventKind.TOOL_CALL, name, id=id, arguments=arguments[:MAX_TEXT])
        return record

    def tool_result(self, record: ToolCallRecord, status: str, result: str) -> ToolCallRecord:
        ended = record.model_copy(update={"result": result, "status": status, "ended_at": self._clock.unix()})
        self._put(ended)
        self.publish(LiveEventKind.TOOL_RESULT, record.name, id=record.id, status=status)
        return ended
