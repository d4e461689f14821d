"""Messages of one rank to another, or from it: `send` and `recv`, one after the other.

What goes wrong with one end's tensor is told at both, and the group goes on; an end that does not
come, leaves or is interrupted breaks it, as with operations of all ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from collective.lane import Lane
from collective.pairs import End, LeftError, RefusedError
from collective.record import describe, mismatch_text
from collective.standing import BrokenError, Noted, Standing
from compiled_dag.errors import ChannelClosedError, CollectiveError, CollectiveMismatchError

if TYPE_CHECKING:
    import torch

    from compiled_dag.shm.segment import Segment


class Courier:
    """One way: to a peer, or from it."""

    def __init__(self, standing: Standing, pairs: Segment, peer: int, *, sends: bool) -> None:
        """Open the way.

        Args:
            standing: This rank in its group.
            pairs: The memory between two ranks each.
            peer: The other rank.
            sends: Whether this one sends.
        """
        part = standing.part
        source, target = (part.rank, peer) if sends else (peer, part.rank)
        self.text = f"send(dst_rank={peer})" if sends else f"recv(src_rank={peer})"
        self.lane = Lane(f"group {part.name!r}, rank {source} to {target}")
        self.noted = Noted(standing.home, standing.header, part, peer)
        self._standing = standing
        self._ranks = (source, target)
        self._peer = peer
        self._sends = sends
        self._end = End(pairs, standing.header, source, target, sends=sends)

    def carry(self, tensor: torch.Tensor | None, error: Exception | None) -> None:
        """Send or receive a tensor, or say at the other end why not, and raise that."""
        standing, text = self._standing, self.text
        deadline = standing.begin(text)
        try:
            met = self._meet(tensor, error, deadline)
            if met is None and tensor is not None:
                self._move(tensor, deadline)
        except TimeoutError:
            standing.fail(standing.late(text, [self._peer]))
        except LeftError:
            standing.fail(standing.left(text, [self._peer]))
        except BrokenError as broken:
            standing.fail(broken.error)
        except ChannelClosedError:
            raise standing.ended(text) from None
        except CollectiveError:
            raise
        except BaseException:
            standing.interrupted(text)
            raise
        if error is not None:
            raise error
        if met is not None:
            raise self._unlike(met)

    def _meet(
        self, tensor: torch.Tensor | None, error: Exception | None, deadline: float
    ) -> tuple[bytes, bytes] | None:
        """Meet the other rank, and compare."""
        standing = self._standing
        record = b"" if tensor is None else describe("message", tensor)
        reason = "" if error is None else f"{type(error).__name__}: {error}"
        try:
            return self._end.meet(record, reason, standing.home.waiter, standing.look, deadline)
        except RefusedError as refused:
            if error is not None:
                return None
            who = standing.name(self._peer)
            raise CollectiveError(f"{standing.of(self.text)}: {who} cannot: {refused}") from None

    def _move(self, tensor: torch.Tensor, deadline: float) -> None:
        if not tensor.numel():
            return
        standing = self._standing
        data = tensor.resolve_conj().resolve_neg().cpu().contiguous()
        self._end.move(_bytes(data), standing.home.waiter, standing.look, deadline)
        if not self._sends and data.data_ptr() != tensor.data_ptr():
            tensor.copy_(data)

    def _unlike(self, met: tuple[bytes, bytes]) -> CollectiveMismatchError:
        labels = self._standing.part.labels
        names = [
            (labels[rank], does)
            for rank, does in zip(self._ranks, ("sends", "receives"), strict=True)
        ]
        what = self._standing.of(self.text)
        text = mismatch_text(what, met, names, ("actor", ""), ranks=self._ranks)
        return CollectiveMismatchError(text)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous tensor as its bytes."""
    import torch  # noqa: PLC0415  there is a tensor

    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)
