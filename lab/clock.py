"""The lab's clock: Unix time that never steps back, so that SIP, RTP and captures share one time line."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Unix time in seconds."""

_OFFSET = time.time() - time.monotonic()


def now() -> float:
    """Unix time in seconds as it was at start-up, carried on by the monotonic clock."""
    return _OFFSET + time.monotonic()
