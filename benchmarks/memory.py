"""Read how much memory processes use, and processor time.

PSS, not RSS: forked processes share most of their pages, and PSS divides a shared page by the
number of its users, so that the sum over all of them is what they use together.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from pathlib import Path

_PROC = Path("/proc")
_SETTLED = 0.01
_POLL_S = 0.3
_SETTLE_LIMIT_S = 20.0


def family(pid: int | None = None) -> list[int]:
    """Return a process (this one) and all its descendants."""
    children = defaultdict(list)
    for path in _PROC.glob("[0-9]*/stat"):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        parent = int(text[text.rindex(")") + 2 :].split()[1])
        children[parent].append(int(path.parent.name))
    found = [os.getpid() if pid is None else pid]
    for known in found:
        found.extend(children[known])
    return found


def pss(pid: int) -> int:
    """Return the bytes of a process: its own pages, and its share of the others."""
    return _rolled_up(pid, "Pss:")


def allocated(pid: int) -> int:
    """Return the bytes of a process that are of no file: what it has allocated.

    Unlike `pss` it does not shrink when another process maps the same libraries.
    """
    return _rolled_up(pid, "Anonymous:")


def _rolled_up(pid: int, key: str) -> int:
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text(encoding="utf-8")
    except OSError:
        return 0
    lines = [line.split() for line in text.splitlines()]
    return next(int(words[1]) << 10 for words in lines if words[0] == key)


def settled_pss() -> int:
    """Return the bytes of this process and its descendants once they have stopped changing."""
    limit = time.monotonic() + _SETTLE_LIMIT_S
    last, now = 0, _total()
    while abs(now - last) > _SETTLED * now and time.monotonic() < limit:
        time.sleep(_POLL_S)
        last, now = now, _total()
    return now


def _total() -> int:
    return sum(map(pss, family()))


def processor_ns() -> int:
    """Return the processor time of this process and its descendants, all threads, so far."""
    total = 0
    for pid in family():
        for path in (_PROC / str(pid)).glob("task/*/schedstat"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                total += int(path.read_text(encoding="utf-8").split()[0])
    return total
