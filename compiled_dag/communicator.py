"""`Communicator`: what users implement to move tensors between actors in a way of their own.

No code of ours but defaults. The docstrings are the contract; `compiled_dag.communicators` and
`collective` are what calls it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    import torch

TensorAllocator: TypeAlias = Callable[[tuple[int, ...], "torch.dtype"], "torch.Tensor"]
"""Makes the tensor that is received into, from shape and dtype."""

HOST_TRANSPORT: Final = "cpu"
"""Transport name of communicators that leave values between two actors to host memory."""


class Communicator(ABC):
    """Send, receive and reduce tensors among a fixed set of actors.

    Give one to ``node.with_tensor_transport(transport=...)``, to a collective's ``transport``, or
    to ``experimental_compile(_default_communicator=...)``.

    Life: the object is made in the driver and never used there but for `get_actor_handles`,
    `get_rank`, `get_world_size` and `get_transport_name`. Compiling a graph sends one copy to each
    of its actors (so it must pickle) and calls `initialize` on it, once, on all actors at about the
    same time: it may wait for the others there. However many nodes of the graph name the object,
    each actor has one copy of it. Tearing the graph down calls `destroy` on those copies, and on
    nothing else; another graph has copies of its own.

    Use: all methods are called on the actor's main thread, one at a time. Ranks call in one order:
    if rank 0 sends to 1 and then to 2, nobody waits for anything before that is done. A send is
    called when its receiver is about to receive, so it may wait for it.

    Failure: an operation that cannot be finished raises, whatever it likes, *on every rank that
    takes part in it*; in particular it must notice that a peer's process has ended, which closes
    all its pipes and sockets. Whoever waits for a rank that will not come waits for ever. After it
    has raised, the communicator of that graph is not used again.

    Methods that are not overridden are operations it does not have: needing one is an error at
    compile. The rest is abstract.
    """

    # --- who takes part

    @abstractmethod
    def initialize(self, rank: int) -> None:
        """Get ready, in an actor's process, as `rank`. May wait for the other ranks.

        One that raises leaves nothing behind: `destroy` is not called after it.
        """

    @abstractmethod
    def get_actor_handles(self) -> list[Any]:
        """Return the handles of all members."""

    @abstractmethod
    def get_rank(self, actor: Any) -> int:
        """Return the rank of a member: 0 to `get_world_size` - 1, each once.

        Raises:
            ValueError: `actor` is no member.
        """

    @abstractmethod
    def get_self_rank(self) -> int | None:
        """Return the rank given to `initialize`; None before."""

    def get_world_size(self) -> int:
        """Return how many members there are."""
        return len(self.get_actor_handles())

    @abstractmethod
    def destroy(self) -> None:
        """Give everything back. What it raises is logged."""

    @abstractmethod
    def get_transport_name(self) -> str:
        """Return what it is: ``"accelerator"``, or a name of your own.

        ``"cpu"`` says that values from actor to actor go through host memory, not through `send`,
        and that collectives it does not implement run on gloo.
        """

    @classmethod
    def generate_communicator_id(cls) -> str:
        """Return a text that no other communicator has."""
        import uuid  # noqa: PLC0415  few scripts make one

        return str(uuid.uuid4())

    # --- from one actor to another

    def send(self, value: torch.Tensor, peer_rank: int) -> None:
        """Send a contiguous tensor, or have the device do it: `value` is left alone meanwhile."""
        raise NotImplementedError

    def recv(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        peer_rank: int,
        allocator: TensorAllocator | None = None,
    ) -> torch.Tensor:
        """Return the next tensor from `peer_rank`, in memory of `allocator` if one is given.

        It may be used at once, on any stream.
        """
        raise NotImplementedError

    @property
    def recv_stream(self) -> Any:
        """The stream context that receives, or None."""
        return None

    @property
    def send_stream(self) -> Any:
        """The stream context that sends, or None."""
        return None

    # --- of all ranks together; an `op` is a `collective.ReduceOp`, never AVG (sum and divide)

    def allreduce(self, send_buf: torch.Tensor, recv_buf: torch.Tensor, op: Any) -> None:
        """Reduce every rank's `send_buf` into `recv_buf`; all get the result."""
        raise NotImplementedError

    def allgather(self, send_buf: torch.Tensor, recv_buf: torch.Tensor) -> None:
        """Put every rank's `send_buf` into `recv_buf`, one after the other by rank."""
        raise NotImplementedError

    def reducescatter(self, send_buf: torch.Tensor, recv_buf: torch.Tensor, op: Any) -> None:
        """Reduce every rank's `send_buf`; rank r gets part r of the result."""
        raise NotImplementedError

    def broadcast(self, send_buf: torch.Tensor, recv_buf: torch.Tensor, src_rank: int) -> None:
        """Give every rank the source's `send_buf`; elsewhere only its shape counts."""
        raise NotImplementedError

    def reduce(
        self, send_buf: torch.Tensor, recv_buf: torch.Tensor, dst_rank: int, op: Any
    ) -> None:
        """Reduce every rank's `send_buf` into the destination's `recv_buf`."""
        raise NotImplementedError

    def gather(self, send_buf: torch.Tensor, recv_buf: torch.Tensor | None, dst_rank: int) -> None:
        """Put every rank's `send_buf` into the destination's `recv_buf`; elsewhere it is None."""
        raise NotImplementedError

    def scatter(self, send_buf: torch.Tensor | None, recv_buf: torch.Tensor, src_rank: int) -> None:
        """Give rank r part r of the source's `send_buf`; elsewhere it is None."""
        raise NotImplementedError

    def all_to_all(self, send_buf: torch.Tensor, recv_buf: torch.Tensor) -> None:
        """Give rank r part r of every rank's `send_buf`, by rank."""
        raise NotImplementedError


OPERATIONS: Final = (
    "send",
    "recv",
    "allreduce",
    "allgather",
    "reducescatter",
    "broadcast",
    "reduce",
    "gather",
    "scatter",
    "all_to_all",
)


def operations_of(kind: type[Communicator]) -> tuple[str, ...]:
    """Return the operations that a class of communicators implements."""
    return tuple(
        name for name in OPERATIONS if getattr(kind, name) is not getattr(Communicator, name)
    )
