"""Memory and sockets that tests of what is sent between processes hold themselves."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

from runtime import wire
from runtime.warm import capacity_for


def segment(nbytes: int) -> int:
    """Return the descriptor of memory as large as a kept one for `nbytes` is."""
    fd = os.memfd_create("test")
    os.ftruncate(fd, capacity_for(nbytes))
    return fd


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def received(inbox: wire.Inbox) -> list[Any]:
    """Return all messages that are there."""
    into: deque[Any] = deque()
    while inbox.receive(into):
        pass
    return list(into)
