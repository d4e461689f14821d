"""A user's communicator, as collectives use a group.

Ranks of an operation are positions in its list of nodes; the communicator has ranks of its own for
the same actors. Where the order matters, chunks are put into the other order on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from collective.ops import ReduceOp
from collective.process_group import why_not_op

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.communicators import CommunicatorEnd


class CommunicatorGroup:
    """One rank's end; the graph owns the communicator itself."""

    backend = "the user's communicator"
    in_place = True

    def __init__(self, end: CommunicatorEnd, ranks: Sequence[int]) -> None:
        """Wrap a copy.

        Args:
            end: This actor's copy.
            ranks: The communicator's rank of each position.
        """
        self._end = end
        self._ranks = tuple(ranks)
        self._is_ordered = self._ranks == tuple(range(len(self._ranks)))

    def why_not(self, tensor: torch.Tensor, op: str) -> str | None:
        """Return why `tensor` cannot be reduced with `op`, or None."""
        return why_not_op(tensor, op)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, device: Any) -> torch.Tensor:
        """Return contiguous memory where the tensors are."""
        return torch.empty(shape, dtype=dtype, device=device)

    def stage(self, _kind: str, tensor: torch.Tensor, _op: str | None, _root: int) -> torch.Tensor:
        """Return `tensor`, contiguous."""
        return tensor.resolve_conj().resolve_neg().contiguous()

    def run(
        self,
        kind: str,
        send: torch.Tensor | None,
        receive: torch.Tensor | None,
        *,
        op: str | None,
        root: int,
    ) -> None:
        """Do an operation.

        Raises:
            RuntimeError: It failed, now or earlier.
        """
        end = self._end
        if end.failure is not None:
            raise RuntimeError(end.failure)
        try:
            self._run(kind, send, receive, op, self._ranks[root])
        except Exception as error:
            end.failure = f"{kind} raised {type(error).__name__}: {error}"
            raise RuntimeError(end.failure) from error

    def _run(self, kind: str, send: Any, receive: Any, op: str | None, root: int) -> None:
        method = getattr(self._end.communicator, kind)
        reduce_op = ReduceOp.SUM if op == "AVG" else op and ReduceOp[op]
        match kind:
            case "allreduce":
                _on_one(receive, lambda sent, got: method(sent, got, reduce_op))
            case "reduce":
                _on_one(receive, lambda sent, got: method(sent, got, root, reduce_op))
            case "broadcast":
                _on_one(receive, lambda sent, got: method(sent, got, root))
            case "allgather":
                method(send, receive)
                self._to_positions(receive)
            case "gather":
                method(send, receive, root)
                self._to_positions(receive)
            case "reducescatter":
                method(self._to_ranks(send), receive, reduce_op)
            case "scatter":
                method(self._to_ranks(send), receive, root)
            case "all_to_all":
                method(self._to_ranks(send), receive)
                self._to_positions(receive)
            case _:
                msg = f"no operation {kind!r}"
                raise AssertionError(msg)

    def _to_ranks(self, tensor: torch.Tensor | None) -> torch.Tensor | None:
        """Return a tensor of one chunk per position with the chunks by the communicator's rank."""
        if tensor is None or self._is_ordered:
            return tensor
        chunks = tensor.reshape(len(self._ranks), -1)
        moved = torch.empty_like(chunks)
        moved[list(self._ranks)] = chunks
        return moved.reshape(tensor.shape)

    def _to_positions(self, tensor: torch.Tensor | None) -> None:
        """Put the chunks of a result, which are by the communicator's rank, by position."""
        if tensor is not None and not self._is_ordered:
            chunks = tensor.view(len(self._ranks), -1)
            chunks.copy_(chunks[list(self._ranks)])

    def shortcut(self, *_looks: Any) -> None:
        """Return None: there is none."""

    def abort(self) -> None:
        """Do nothing: the communicator is destroyed with its graph."""


def _on_one(buffer: torch.Tensor, operate: Callable[[torch.Tensor, torch.Tensor], None]) -> None:
    """Have an operation with two tensors work on one."""
    result = torch.empty_like(buffer)
    operate(buffer, result)
    buffer.copy_(result)
