"""Who answered: the rules, and how often they err on the made recordings (bench/answers, docs/outbound.md)."""

import numpy as np
import pytest

from bench.answers.measure import Judged, judge
from bench.answers.recordings import RATE, recordings, tone
from lab.voice import speak
from media_fork.answer import Detector, Verdict
from tandem.outcome import Answerer, AnswerRule


@pytest.fixture(scope="module")
def judged() -> list[Judged]:
    return [judge(recording) for recording in recordings()]


def test_the_set_has_at_least_sixty_recordings(judged):
    assert len(judged) >= 60
    assert len({one.recording.name + one.recording.set for one in judged}) == len(judged)


@pytest.mark.parametrize(
    ("who", "wrong"), [(Answerer.HUMAN, 3), (Answerer.MACHINE, 0), (Answerer.FAX, 0), (Answerer.SILENCE, 1)]
)
def test_false_verdicts_stay_as_few_as_the_page_says(judged, who, wrong):
    false = [str(one) for one in judged if one.recording.who is who and not one.right]
    assert len(false) <= wrong, false


def test_people_are_known_soon_after_they_stop_speaking(judged):
    after = sorted(one.first.after_ms for one in judged if one.recording.who is Answerer.HUMAN and one.right)
    assert after[len(after) // 2] < 2200


def test_a_message_is_never_left_before_the_beep_is_over(judged):
    late = [one.late_ms for one in judged if one.recording.who is Answerer.MACHINE and one.recording.beep_over_ms]
    assert None not in late
    assert min(late) >= 0 and max(late) <= 200


def _verdicts(*parts: np.ndarray, rate: int = RATE, frame_ms: int = 20) -> list[Verdict]:
    line = np.concatenate(parts)
    detector = Detector(rate)
    size = rate * frame_ms // 1000
    return [verdict for start in range(0, len(line), size) for verdict in detector.feed(line[start : start + size])]


def _still(seconds: float, rate: int = RATE) -> np.ndarray:
    return np.zeros(round(rate * seconds), dtype=np.int16)


def _tone(hz: float, ms: int) -> np.ndarray:
    return (tone(hz, ms) * 32767).astype(np.int16)


def test_wideband_is_judged_as_narrowband_is():
    said = speak("Hello?", "caller", 16000)
    assert [verdict.who for verdict in _verdicts(_still(0.4, 16000), said, _still(2, 16000), rate=16000)] == [
        Answerer.HUMAN
    ]


def test_how_the_audio_is_cut_into_frames_changes_nothing():
    parts = (_still(0.4), speak("Hello, who is this?", "caller"), _still(2))
    assert _verdicts(*parts, frame_ms=20) == _verdicts(*parts, frame_ms=470)


def test_a_human_who_beeps_is_a_machine_after_all():
    verdicts = _verdicts(_still(0.3), speak("Hello.", "sales"), _still(1.5), _tone(1000, 300), _still(1))
    assert [(verdict.who, verdict.ready) for verdict in verdicts] == [
        (Answerer.HUMAN, False),
        (Answerer.MACHINE, True),
    ]


def test_keys_and_ringing_are_no_beeps():
    dtmf = (_tone(697, 300) // 2) + (_tone(1209, 300) // 2)
    ringing = (_tone(440, 900) // 2) + (_tone(480, 900) // 2)
    verdicts = _verdicts(_still(0.5), dtmf, _still(0.5), ringing, _still(5))
    assert AnswerRule.BEEP not in [verdict.rule for verdict in verdicts]


def test_a_click_is_no_beep():
    verdicts = _verdicts(_still(0.5), _tone(1000, 60), _still(6))
    assert [verdict.who for verdict in verdicts] == [Answerer.SILENCE]
