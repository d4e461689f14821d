"""A gate in the file system: one process waits at it, another one opens it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path


class Gate:
    """Closed at first. Travels by pickle."""

    def __init__(self):
        self.path = str(Path(tempfile.mkdtemp(prefix="differential-gate"), "open"))

    def open(self):
        """Let everybody pass, now and later."""
        Path(self.path).touch()

    def wait(self):
        """Wait until it is open."""
        while not Path(self.path).exists():
            time.sleep(0.01)

    def remove(self):
        """Leave nothing behind."""
        Path(self.path).unlink(missing_ok=True)
        Path(self.path).parent.rmdir()
