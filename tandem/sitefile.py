"""Files that are read by other programs: each is replaced as a whole, never seen half-written."""

import os
import stat
import tempfile
import time
from pathlib import Path

PUBLIC = 0o644
SECRET = 0o600


def write(path: Path, text: str, mode: int) -> None:
    """Replace a file as a whole, unless it is so already. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.stat() if path.exists() else None
    if before is not None and stat.S_IMODE(before.st_mode) == mode and path.read_text(encoding="utf-8") == text:
        return
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
        if before is not None:
            # Kamailio looks at whole seconds to see whether a table has changed.
            later = max(time.time(), int(before.st_mtime) + 1)
            os.utime(temporary, (later, later))
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
