"""What this package asks of whoever owns processes: `runtime` implements it.

Nodes do not need the runtime module, they hold a runtime object already: the thing `.bind()` was
called on. Everything a graph needs from its processes goes through the few methods below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NewType, Protocol, TypeAlias

if TYPE_CHECKING:
    from compiled_dag.errors import ActorDiedError
    from compiled_dag.loop import Loop
    from compiled_dag.shm.board import Board
    from compiled_dag.shm.waiter import Waiter

ActorId = NewType("ActorId", int)
"""Number of an actor in its session; never used twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """An actor's main thread that cannot go on before something else happens."""

    actor_id: ActorId
    on: ActorId | None
    """The other one, where there is one."""
    text: str
    """What it waits for."""
    for_s: float
    by: str = "get"
    """What waits: `get`, or an operation of a collective group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What an actor's main thread is doing, as far as can be known without its help."""

    stack: tuple[str, ...] = ()
    """``File "...", line ..., in ...``, the most recent call last."""
    state: str = ""
    """Why there is no stack, for example that the process is stopped."""
    call: str = ""
    """The ordinary call that it runs, ``Class.method``; empty if none."""
    call_for_s: float = 0.0
    wait: Wait | None = None
    """What a `get`, or a collective, in it waits for."""

    def __str__(self) -> str:
        parts = [f"in the call {self.call}, for {self.call_for_s:.3f} s"] if self.call else []
        if self.wait is not None:
            wait = self.wait
            parts.append(f"{wait.by} waits for {wait.text}, for {wait.for_s:.3f} s")
        if self.state:
            parts.append(self.state)
        return "; ".join(parts)

    def __bool__(self) -> bool:
        return bool(self.call or self.wait or self.state)


def with_stack(text: str, activity: Activity) -> str:
    """Return a text with the stack of what it tells of under it."""
    return "\n    ".join([text, *activity.stack])


class ActorContext(Protocol):
    """An actor's process, as the functions sent to it by `Host.submit` see it."""

    @property
    def actor_id(self) -> ActorId: ...

    @property
    def label(self) -> str:
        """What messages call the actor: ``Class(id)``."""
        ...

    def identity(self) -> tuple[str, str]:
        """Return the actor's name (empty if it has none) and its id, as users see them."""
        ...

    @property
    def instance(self) -> Any:
        """The user's object."""
        ...

    @property
    def loop(self) -> Loop:
        """The main loop, which runs resident programs."""
        ...

    @property
    def board(self) -> Board: ...

    @property
    def process(self) -> int:
        """Board line of this process."""
        ...

    @property
    def waiter(self) -> Waiter:
        """The main thread's waiting policy."""
        ...

    @property
    def resources(self) -> dict[str, Any]:
        """What graphs and groups keep in this process, by key; closed when the actor ends."""
        ...


GROUP_HOME: Final = "the home of eager groups"
"""Offered for `collective.home`."""
ASSIGNED_GPUS: Final = "the GPUs assigned to this process"
EDGE_GROUPS: Final = "the groups of edges"
"""Offered for `compiled_dag.groups`: `compiled_dag.operation.EdgeGroups`."""
_offers: dict[str, Callable[[], Any]] = {}


def offer(what: str, find: Callable[[], Any]) -> None:
    """Let packages below find what only the runtime has: they cannot import it."""
    _offers[what] = find


def offered(what: str) -> Callable[[], Any] | None:
    """Return how to find what was offered, or None."""
    return _offers.get(what)


SystemCall: TypeAlias = Callable[[ActorContext, bytes, Sequence[int]], bytes]
"""A module-level function that runs on an actor's main thread, between steps: payload and file
descriptors in (it owns those), bytes out. What it raises comes out of `Pending.result`."""


class Pending(Protocol):
    """A reply that is on its way."""

    def result(self, deadline: float | None) -> bytes:
        """Wait until `deadline` (`time.monotonic`) or for ever.

        Raises:
            TimeoutError: Not in time.
            ActorDiedError: The actor died first.
            Exception: What the function raised, as itself.
        """
        ...


class Host(Protocol):
    """One session's processes, seen from the driver."""

    @property
    def closed(self) -> bool:
        """Whether the session has ended."""
        ...

    @property
    def board(self) -> Board: ...

    @property
    def process(self) -> int:
        """Board line of the driver."""
        ...

    @property
    def waiter(self) -> Waiter:
        """The calling thread's waiting policy on the driver's doorbell."""
        ...

    def totals(self) -> Mapping[str, float]:
        """Return the session's resources by name, free or not."""
        ...

    def bound_actor(self, handle: Any) -> Actor:
        """Return what a graph knows of the actor behind a user's handle.

        Raises:
            TypeError: `handle` is no handle of an actor.
        """
        ...

    def line(self, actor_id: ActorId, deadline: float) -> int:
        """Return the board line of an actor, waiting until its process exists.

        Raises:
            ActorDiedError: It died, or its constructor failed.
            GraphError: It asks for more than there is, and will never be up.
            TimeoutError: Not up by `deadline`.
        """
        ...

    def submit(
        self, actor_id: ActorId, function: SystemCall, payload: bytes, fds: Sequence[int] = ()
    ) -> Pending:
        """Have an actor run `function`; keeps no claim on `fds` after it returns."""
        ...

    def watch(self, callback: Callable[[ActorId, ActorDiedError], None]) -> Callable[[], None]:
        """Call `callback` from the supervising thread on every death; returns how to stop that."""
        ...

    def at_shutdown(self, callback: Callable[[float], object]) -> Callable[[], None]:
        """Call `callback` first thing when the session ends; returns how to stop that.

        It is given until when (`time.monotonic`) it may wait.
        """
        ...

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call `callback` on the supervising thread; safe in finalizers, takes no lock."""
        ...

    def death(self, actor_id: ActorId) -> ActorDiedError | None:
        """Return why an actor is dead, or None while it lives."""
        ...

    def end(self, actor_id: ActorId) -> None:
        """Have an actor end after what it was asked for."""
        ...

    def activities(
        self, actor_ids: Sequence[ActorId], deadline: float, *, stacks: bool
    ) -> Mapping[ActorId, Activity]:
        """Return what actors are doing, without their help, at the latest soon after `deadline`.

        With `stacks` also their Python stacks, which costs each a signal.
        """
        ...

    def watch_waits(self, source: Callable[[], Iterable[Wait]]) -> Callable[[], None]:
        """Ask `source`, from the supervising thread, who waits for whom in steps of graphs.

        Together with the waits in ordinary calls that shows who waits in a circle, for ever.
        Returns how to stop that.
        """
        ...

    def kill(self, actor_id: ActorId) -> None:
        """End an actor's process at once."""
        ...

    def claim(self, graph_id: int, actors: Sequence[Actor]) -> Callable[[], None]:
        """Note that this process drives a graph over `actors`; returns how to forget it.

        Raises:
            GraphError: This process is one of them, and would wait for itself.
            DeadlockError: Another process drives a graph over two or more of them.
        """
        ...

    def at_death(
        self, actors: Sequence[ActorId], memory: int, function: SystemCall, payload: bytes
    ) -> Callable[[], None]:
        """Say what is to be done if this process dies; returns how to take it back.

        The segment `memory` is marked broken (`compiled_dag.shm.state`; no claim is kept on the
        descriptor given), and the actors are woken and run `function`.
        """
        ...

    def has_physical_gpus(self) -> bool:
        """Tell whether the session's GPUs stand for devices that exist; if not they are fake."""
        ...

    def check_owner(self) -> None:
        """Refuse use in a forked child, or after the session ended.

        Raises:
            RuntimeError: This is a forked child of the owner, or the session has ended.
        """
        ...


class Actor(Protocol):
    """What a bound method knows of its actor: a handle."""

    @property
    def actor_id(self) -> ActorId: ...

    @property
    def label(self) -> str: ...

    @property
    def host(self) -> Host: ...

    @property
    def num_gpus(self) -> float:
        """Logical GPUs it holds."""
        ...

    @property
    def physical_gpus(self) -> tuple[str, ...]:
        """Names of the physical GPUs behind them, if it has them already and they are not fake.

        `compiled_dag.gpus` tells one from the other.
        """
        ...
