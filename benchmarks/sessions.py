"""Signals to all processes of a session, whatever groups they have formed in it."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def signal_session(leader: int, number: int, *, spared: int = 0) -> None:
    """Send a signal to what is left of a session, but to none of process `spared`."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            pid = int(path.parent.name)
            if int(fields[3]) == leader and pid != spared:
                os.kill(pid, number)
        except (OSError, ValueError):  # it has ended meanwhile
            continue


@contextmanager
def parked() -> Iterator[None]:
    """Stop all others of this process's session for as long as the block takes.

    What is measured meanwhile is to have the processors: an idle compiled graph of Ray's takes one.
    This process goes on, so that they go on whatever becomes of whoever started it.
    """
    me, session = os.getpid(), os.getsid(0)
    signal_session(session, signal.SIGSTOP, spared=me)
    try:
        yield
    finally:
        signal_session(session, signal.SIGCONT, spared=me)
