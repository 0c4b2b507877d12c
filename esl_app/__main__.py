"""``python -m esl_app --config PATH --worker NAME``: the control plane of one worker. SIGTERM drains, a second one hurries."""

import logging
import signal
import sys

import gevent

from esl_app.server import Server
from tandem import entry
from tandem.records import Recorder

RECORDS_S = 10.0
"""Given to the last records to reach the database; what does not stays in the spool for the next process."""

FILES_PER_CALL = 2
"""The event socket, and a request to media_fork."""
OTHER_FILES = 128


def main() -> int:
    arguments = entry.command_line("esl_app", "The control plane of one worker.").parse_args()
    settings = entry.begin("esl_app", arguments)
    entry.allow_files(FILES_PER_CALL * settings.workers[arguments.worker].max_calls + OTHER_FILES)
    recorder = Recorder(settings.records, arguments.worker, "esl_app")
    server = Server(settings, arguments.worker, recorder, arguments.config)
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, server.drain)
    try:
        server.run()
    except OSError as error:
        logging.getLogger("esl_app").error("cannot listen: %s", error)
        return 1
    finally:
        gevent.get_hub().threadpool.apply(recorder.close, (RECORDS_S,))
    return 0


if __name__ == "__main__":
    sys.exit(main())
