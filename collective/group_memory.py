"""The memory of one eager group, as the driver has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collective import header as head
from collective.cuda_area import Area
from collective.header import GroupHeader
from collective.pairs import allocate_pairs
from compiled_dag.shm.segment import Segment

if TYPE_CHECKING:
    from compiled_dag.shm.board import Board


class GroupMemory:
    """The header of a group, and what is between two of its ranks. Owns two descriptors.

    It has nothing until `open`: whoever is to close it can have it, and be known, before there is
    anything to close. What Ctrl-C leaves of `open`, on any line, is in here.
    """

    def __init__(self) -> None:
        self._header_segment = Segment(-1)
        self._pairs = Segment(-1)
        self._header: GroupHeader | None = None
        self._area: Area | None = None

    def open(self, board: Board, lines: tuple[int, ...], *, nbytes: int, shares_gpu: bool) -> None:
        """Make and map it, once.

        Args:
            board: The session's board.
            lines: Board line of each rank.
            nbytes: How much the backend uses.
            shares_gpu: Whether that begins with a `cuda_area.Area`.

        Raises:
            MemoryCapError: The kernel refuses it.
        """
        allocate_pairs(self._pairs, len(lines))
        GroupHeader.allocate(self._header_segment, len(lines), nbytes)
        header = GroupHeader(self._header_segment, len(lines), board, lines)
        self._area = Area(header) if shares_gpu else None
        self._header = header

    @property
    def header(self) -> GroupHeader:
        """The mapping of the header; there is one from `open` on, after `close` too."""
        assert self._header is not None, "the group's memory has not been made"
        return self._header

    @property
    def refusal(self) -> str:
        """Why its ranks do not share a GPU's memory; empty if they do, or were not to."""
        return self._area.refusal if self._area is not None else ""

    @property
    def fds(self) -> tuple[int, int]:
        """Descriptors for the ranks: the header, and the memory between two of them."""
        return self._header_segment.fd, self._pairs.fd

    @property
    def is_closed(self) -> bool:
        """Whether it has no descriptors: not yet, or not any more."""
        return self.fds == (-1, -1)

    def end(self, state: int) -> None:
        """Stop the group and wake its ranks; before `open` it has none."""
        if self._header is not None:
            self._header.end(state)

    def close(self) -> None:
        """End the group, and give its memory back. Idempotent; finishes what Ctrl-C broke off."""
        if self._header is not None and self._header.state == head.OPEN:
            self._header.end(head.CLOSED)
        self._header_segment.close()
        self._pairs.close()
