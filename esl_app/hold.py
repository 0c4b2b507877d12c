"""The caller on hold: music instead of everything else that is said to them, and nobody hears what they say."""

from esl_app.fork import Fork
from esl_app.music import Music


class Hold:
    """Of the caller whose ``music`` and ``fork`` they are. Once the caller is gone there is nothing to be done."""

    def __init__(self, music: Music, fork: Fork) -> None:
        self._music = music
        self._fork = fork
        self._on = False

    def start(self) -> None:
        """Raises what Session's commands raise, but for music that cannot be played."""
        if not self._on:
            self._on = True
            self._fork.pause(True)
            self._music.start()

    def stop(self) -> None:
        """The caller hears, and is heard, as before."""
        if self._on:
            self._on = False
            self._music.stop()
            self._fork.pause(False)
