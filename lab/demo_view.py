"""The demo's terminal: who says what, the turn timings and the SIP ladder, live; plain lines where it is no terminal."""

import time
from collections import deque
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_STYLES = {"caller": "cyan", "agent": "green", "sales": "magenta", "tandem": "dim", "timing": "yellow"}


class DemoView:
    """Feed it with :meth:`says`, :meth:`note`, :meth:`timing` and :meth:`sip`; it draws itself.

    ``at`` is when it happened, in Unix time; None: now.
    """

    def __init__(self, console: Console, *, title: str) -> None:
        self._console = console
        self._title = title
        self._live: Live | None = None
        self._start = time.time()
        self._talk: deque[Text] = deque(maxlen=200)
        self._ladder: deque[Text] = deque(maxlen=200)
        self._timings: deque[tuple[str, str]] = deque(maxlen=8)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(
                self._draw(), console=self._console, refresh_per_second=8, screen=False, transient=True,
                get_renderable=self._draw,
            )  # fmt: skip
            self._live.start()
        else:
            self._console.print(self._title, highlight=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
            self._live = None
            self._console.print(self._draw())

    def says(self, who: str, text: str, at: float | None = None) -> None:
        self._line(self._talk, who, text, at)

    def note(self, text: str, at: float | None = None) -> None:
        self._line(self._talk, "tandem", text, at)

    def timing(self, what: str, value: str) -> None:
        self._timings.append((what, value))
        if not self._live:
            self._line(self._talk, "timing", f"{what}: {value}")

    def sip(self, source: str, target: str, label: str, at: float) -> None:
        line = Text(f"{self._clock(at)} ")
        line.append(f"{source:>10} → {target:<10} ", style="dim")
        line.append(label, style="bold" if not label[:1].isdigit() else "")
        self._ladder.append(line)
        if not self._live:
            self._console.print(line)

    def _clock(self, at: float | None) -> str:
        return f"{(time.time() if at is None else at) - self._start:6.2f}"

    def _line(self, lines: deque[Text], who: str, text: str, at: float | None = None) -> None:
        line = Text(f"{self._clock(at)} ")
        line.append(f"{who:<7}", style=_STYLES.get(who, ""))
        line.append(text, style="dim" if who == "tandem" else "")
        lines.append(line)
        if not self._live:
            self._console.print(line)

    def _talk_rows(self, count: int) -> Group:
        width = max(20, self._console.width * 3 // 5 - 4)
        rows = [row for line in self._talk for row in line.wrap(self._console, width)]
        return Group(*rows[-max(1, count) :])

    def _draw(self) -> RenderableType:
        height = max(14, min(36, self._console.height - 1))
        rows = height - 4
        timings = Table.grid(padding=(0, 2))
        for what, value in self._timings:
            timings.add_row(Text(what, style="yellow"), value)
        left = Layout(name="left", ratio=3)
        left.split_column(
            Layout(Panel(self._talk_rows(rows - len(self._timings) - 2), title="conversation", title_align="left")),
            Layout(Panel(timings, title="timings", title_align="left"), size=len(self._timings) + 2),
        )
        right = Layout(Panel(_last(self._ladder, rows), title="SIP", title_align="left"), ratio=2)
        body = Layout(size=height - 1)
        body.split_row(left, right)
        layout = Layout()
        layout.split_column(Layout(Text(self._title, style="bold"), size=1), body)
        return _Fixed(layout, height)


class _Fixed:
    """A layout at a fixed height, so that it does not fill the screen."""

    def __init__(self, layout: Layout, height: int) -> None:
        self._layout = layout
        self._height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self._layout, options.update(height=self._height))


def _last(lines: deque[Text], count: int) -> Group:
    shown = list(lines)[-max(1, count) :]
    for line in shown:
        line.no_wrap = True
        line.overflow = "ellipsis"
    return Group(*shown)
