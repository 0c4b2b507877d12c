"""``python -m tandem.archive --config PATH --worker NAME``: the archive of one worker's recordings, which esl_app starts.

On SIGTERM or SIGINT, and where its standard input ends (with the esl_app that started it), it seals what has ended by then, and
ends. The next one waits for that. It gives way to whatever else wants the processor.
"""

import contextlib
import fcntl
import logging
import os
import signal
import sys
import threading
from typing import TextIO

from tandem import entry
from tandem.archive import notes
from tandem.archive.archive import Archive
from tandem.records import Recorder

NICENESS = 15
RECORDS_S = 10.0
LOOK_S = 0.2

_log = logging.getLogger(__name__)


def main() -> int:
    arguments = entry.command_line("tandem.archive", "The archive of one worker's recordings.").parse_args()
    settings = entry.begin("archive", arguments)
    os.nice(NICENESS)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=_end_with_parent, args=(stop,), daemon=True).start()
    recorder = Recorder(settings.records, arguments.worker, "archive")
    try:
        folder = notes.incoming(settings.recordings.folder, arguments.worker)
        notes.make(folder)
        with (folder / "lock").open("w") as lock:
            if _locked(lock, stop):
                Archive(settings.recordings, arguments.worker, recorder.put, stop).run()
    except OSError as error:
        _log.error("no archive: %s", error)
        return 1
    finally:
        recorder.close(RECORDS_S)
    return 0


def _locked(lock: TextIO, stop: threading.Event) -> bool:
    """Once no other archive of this worker runs. False where this one is to end before."""
    while not stop.is_set():
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        stop.wait(LOOK_S)
    return False


def _end_with_parent(stop: threading.Event) -> None:
    sys.stdin.buffer.read()
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
