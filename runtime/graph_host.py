"""What graphs ask of the session in the driver; `runtime.nested_host` is asked elsewhere."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import TYPE_CHECKING, Any, Final

from runtime.calls import next_number
from runtime.claims import Claim, Claims
from runtime.messages import System
from runtime.system_call import SystemCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from compiled_dag.errors import ActorDiedError
    from compiled_dag.host import Actor, ActorId, Wait
    from compiled_dag.host import SystemCall as SystemFunction
    from runtime.actor_method import BoundActor
    from runtime.placement import Placement
    from runtime.processes import DeathWatcher, Processes
    from runtime.supervisor import Supervisor
    from runtime.waits import Waits


class GraphHost:
    """The part of `Session` that serves graphs: with that it is a `compiled_dag.host.Host`."""

    process: Final = 0
    """The driver's line on the board."""

    closed: bool
    foreign: bool
    placement: Placement
    processes: Processes
    supervisor: Supervisor
    claims: Claims
    waits: Waits
    check_owner: Callable[[], None]
    wait_until: Callable[[Callable[[], bool], float | None], bool]

    def __init__(self) -> None:
        self.closers: dict[int, Callable[[float], object]] = {}
        """What is called first thing in `shutdown`, with a deadline."""
        self._closer_keys = itertools.count()

    def totals(self) -> Mapping[str, float]:
        """Return the session's resources by name, free or not."""
        return self.placement.ledger.totals()

    def has_physical_gpus(self) -> bool:
        """Tell whether the session's GPUs stand for devices; if not they are fake."""
        return self.placement.has_physical_gpus()

    def bound_actor(self, handle: Any) -> BoundActor:
        """Return what a graph knows of the actor behind a handle; TypeError for anything else."""
        from runtime.actor import bound_actor  # noqa: PLC0415  it is above us

        return bound_actor(handle)

    def line(self, actor_id: ActorId, deadline: float) -> int:
        """Return the board line of an actor once its process exists.

        Raises:
            ActorDiedError: It died, or its constructor failed.
            GraphError: It will never have one.
            TimeoutError: Not up by `deadline`.
        """
        actor = self.processes[actor_id]
        self.placement.check_hope(actor)
        if not self.wait_until(lambda: bool(actor.pid or actor.death), deadline):
            raise TimeoutError(
                f"actor {actor.label} has no process yet: {self.placement.waits_for(actor)}"
            )
        if actor.death is not None:
            raise copy.copy(actor.death)
        return actor.line

    def submit(
        self,
        actor_id: ActorId,
        function: SystemFunction,
        payload: bytes,
        fds: Sequence[int] = (),
    ) -> SystemCall:
        """Have an actor run `function` on its main thread."""
        if self.foreign:
            self.check_owner()
        return self.submit_pickled(actor_id, pickle.dumps(function), payload, fds)

    def submit_pickled(
        self,
        actor_id: ActorId,
        function: bytes,
        payload: bytes,
        fds: Sequence[int] = (),
        then: Callable[[SystemCall], object] | None = None,
    ) -> SystemCall:
        """Have an actor run a function that is pickled; `then` is called when it has ended."""
        # Once the session has ended the actor is dead, and the call fails with that: a graph that
        # is collected meanwhile goes on letting go of what it has.
        actor = self.processes[actor_id]
        call = SystemCall(self.wait_until, f"what actor {actor.label} was asked for", then)
        actor.calls.submit(System(next_number(), function, payload, tuple(fds)), call)
        return call

    def claim(self, graph_id: int, actors: Sequence[Actor]) -> Callable[[], None]:
        """Note that the driver drives a graph; see `compiled_dag.host.Host.claim`."""
        ids = frozenset(actor.actor_id for actor in actors)
        self.claims.add(Claim(owner=self.process, graph_id=graph_id, actors=ids))
        return lambda: self.claims.drop(graph_id)

    def at_death(
        self,
        _actors: Sequence[ActorId],
        _memory: int,
        _function: SystemFunction,
        _payload: bytes,
    ) -> Callable[[], None]:
        """Do nothing: if the driver dies, every process ends."""
        return lambda: None

    def watch(self, callback: DeathWatcher) -> Callable[[], None]:
        """Call `callback` from the supervising thread on every death; returns how to stop that."""
        return self.processes.watch(callback)

    def at_shutdown(self, callback: Callable[[float], object]) -> Callable[[], None]:
        """Call `callback` first thing in `shutdown`, with a deadline; returns how to stop that."""
        key = next(self._closer_keys)  # from any thread: a dict's single steps need no lock
        self.closers[key] = callback

        def stop() -> None:
            self.closers.pop(key, None)

        return stop

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call `callback` on the supervising thread; safe in finalizers, takes no lock."""
        if not self.closed and not self.foreign:
            self.supervisor.call_soon(callback)

    def death(self, actor_id: ActorId) -> ActorDiedError | None:
        """Return why an actor is dead, or None while it lives."""
        return self.processes[actor_id].death

    def end(self, actor_id: ActorId) -> None:
        """Have an actor end after what it was asked for."""
        self.processes[actor_id].end_after_calls()

    def watch_waits(self, source: Callable[[], Iterable[Wait]]) -> Callable[[], None]:
        """Ask `source` who waits for whom in steps of graphs; returns how to stop that."""
        return self.waits.watch(source)
