"""esl_app as it is, that tells on SIGUSR1 how many greenlets it has: in the file that WALK_GREENLETS names."""

import gc
import os
import signal
import sys
from pathlib import Path

import gevent
from greenlet import greenlet

from esl_app.__main__ import main


def tell() -> None:
    gc.collect()
    alive = sum(isinstance(found, greenlet) and not found.dead for found in gc.get_objects())
    told = Path(os.environ["WALK_GREENLETS"])
    told.with_suffix(".new").write_text(str(alive))
    told.with_suffix(".new").rename(told)


if __name__ == "__main__":
    gevent.signal_handler(signal.SIGUSR1, tell)
    sys.exit(main())
