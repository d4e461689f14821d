"""What ranks do their operations with: one rank's end of a process group, whatever the backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from compiled_dag.outcome import Error

BITWISE: Final = ("BAND", "BOR", "BXOR")


class Work(Protocol):
    """An operation under way."""

    def wait(self, deadline: float | None = None, /) -> object:
        """Finish it.

        Raises:
            RuntimeError: It failed.
            TimeoutError: It has not ended by `deadline` (`time.monotonic`), where that can be known
                without its end: the group cannot be used any more.
        """
        ...


class OperationError(Exception):
    """An operation has failed on a rank, and the group goes on."""

    def __init__(self, failure: Exception | Error, *, everywhere: bool) -> None:
        """Tell.

        Args:
            failure: What was raised here, or on the rank that the error names.
            everywhere: Whether it fails on all ranks, which all raise this; where it does not, the
                others have their results.
        """
        super().__init__(str(failure))
        self.failure = failure
        self.everywhere = everywhere


class Shortcut(Protocol):
    """An operation on tensors of one dtype and shape, which takes no memory and no plans."""

    def lay(self, value: Any, /) -> bool:
        """Stage a value before the ranks meet; False, and nothing done, if it looks different."""
        ...

    def take(self, value: torch.Tensor, /) -> torch.Tensor | None:
        """Return this rank's result once they have met and bring the same; AVG is divided.

        `value` is what was laid.
        """
        ...


class ProcessGroup(Protocol):
    """One rank's end.

    An operation is `stage`, on ranks that bring something; then the ranks meet (`Preflight`); then
    `run`, if all bring what goes together, and `Work.wait`. A rank may start several before it
    waits for the first.
    """

    backend: str
    in_place: bool
    """Whether allreduce, reduce and broadcast work on the memory of the result alone: then what a
    rank brings is copied there, and nothing is staged."""

    def why_not(self, tensor: torch.Tensor, op: str) -> str | None:
        """Return why this backend cannot reduce `tensor` with `op`, or None."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, device: Any) -> torch.Tensor:
        """Return contiguous memory that this backend can use, for tensors of `device`."""
        ...

    def stage(self, kind: str, tensor: torch.Tensor, op: str | None, root: int, /) -> torch.Tensor:
        """Make what this rank brings ready; returns what `run` is to be given as `send`.

        Others may come to nothing: then `run` is not called.

        Raises:
            RuntimeError: No memory: this rank brings that error instead.
        """
        ...

    def run(
        self,
        kind: str,
        send: torch.Tensor | None,
        receive: torch.Tensor | None,
        *,
        op: str | None,
        root: int,
    ) -> Work | None:
        """Start an operation; returns what finishes it, or None if it has finished.

        AVG sums: the caller divides, here as for all backends.

        Args:
            kind: Name of the operation.
            send: What `stage` returned; None on ranks that bring nothing.
            receive: Contiguous memory of the kind that `empty` makes, which may be a piece of a
                larger one, or of the user's; None on ranks that get nothing.
            op: How to reduce, if the operation does.
            root: The special rank, if it has one.

        Raises:
            OperationError: It failed; the group goes on.
            RuntimeError: It failed; the group is of no use any more.
            ChannelClosedError: The driver has ended the group.
        """
        ...

    def shortcut(
        self,
        kind: str,
        tensor: torch.Tensor,
        op: str | None,
        root: int,
        shape_of_result: tuple[int, ...] | None,
        /,
    ) -> Shortcut | None:
        """Return a quicker way for tensors that look like this one, if there is one.

        On another rank the same operation may go its usual way.
        """
        ...

    def abort(self) -> None:
        """Give the group up, waking peers that wait for this rank."""
        ...


class PairGroup(Protocol):
    """A process group whose ranks also send to each other."""

    in_host_memory: bool
    """Whether only tensors in host memory can be sent."""

    def exchange(
        self,
        sends: Sequence[tuple[torch.Tensor, int]],
        receives: Sequence[tuple[torch.Tensor, int]],
    ) -> None:
        """Send tensors of bytes to ranks, and receive into others, in one go; in any order.

        Raises:
            RuntimeError: It failed; the group is of no use any more.
            ChannelClosedError: The driver has ended the group.
        """
        ...

    def marks(self, numbers: list[int]) -> torch.Tensor:
        """Return bytes that can be sent."""
        ...

    def settle(self) -> None:
        """Wait until all that was begun is done; raises as `exchange` does."""
        ...


def why_not_op(tensor: torch.Tensor, op: str) -> str | None:
    """Return why no backend can reduce `tensor` with `op`, or None."""
    if op == "AVG" and not (tensor.is_floating_point() or tensor.is_complex()):
        return f"AVG of {tensor.dtype} is not defined: reduce with SUM, or convert to a float"
    if op in BITWISE and (tensor.is_floating_point() or tensor.is_complex()):
        return f"{op} of {tensor.dtype} is not defined: only of integers and booleans"
    if op in ("MAX", "MIN") and tensor.is_complex():
        return f"{op} of {tensor.dtype} is not defined: complex numbers have no order"
    if op == "PRODUCT" and tensor.is_complex():
        return f"{op} of {tensor.dtype} is not supported: use SUM or AVG, or transport='shm'"
    return None
