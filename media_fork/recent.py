"""The caller's latest audio, kept for a model that takes over: what was said and not yet understood is heard again."""

from collections import deque
from collections.abc import Iterator
from typing import Final

TAIL: Final = 30
"""Events of 20 ms kept at any time: speech begins before it is noticed, and a pause goes before it."""
HELD: Final = 500
"""The same while something is not yet understood."""


class Recent:
    """One call's, as the events that they were sent in. ``held``: something in it is not yet understood."""

    __slots__ = ("_kept", "_most", "held")

    def __init__(self) -> None:
        self._kept: deque[bytes] = deque()
        self._most = TAIL
        self.held = False

    def add(self, append: bytes) -> None:
        """An input_audio_buffer.append, newest of all."""
        self._kept.append(append)
        if len(self._kept) > self._most:
            self._kept.popleft()

    def keep(self) -> None:
        """From the tail on nothing is forgotten, until it is too much or ``release``."""
        self._most = HELD

    def hold(self) -> None:
        """The caller speaks: ``keep``."""
        self.held = True
        self.keep()

    def release(self) -> None:
        """What was said is understood."""
        self.held = False
        self._most = TAIL
        while len(self._kept) > TAIL:
            self._kept.popleft()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._kept)
