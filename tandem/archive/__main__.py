"""``python -m tandem.archive --config PATH --worker NAME``: the archive of one worker's recordings, which esl_app starts.

It ends with the recording at hand on SIGTERM or SIGINT, and where its standard input ends: with the esl_app that started it.
It gives way to whatever else wants the processor.
"""

import logging
import os
import signal
import sys
import threading

from tandem import entry
from tandem.archive import notes
from tandem.archive.archive import Archive
from tandem.records import Recorder

NICENESS = 15
RECORDS_S = 10.0

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
        notes.make(notes.incoming(settings.recordings.folder, arguments.worker))
        Archive(settings.recordings, arguments.worker, recorder.put, stop).run()
    except OSError as error:
        _log.error("no archive: %s", error)
        return 1
    finally:
        recorder.close(RECORDS_S)
    return 0


def _end_with_parent(stop: threading.Event) -> None:
    sys.stdin.buffer.read()
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
