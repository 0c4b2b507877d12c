"""The detector run over recordings as a call would be, 20 ms at a time, and what is counted of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from bench.answers.recordings import RATE, Recording
from media_fork.answer import Detector, Verdict
from tandem.outcome import Answerer

FRAME = RATE // 50


@dataclass(frozen=True)
class Judged:
    recording: Recording
    first: Verdict | None
    ready: Verdict | None
    """The machine's that it may be spoken to."""

    @property
    def right(self) -> bool:
        return self.first is not None and self.first.who is self.recording.who

    @property
    def late_ms(self) -> int | None:
        """From the end of the beep to the verdict that it may be spoken to: below 0 where it was taken too early."""
        if self.ready is None or self.recording.beep_over_ms is None:
            return None
        return self.ready.after_ms - self.recording.beep_over_ms

    def __str__(self) -> str:
        first = "nothing" if self.first is None else f"{self.first.who.value} ({self.first.rule.value})"
        after = "" if self.first is None else f"{self.first.after_ms} ms"
        late = "" if self.late_ms is None else f"{self.late_ms:+d} ms"
        mark = "    " if self.right else "BAD "
        recording = self.recording
        why = f"  [{recording.why}]" if recording.why else ""
        return f"{mark}{recording.set:9} {recording.name[:48]:49}{first:25}{after:>8}{late:>9}{why}"


def judge(recording: Recording) -> Judged:
    detector = Detector(RATE)
    verdicts: list[Verdict] = []
    for start in range(0, len(recording.pcm), FRAME):
        verdicts += detector.feed(recording.pcm[start : start + FRAME])
    ready = next((verdict for verdict in verdicts if verdict.ready), None)
    return Judged(recording, verdicts[0] if verdicts else None, ready)


def summary(judged: Sequence[Judged]) -> Iterator[str]:
    """Rows of a Markdown table: of each set and kind, how many, how many wrong, and how soon."""
    yield "| set | who answered | recordings | taken for something else | decided after, median / longest | beep's end to go, median / longest |"
    yield "|---|---|---|---|---|---|"
    for set in dict.fromkeys(one.recording.set for one in judged):
        for who in Answerer:
            some = [one for one in judged if one.recording.set == set and one.recording.who is who]
            if not some:
                continue
            wrong = [one for one in some if not one.right]
            taken = ", ".join(one.first.who.value if one.first else "nothing" for one in wrong)
            after = [one.first.after_ms for one in some if one.first is not None]
            late = [one.late_ms for one in some if one.late_ms is not None]
            yield (
                f"| {set} | {who.value} | {len(some)} | {len(wrong)}{f' ({taken})' if taken else ''}"
                f" | {_times(after)} | {_times(late)} |"
            )


def _times(ms: Sequence[int]) -> str:
    return f"{median(ms) / 1000:.2f} s / {max(ms) / 1000:.2f} s" if ms else ""
