"""A group's ranks on threads of this process, each with its own mapping, as processes have."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from collective.header import GroupHeader
from compiled_dag.shm.board import Board, Doorbell
from compiled_dag.shm.segment import Segment
from compiled_dag.shm.waiter import Waiter

PATIENCE_S = 120


class Ranks:
    """Headers and waiters of all ranks."""

    def __init__(self, count: int, backend_bytes: int = 0) -> None:
        segment = Board.create()
        self.board = Board(segment.fd)
        segment.close()
        made = Segment(-1)
        GroupHeader.allocate(made, count, backend_bytes=backend_bytes)
        lines = tuple(range(1, count + 1))
        self.headers = [
            GroupHeader(Segment(os.dup(made.fd)), count, self.board, lines) for _ in range(count)
        ]
        made.close()
        self.waiters = [Waiter(Doorbell(self.board, line)) for line in lines]

    def close(self) -> None:
        for header in self.headers:
            header.close()


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Run all works at once, a thread each; return what they return or raise."""
    results: list[Any] = [None] * len(works)

    def run(number: int) -> None:
        try:
            results[number] = works[number]()
        except BaseException as error:
            results[number] = error

    threads = [
        threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(works))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "it never returned"
    return results
