"""What the demonstration claims, judged on what was heard on the lines and on the call's record.

Lines are int16 at 8 kHz whose sample 0 is the answer; moments are seconds on that clock.
"""

from collections.abc import Collection
from dataclasses import dataclass

from lab import hearing
from lab.hearing import ALIKE, Pcm
from tandem.outcome import Outcome, TransferOutcome
from tandem.records import CallStory, TurnRecord

GREETED_S = 2.0
SPOKEN_S = 1.0


@dataclass(frozen=True)
class Check:
    """One thing that had to happen, whether it did, and what was measured."""

    what: str
    ok: bool
    measured: str


def silent_after(heard: Pcm, interrupted: float, asked: float) -> float:
    """Seconds from the caller's first word to the agent's last sound, as far as the caller's question goes on."""
    talked_over = hearing.spans(heard[: round(asked * hearing.RATE)], join_s=0.05)
    return max((span.end for span in talked_over if span.end > interrupted), default=interrupted) - interrupted


def judge_barge_in(heard: Pcm, interrupted: float, asked: float) -> list[Check]:
    """The agent talked when the caller began at ``interrupted``, and was silent long before the question ended, ``asked``."""
    greeting = hearing.loud_seconds(heard, 0, interrupted)
    silent = silent_after(heard, interrupted, asked)
    question = asked - interrupted
    return [
        Check("the agent greeted", greeting >= GREETED_S, f"{greeting:.1f} s of speech before the caller spoke"),
        Check(
            "the agent stopped when the caller interrupted",
            silent < question / 2,
            f"silent {silent * 1000:.0f} ms after the caller began a question of {question:.1f} s",
        ),
    ]


def judge_answer(heard: Pcm, asked: float, requested: float) -> list[Check]:
    """The agent spoke between the question's end and the caller's next words."""
    answer = hearing.loud_seconds(heard, asked, requested)
    after = next((span.start for span in hearing.spans(heard) if span.start > asked), requested) - asked
    return [
        Check("the agent answered", answer >= SPOKEN_S, f"{answer:.1f} s of speech, {after:.2f} s after the question")
    ]


def judge_announcement(heard: Pcm, requested: float, rung: float) -> list[Check]:
    """The agent spoke between the caller's request and the first ring at sales: no ringing tone is counted."""
    spoken = hearing.loud_seconds(heard, requested, rung)
    return [
        Check(
            "the agent said that it puts the caller through",
            spoken >= SPOKEN_S,
            f"{spoken:.1f} s of speech before it rang",
        )
    ]


def judge_talk(heard: Pcm, sales_heard: Pcm, sales_voice: Pcm, order: Pcm) -> list[Check]:
    """Caller and sales heard each other's very voice."""
    caller_hears, sales_hears = hearing.likeness(heard, sales_voice), hearing.likeness(sales_heard, order)
    return [
        Check("the caller hears sales", caller_hears >= ALIKE, f"likeness {caller_hears:.2f} to the sales voice"),
        Check("sales hears the caller", sales_hears >= ALIKE, f"likeness {sales_hears:.2f} to the caller's voice"),
    ]


def judge_media(addresses: Collection[str | None], workers: Collection[str]) -> list[Check]:
    """Every leg's media is with a worker."""
    ok = bool(addresses) and all(address in workers for address in addresses)
    return [Check("both legs' media is with a worker", ok, ", ".join(str(address) for address in addresses))]


def judge_record(story: CallStory) -> list[Check]:
    """The record tells the same: the cut, the answer, what the caller said, the transfer, the outcome."""
    agent = [turn for turn in story.turns if turn.who == "agent"]
    cut = [turn for turn in agent if turn.interrupted]
    lengths = "; ".join(f"heard {turn.heard_ms} of {turn.duration_ms} ms" for turn in cut)
    answer = next((turn for turn in agent if cut and turn.started_at > cut[0].started_at), None)
    outcomes = [f"{transfer.destination}: {transfer.outcome}" for transfer in story.transfers]
    answered = [transfer for transfer in story.transfers if transfer.outcome is TransferOutcome.ANSWERED]
    return [
        Check(
            "the record has the cut-off greeting", len(cut) == 1 and _was_cut(cut[0]), lengths or "no interrupted turn"
        ),
        Check(
            "the record has the answer, with the opening hours",
            answer is not None and any(word in answer.text.lower() for word in ("nine", "9")),
            answer.text if answer else "no turn after the interruption",
        ),
        _said(story, "opening hours"),
        _said(story, "sales"),
        Check("the record has the transfer to sales, answered", len(answered) == 1, "; ".join(outcomes) or "none"),
        Check(
            "the record says: transferred", story.call.outcome is Outcome.TRANSFERRED, f"outcome {story.call.outcome}"
        ),
    ]


def _was_cut(turn: TurnRecord) -> bool:
    return turn.heard_ms is not None and turn.heard_ms < turn.duration_ms


def _said(story: CallStory, words: str) -> Check:
    said = [turn.text for turn in story.turns if turn.who == "caller"]
    heard = next((text for text in said if words in text.lower()), "")
    return Check(f"the record has the caller's words “{words}”", bool(heard), heard or " / ".join(said) or "nothing")
