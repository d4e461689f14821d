"""What this package asks of a collective operation. No code: `collective` implements it.

An operation object is drawn into the graph by `bind_collective` and carries its own behaviour: the
driver asks it for a group of the actors, each actor asks it for the two functions its program
calls. This package never sees a process group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from compiled_dag.communicators import CommunicatorPart
    from compiled_dag.host import Actor, ActorContext, Host, SystemCall
    from compiled_dag.outcome import Place


Backend: TypeAlias = Literal["", "nccl", "gloo"]
"""What process groups of GPUs run on; empty where these can be in none."""


class Group(Protocol):
    """The driver's end of the ranks of one or more operations."""

    @property
    def id(self) -> int:
        """Number under which every rank finds its own end."""
        ...

    @property
    def memory_fd(self) -> int:
        """Its shared memory, which has a state word (`compiled_dag.shm.state`)."""
        ...

    @property
    def leave(self) -> SystemCall:
        """What has an actor drop its end, with the group's number as payload."""
        ...

    @property
    def settled(self) -> tuple[str, str] | None:
        """The backend it runs on instead of the one that was chosen, and why, if there is one."""
        ...

    def open(self, deadline: float) -> None:
        """Form it, once, and wait until every rank has joined; before, it has nothing to close.

        Raises:
            ActorDiedError: A member is dead, or dies meanwhile.
            GraphError: Not formed by `deadline`, or the backend failed.
            MemoryCapError: There is no memory for it.
        """
        ...

    @property
    def gpu_bytes(self) -> tuple[int, ...]:
        """How much GPU memory each rank has taken for the others to read; empty if none has."""
        ...

    def end(self, state: int) -> None:
        """Stop the group and wake all ranks; nobody can use it afterwards.

        Args:
            state: CLOSED or BROKEN (`compiled_dag.shm.state`): whether what ranks have begun in it
                may come to its end. What is broken stays so.
        """
        ...

    def release(self) -> None:
        """Ask every living rank to drop its end, without waiting. Idempotent."""
        ...

    def close(self, deadline: float) -> None:
        """Release the group and wait for the ranks until `deadline`. Idempotent."""
        ...


class BoundOperation(Protocol):
    """One rank's part, ready to run."""

    @property
    def start(self) -> Callable[[tuple[Any, ...], int], Any]:
        """Begin with this rank's inputs (values or `Error`s) in execution n; returns a token.

        There is one for each bucket, or none where the rank only gets something.
        """
        ...

    @property
    def wait(self) -> Callable[[Any], Sequence[Any]]:
        """Finish: from the token to the results, a value or an `Error` for each bucket."""
        ...


class CollectiveOp(Protocol):
    """A collective operation, frozen and picklable. `str` is what tables show."""

    @property
    def method(self) -> str:
        """The method of `Communicator` that does it."""
        ...

    @property
    def transport(self) -> str | None:
        """The backend that the user wants, or None."""
        ...

    @property
    def inplace(self) -> bool:
        """Whether results go where the inputs are, which nobody else may read then."""
        ...

    @property
    def frees_input(self) -> bool:
        """Whether the inputs may be changed once `start` has returned: methods run until `wait`."""
        ...

    def only_gets(self, rank: int) -> bool:
        """Tell whether a rank brings no value, so that its actor may stand for a node of it."""
        ...

    def backend(self, actors: Sequence[Actor]) -> str:
        """Return the backend for these actors; one group serves operations that agree on it.

        Raises:
            GraphError: No backend can serve these actors.
        """
        ...

    def why(self, actors: Sequence[Actor]) -> str:
        """Return why `backend` is what it is for these actors, to follow "since"."""
        ...

    def advice(self, actors: Sequence[Actor]) -> str:
        """Return what would serve these actors better than `backend`, or an empty text."""
        ...

    def new_group(
        self, host: Host, actors: Sequence[Actor], communicator: CommunicatorPart | None = None
    ) -> Group:
        """Return a group of `actors` (by rank), to be opened.

        Args:
            host: The session.
            actors: By rank.
            communicator: The user's communicator that does the work; every actor has its copy.
        """
        ...

    def bind_rank(
        self, context: ActorContext, group_id: int, rank: int, places: Sequence[Place]
    ) -> BoundOperation:
        """Return this rank's functions (in the actor's process); `places` by rank."""
        ...


class EdgeEnd(Protocol):
    """One rank's end of a group whose ranks send each other tensors."""

    in_host_memory: bool
    """Whether only tensors in host memory can be sent."""

    def exchange(
        self,
        sends: Sequence[tuple[torch.Tensor, int]],
        receives: Sequence[tuple[torch.Tensor, int]],
    ) -> None:
        """Send contiguous tensors to ranks, and receive into others from ranks, in one go.

        Tensors of a GPU may be used at once, on the current stream.

        Raises:
            RuntimeError: It failed; the group is of no use any more.
            ChannelClosedError: The driver has ended the group.
        """
        ...


class EdgeGroups(Protocol):
    """Makes such groups. Frozen and picklable: it goes to the actors with their programs."""

    def new_group(self, host: Host, actors: Sequence[Actor], backend: Backend) -> Group:
        """Return a group of `actors` (by rank); once it is open each has sent to each."""
        ...

    def bind_rank(self, context: ActorContext, group_id: int) -> EdgeEnd:
        """Return this rank's end, in its actor's process."""
        ...
