"""Playout against a model of FreeSWITCH's output, in simulated time: what is said to be heard is what is heard."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media_fork.carriage import CARRIAGES
from media_fork.metrics import Counts
from media_fork.playout import Playout, Utterance
from tandem.seam import Codec
from tests.media.simulated import SimulatedClock, SwitchOutput

LEAD_MS = 200
BYTES_PER_MS = 8
LOUD = 0x10
"""A µ-law code that is not silence."""


class Rig:
    """A PCMU call's playout with a switch behind it."""

    def __init__(self, phase: float = 0.0, codec: Codec = Codec.PCMU) -> None:
        self.clock = SimulatedClock()
        self.switch = SwitchOutput(self.clock, CARRIAGES[codec].rate, phase)
        self.counts = Counts()
        self.first: list[str] = []
        self.heard: list[tuple[str, float]] = []
        self.kills = 0
        self.playout = Playout(CARRIAGES[codec], LEAD_MS, self.switch.send, self._kill, self, self.counts, self.clock)
        self.playout.prime()

    def _kill(self) -> None:
        self.kills += 1
        self.switch.kill()

    def on_first_audio(self, utterance: Utterance) -> None:
        self.first.append(utterance.item)

    def on_heard(self, utterance: Utterance) -> None:
        self.heard.append((utterance.item, self.clock.now()))

    def say(self, item: str, ms: int, complete: bool = True) -> Utterance:
        utterance = Utterance("resp", item, 0)
        self.playout.push(utterance, bytes([LOUD]) * ms * BYTES_PER_MS)
        if complete:
            self.playout.complete(utterance)
        return utterance

    @property
    def loud_ms(self) -> float:
        return np.count_nonzero(self.switch.heard) / 8


def test_an_utterance_is_heard_whole_once_and_without_gaps():
    rig = Rig()
    rig.clock.run_for(1)
    rig.say("a", 1234)
    rig.clock.run_for(3)
    loud = np.flatnonzero(rig.switch.heard)
    assert len(loud) == 1234 * 8
    assert loud[-1] - loud[0] + 1 == len(loud)
    assert rig.counts.underruns == rig.switch.starved == 0
    assert [item for item, _ in rig.heard] == ["a"]


def test_it_starts_with_the_next_frame_because_the_prebuffer_is_full_from_the_start():
    rig = Rig()
    rig.clock.run_for(1)
    frames = len(rig.switch.heard) // 160
    rig.say("a", 100)
    rig.clock.run_for(0.2)
    assert np.flatnonzero(rig.switch.heard)[0] == frames * 160


def test_never_further_ahead_of_the_ear_than_the_lead():
    rig = Rig()
    rig.clock.run_for(1)
    rig.say("a", 5000)
    most = 0
    for _ in range(1000):
        rig.clock.run_for(0.004)
        most = max(most, rig.switch.held)
    assert 1200 <= most <= LEAD_MS * 8


def test_short_utterances_are_heard_to_their_end_without_waiting_for_the_next():
    rig = Rig()
    rig.clock.run_for(1)
    rig.say("a", 30)
    rig.clock.run_for(0.5)
    assert rig.loud_ms == 30
    assert rig.switch.held == 0


def test_after_the_last_chunk_silence_pushes_out_what_the_switch_may_hold_back():
    rig = Rig()
    rig.clock.run_for(1)
    sent = rig.counts.chunks
    rig.say("a", 80)
    rig.clock.run_for(1)
    assert rig.counts.chunks - sent == 2
    assert rig.clock.idle or rig.playout.is_playing() is False


def test_utterances_follow_each_other_at_chunk_borders():
    rig = Rig()
    rig.clock.run_for(1)
    rig.say("a", 100)
    rig.say("b", 100)
    rig.clock.run_for(1)
    assert rig.first == ["a", "b"]
    assert [item for item, _ in rig.heard] == ["a", "b"]
    assert rig.loud_ms == 200


def test_cut_silences_the_switch_within_a_frame_and_leaves_nothing_behind():
    rig = Rig()
    rig.clock.run_for(1)
    rig.say("a", 3000)
    rig.clock.run_for(1)
    rig.playout.cut()
    before = rig.loud_ms
    rig.clock.run_for(2)
    assert rig.kills == 1
    assert rig.loud_ms == before
    assert rig.switch.held == 0
    rig.say("b", 240)
    rig.clock.run_for(1)
    assert rig.loud_ms == before + 240


def test_audio_right_after_a_cut_is_not_lost_to_the_kill():
    rig = Rig(phase=0.019)
    rig.clock.run_for(1)
    rig.say("a", 3000)
    rig.clock.run_for(1.0)
    rig.playout.cut()
    before = rig.loud_ms
    rig.say("b", 400)
    rig.clock.run_for(2)
    assert rig.loud_ms == before + 400


def test_cut_while_nothing_plays_kills_nothing():
    rig = Rig()
    assert rig.playout.cut() == []
    rig.clock.run_for(1)
    rig.say("a", 100)
    rig.clock.run_for(1)
    assert rig.playout.cut() == []
    assert rig.kills == 0


def test_cut_names_what_waits_too_and_gives_it_one_millisecond():
    rig = Rig()
    rig.clock.run_for(1)
    rig.say("a", 500)
    rig.say("b", 300)
    rig.clock.run_for(0.2)
    cuts = rig.playout.cut()
    assert [cut.utterance.item for cut in cuts] == ["a", "b"]
    assert (cuts[1].heard_ms, cuts[1].received_ms) == (1, 300)


@given(
    total=st.integers(1, 1500),
    after_ms=st.integers(0, 1600),
    phase=st.floats(0, 0.0199),
    bursts=st.lists(st.integers(1, 400), min_size=1, max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_heard_is_within_a_frame_of_what_the_switch_has_played(total, after_ms, phase, bursts):
    rig = Rig(phase)
    rig.clock.run_for(1)
    utterance = Utterance("resp", "a", 0)
    left = total
    for burst in bursts:
        part = min(left, burst)
        rig.playout.push(utterance, bytes([LOUD]) * part * BYTES_PER_MS)
        left -= part
    rig.playout.push(utterance, bytes([LOUD]) * left * BYTES_PER_MS)
    rig.playout.complete(utterance)
    rig.clock.run_for(after_ms / 1000)
    cuts = rig.playout.cut()
    heard = rig.loud_ms
    if cuts:
        (cut,) = cuts
        assert 1 <= cut.heard_ms <= cut.received_ms == total
        assert abs(cut.heard_ms - heard) <= 21
    else:
        assert total - heard <= 20
        assert [item for item, _ in rig.heard] == ["a"]


@given(st.lists(st.tuples(st.integers(1, 300), st.floats(0, 0.4)), min_size=1, max_size=12), st.floats(0, 0.0199))
@settings(max_examples=100, deadline=None)
def test_audio_in_any_pieces_at_any_pace_comes_out_whole_and_in_order(pieces, phase):
    rig = Rig(phase)
    rig.clock.run_for(1)
    utterance = Utterance("resp", "a", 0)
    codes = bytes(range(0x10, 0x70))
    sent = b""
    for ms, pause in pieces:
        part = bytes(codes[(len(sent) + index) % len(codes)] for index in range(ms * BYTES_PER_MS))
        rig.playout.push(utterance, part)
        sent += part
        rig.clock.run_for(pause)
    rig.playout.complete(utterance)
    rig.clock.run_for(10)
    expected = CARRIAGES[Codec.PCMU].from_model().decode(sent)
    heard = rig.switch.heard
    assert heard[np.flatnonzero(heard)].tobytes() == expected
    assert [item for item, _ in rig.heard] == ["a"]


def test_an_utterance_that_runs_dry_is_counted_and_goes_on():
    rig = Rig()
    rig.clock.run_for(1)
    utterance = rig.say("a", 80, complete=False)
    rig.clock.run_for(1)
    rig.playout.push(utterance, bytes([LOUD]) * 640)
    rig.playout.complete(utterance)
    rig.clock.run_for(1)
    assert rig.counts.underruns == 1
    assert rig.loud_ms == 160


def test_a_full_connection_pauses_playout_and_nothing_is_lost():
    rig = Rig()
    rig.clock.run_for(1)
    rig.playout.pause()
    rig.say("a", 400)
    rig.clock.run_for(1)
    assert rig.loud_ms == 0
    rig.playout.resume()
    rig.clock.run_for(1)
    assert rig.loud_ms == 400


def test_more_than_the_bound_is_dropped_and_counted():
    rig = Rig()
    utterance = Utterance("resp", "a", 0)
    for _ in range(400):
        rig.playout.push(utterance, bytes(8000))
    assert rig.counts.agent_bytes_dropped == 100 * 8000
    assert rig.playout.received_ms(utterance) == 300_000


@pytest.mark.parametrize("codec", [Codec.PCMU, Codec.PCMA, Codec.L16])
def test_every_chunk_is_whole_for_every_codec(codec):
    rig = Rig(codec=codec)
    carriage = CARRIAGES[codec]
    sizes = []
    rig.playout._send = lambda l16: sizes.append(len(l16))
    utterance = Utterance("resp", "a", 0)
    rig.playout.push(utterance, carriage.silence * (carriage.bytes_per_ms * 333))
    rig.playout.complete(utterance)
    rig.clock.run_for(2)
    assert set(sizes) == {80 * carriage.rate // 1000 * 2}
    assert len(sizes) == 6


def test_an_utterance_that_is_never_said_to_be_complete_does_not_hold_up_the_next():
    rig = Rig()
    rig.clock.run_for(1)
    first = rig.say("a", 100, complete=False)
    rig.say("b", 100)
    rig.clock.run_for(1)
    assert rig.loud_ms == 200
    assert [item for item, _ in rig.heard] == ["a", "b"]
    rig.playout.push(first, bytes(8))
    assert rig.counts.agent_bytes_dropped == 8


def test_an_empty_delta_begins_nothing():
    rig = Rig()
    rig.playout.push(Utterance("resp", "a", 0), b"")
    assert not rig.playout.is_playing()


def test_nothing_is_sent_or_told_after_close():
    rig = Rig()
    rig.clock.run_for(1)
    rig.say("a", 1000)
    rig.clock.run_for(0.2)
    (cut,) = rig.playout.close()
    assert 150 <= cut.heard_ms <= 210
    chunks = rig.counts.chunks
    rig.clock.run_for(5)
    assert rig.counts.chunks == chunks
    assert rig.heard == []
    assert rig.kills == 0
