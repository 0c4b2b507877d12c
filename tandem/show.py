"""Calls on the terminal: the list, and one call's story as tables and a waterfall."""

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tandem.outcome import Outcome
from tandem.records import CallRecord, CallStory, RecordingRecord, TransferRecord, TurnRecord

WIDTH = 160
"""Columns where the output is no terminal but a file or a pipe."""
_GOOD = (Outcome.CALLER_HUNG_UP, Outcome.AGENT_HUNG_UP, Outcome.TRANSFERRED)


def console() -> Console:
    """The terminal; a pipe gets WIDTH columns, so that nothing is folded for a width that nobody has."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def calls_table(calls: Sequence[CallRecord]) -> Table:
    table = _table("id", "started", "from", "number", "agent", "worker", "lasted", "outcome", "cause")
    for column in table.columns[1], table.columns[6], table.columns[7]:
        column.no_wrap = True
    for call in calls:
        _add(
            table,
            call.id,
            _clock(call.started_at),
            call.caller,
            call.number,
            call.agent,
            call.worker,
            _lasted(call),
            _outcome(call),
            call.cause,
        )
    return table


def story_parts(story: CallStory, width: int) -> Iterator[RenderableType]:
    """What ``tandem call show`` prints on ``width`` columns, part by part; parts without rows are left out."""
    yield _head(story.call)
    if story.turns or story.transfers:
        yield _waterfall(story, max(12, (width - 24) // 2))
    if story.tool_calls:
        yield _tool_calls(story)
    if story.transfers:
        yield _transfers(story)
    if story.timings:
        yield _timings(story)
    if story.recordings:
        yield recordings_table(story.recordings, title="Recordings")


def _head(call: CallRecord) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    verified = f"({call.verified})" if call.verified else ""
    answered = f"{_ms(call.started_at, call.answered_at)} after it came" if call.answered_at else "never"
    outcome = _outcome(call)
    if call.cause or call.sip_status:
        outcome.append(printable(f"  {call.cause} {call.sip_status or ''}").rstrip())
    for name, value in (
        ("call", call.id),
        ("from", f"{call.caller} {verified}"),
        ("to", f"{call.number}, agent {call.agent}"),
        ("trunk", f"{call.trunk}, tenant {call.tenant}"),
        ("worker", f"{call.worker}, {call.codec}"),
        ("SIP Call-ID", call.sip_call_id),
        ("came", _clock(call.started_at)),
        ("answered", answered),
        ("lasted", _lasted(call)),
        ("outcome", outcome),
        ("transferred to", call.transferred_to or ""),
    ):
        if value:
            _add(table, name, value)
    return table


def _waterfall(story: CallStory, width: int) -> Table:
    """Who spoke when, on ``width`` characters: solid what was heard, hatched what was cut off; double lines transfers."""
    parts: list[TurnRecord | TransferRecord] = [*story.turns, *story.transfers]
    parts.sort(key=lambda part: part.started_at)
    begin = min(story.call.answered_at or story.call.started_at, parts[0].started_at)
    length = max(*(_end(part, story.call) - begin for part in parts), 1.0)

    def columns(seconds: float) -> int:
        return min(width, max(0, round(seconds / length * width)))

    table = _table("at", "who", f"{length:.0f} s", "what", title="Conversation")
    table.columns[2].no_wrap = True
    for part in parts:
        start = min(columns(part.started_at - begin), width - 1)
        whole = max(1, columns(_end(part, story.call) - begin) - start)
        bar = Text(" " * start)
        if isinstance(part, TransferRecord):
            bar.append("═" * whole, "yellow")
            who = Text("transfer", "yellow")
            what: str | Text = f"to {part.destination}: {part.outcome.value if part.outcome else 'under way'}"
        else:
            colour = "cyan" if part.who == "caller" else "green"
            unheard = whole - columns(part.heard_ms / 1000) if part.heard_ms is not None and part.interrupted else 0
            unheard = min(whole, max(0, unheard))
            bar.append("█" * (whole - unheard), colour).append("░" * unheard, "dim")
            who, what = Text(part.who, colour), _said(part)
        _add(table, _offset(begin, part.started_at), who, bar, what)
    return table


def _end(part: TurnRecord | TransferRecord, call: CallRecord) -> float:
    """When a part was over, or would have been had it not been cut."""
    if isinstance(part, TransferRecord):
        return part.ended_at or call.ended_at or part.started_at
    return part.started_at + part.duration_ms / 1000


def _said(turn: TurnRecord) -> Text:
    text = Text(printable(turn.text))
    if turn.interrupted:
        text.append(f"  [cut at {(turn.heard_ms or 0) / 1000:.1f} of {turn.duration_ms / 1000:.1f} s]", "dim")
    return text


def _tool_calls(story: CallStory) -> Table:
    table = _table("at", "tool", "arguments", "result", "took", "status", title="Tool calls")
    begin = story.call.answered_at or story.call.started_at
    for row in story.tool_calls:
        took = _ms(row.started_at, row.ended_at)
        _add(table, _offset(begin, row.started_at), row.name, row.arguments, row.result, took, row.status)
    return table


def _transfers(story: CallStory) -> Table:
    table = _table("at", "destination", "method", "outcome", "SIP", "took", "detail", title="Transfers")
    begin = story.call.answered_at or story.call.started_at
    for row in story.transfers:
        _add(
            table,
            _offset(begin, row.started_at),
            row.destination,
            row.method,
            row.outcome.value if row.outcome else "under way",
            str(row.sip_status or ""),
            _ms(row.started_at, row.ended_at),
            row.detail,
        )
    return table


def recordings_table(recordings: Sequence[RecordingRecord], title: str | None = None) -> Table:
    columns = ("call", "no.", "began", "lasted", "consent", "state", "kept until", "file", "cause")
    table = _table(*columns, title=title)
    for column in table.columns[2], table.columns[6]:
        column.no_wrap = True
    for row in recordings:
        _add(
            table,
            row.call,
            row.id,
            _clock(row.started_at),
            "" if row.duration_ms is None else f"{row.duration_ms / 1000:.1f} s",
            row.consent.value,
            row.state.value,
            _clock(row.keep_until),
            row.file,
            row.cause,
        )
    return table


def _timings(story: CallStory) -> Table:
    columns = ("item", "kind", "commit", "model audio", "audio out", "response", "cut", "heard")
    table = _table(*columns, title="Timings, counted from the caller's last word")
    for row in story.timings:
        _add(
            table,
            row.item,
            row.kind,
            _ms(row.speech_ended_at, row.committed_at),
            _ms(row.speech_ended_at, row.first_model_audio_at),
            _ms(row.speech_ended_at, row.first_audio_out_at),
            *("" if value is None else f"{value} ms" for value in (row.response_ms, row.cut_ms, row.heard_ms)),
        )
    return table


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _add(table: Table, *cells: str | Text) -> None:
    """A row whose text is shown as it is: neither rich's markup nor the terminal's escapes are obeyed."""
    table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in cells))


def printable(text: str) -> str:
    """What callers and models say reaches the operator's terminal: control characters are shown as a middle dot."""
    return "".join(character if character.isprintable() or character == "\n" else "·" for character in text)


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S}"


def _offset(begin: float, at: float) -> str:
    return f"{at - begin:.1f} s"


def _ms(begin: float | None, end: float | None) -> str:
    return "" if begin is None or end is None else f"{(end - begin) * 1000:.0f} ms"


def _lasted(call: CallRecord) -> str:
    if call.ended_at is None:
        return "" if call.outcome else "live"
    minutes, seconds = divmod(round(call.ended_at - (call.answered_at or call.started_at)), 60)
    return f"{minutes}:{seconds:02d}"


def _outcome(call: CallRecord) -> Text:
    if call.outcome is None:
        return Text("live", "cyan")
    return Text(call.outcome.value, "green" if call.outcome in _GOOD else "yellow")
