"""Communicators that tests give to graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compiled_dag import Communicator

if TYPE_CHECKING:
    from collections.abc import Sequence


class Bare(Communicator):
    """Knows its members and can do nothing."""

    def __init__(self, actors: Sequence[Any], name: str = "accelerator") -> None:
        self._actors = list(actors)
        self._name = name
        self._rank: int | None = None

    def initialize(self, rank: int) -> None:
        self._rank = rank

    def get_actor_handles(self) -> list[Any]:
        return self._actors

    def get_rank(self, actor: Any) -> int:
        if actor not in self._actors:
            raise ValueError(f"{actor!r} is no member")
        return self._actors.index(actor)

    def get_self_rank(self) -> int | None:
        return self._rank

    def destroy(self) -> None:
        pass

    def get_transport_name(self) -> str:
        return self._name


class PaperCommunicator(Bare):
    """One that claims to send, receive and reduce, for graphs that never run."""

    def send(self, value: Any, peer_rank: int) -> None:
        raise AssertionError

    def recv(self, shape: Any, dtype: Any, peer_rank: int, allocator: Any = None) -> Any:
        raise AssertionError

    def allreduce(self, send_buf: Any, recv_buf: Any, op: Any) -> None:
        raise AssertionError
