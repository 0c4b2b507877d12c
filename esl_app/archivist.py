"""Sees to it that the archive of this worker's recordings runs: a process of its own, started anew where it dies."""

import contextlib
import logging
import subprocess
import sys
from pathlib import Path

import gevent
from gevent import get_hub

from esl_app.metrics import ARCHIVE_ENDS, RECORDINGS_WAITING
from tandem.archive import notes
from tandem.recording import Recordings

LOOK_S = 1.0
RETRY_S = (1.0, 60.0)
"""First and longest pause before it is started again; doubled each time that it dies within a minute."""
STOP_S = 5.0
"""For the recording at hand; the archive goes on by itself where it takes longer."""

_log = logging.getLogger(__name__)


class Archivist:
    """``config``: what the archive is to read. Nothing is started where there is no key to encrypt with."""

    def __init__(self, recordings: Recordings, worker: str, config: Path | None) -> None:
        self._incoming = notes.incoming(recordings.folder, worker)
        self._argv = [sys.executable, "-m", "tandem.archive", "--config", str(config), "--worker", worker]
        self._wanted = config is not None and bool(recordings.recipients or recordings.identity)
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        if self._wanted:
            self._keeper = gevent.spawn(self._keep)

    def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.kill()
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        process.terminate()
        with contextlib.suppress(gevent.Timeout), gevent.Timeout(STOP_S):
            while process.poll() is None:
                gevent.sleep(0.05)

    def _keep(self) -> None:
        pause = RETRY_S[0]
        while True:
            try:
                self._process = process = subprocess.Popen(self._argv, stdin=subprocess.PIPE)
            except OSError as error:
                _log.error("the archive of recordings cannot be started: %s", error)
                gevent.sleep(pause)
                continue
            lasted_s = 0.0
            while process.poll() is None:
                RECORDINGS_WAITING.set(get_hub().threadpool.apply(self._waiting))
                gevent.sleep(LOOK_S)
                lasted_s += LOOK_S
            ARCHIVE_ENDS.inc()
            pause = RETRY_S[0] if lasted_s > RETRY_S[1] else min(pause * 2, RETRY_S[1])
            _log.error("the archive of recordings ended with %s; again in %g s", process.returncode, pause)
            gevent.sleep(pause)

    def _waiting(self) -> int:
        return sum(1 for _ in self._incoming.glob(f"*{notes.SUFFIX}"))
