"""Until it is known who answered the agent says nothing, and a voicemail is found out late as well."""

import numpy as np
import pytest

from bench.answers.recordings import tone
from lab.voice import speak
from media_fork.answering import Answering
from tandem.seam import WhoAnswered


class Line:
    def __init__(self) -> None:
        self.told: list[WhoAnswered] = []
        self.greeted = 0
        self.answering = Answering(8000, self.told.append, self._greet)

    def _greet(self) -> None:
        self.greeted += 1

    def hears(self, *parts: np.ndarray) -> None:
        l16 = np.concatenate(parts).astype("<i2").tobytes()
        for start in range(0, len(l16), 333):  # cut anywhere, within samples too
            self.answering.hear(l16[start : start + 333])


@pytest.fixture
def line() -> Line:
    return Line()


def still(seconds: float) -> np.ndarray:
    return np.zeros(round(8000 * seconds), np.int16)


def beep(ms: int = 400) -> np.ndarray:
    return (tone(1000, ms) * 32767).astype(np.int16)


def test_a_human_is_greeted_once(line):
    line.hears(still(0.3), speak("Hello?", "caller"), still(0.2))
    assert line.answering.holding and not line.told
    line.hears(still(1.0), speak("Hello, who is there?", "caller"), still(2.0))
    assert [(told.who.value, told.rule.value) for told in line.told] == [("human", "brief_speech")]
    assert line.greeted == 1 and not line.answering.holding


def test_a_machine_is_told_and_not_greeted(line):
    line.hears(still(0.3), beep(), still(2.0))
    assert [(told.who.value, told.ready) for told in line.told] == [("machine", True)]
    assert line.greeted == 0 and line.answering.holding


def test_what_esl_app_wants_said_ends_the_wait(line):
    line.answering.release()
    line.answering.release()
    assert line.greeted == 1 and not line.answering.holding


def test_the_agent_finds_a_machine_and_its_beep_is_still_heard(line):
    line.hears(still(0.3), speak("Hello?", "caller"), still(1.5))
    line.answering.agent_says_machine()
    line.hears(still(0.5), beep(), still(0.5))
    assert [(told.who.value, told.rule.value, told.ready) for told in line.told] == [
        ("human", "brief_speech", False),
        ("machine", "agent", False),
        ("machine", "beep", True),
    ]


def test_a_human_is_listened_to_for_a_beep_for_a_while_only(line):
    line.hears(still(0.3), speak("Hello?", "caller"), still(32), beep(), still(1))
    assert [told.who.value for told in line.told] == ["human"]
