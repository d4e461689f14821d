"""A compiled graph's claim on processes and memory: bring it up, break it, take it down.

One owner for everything a graph holds outside the driver's own objects. What fails while coming up
is undone at once; breaking happens once, with the first cause; taking down is idempotent, bounded
and possible at any time, also from the garbage collector (then without waiting).
"""

from __future__ import annotations

import copy
import itertools
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from compiled_dag.arrival import await_process
from compiled_dag.channel import layout as at
from compiled_dag.channel import pickling, tensor
from compiled_dag.channel.graph_segment import GraphSegment
from compiled_dag.errors import (
    ActorDiedError,
    ChannelClosedError,
    GraphActorDiedError,
    GraphError,
)
from compiled_dag.gauge import Gauge
from compiled_dag.groups import Groups
from compiled_dag.host import with_stack
from compiled_dag.loading import load_graph, unload_graph
from compiled_dag.observer import Observer
from compiled_dag.packing import is_hinted, pack, places_of
from compiled_dag.program import Compute, Program
from compiled_dag.shm.segment import Segment
from compiled_dag.tickets import Member, Tickets
from compiled_dag.trace.log import Log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compiled_dag.capture import Captured
    from compiled_dag.host import Activity, Actor, ActorId, Pending, SystemCall
    from compiled_dag.ir import OperationId
    from compiled_dag.options import CompileOptions
    from compiled_dag.package import RankPart

_graph_ids = itertools.count(1)
_ELSEWHERE = "it is in something else than this graph"
_STACKS_S = 0.3
"""How long stacks of actors are waited for when they are late."""
_ROLLBACK_S = 0.3
"""How long a compile that failed, or Ctrl-C in it, waits for that; a busy actor lets go later."""


class Deployment:
    """One graph's segment, groups and resident programs."""

    def __init__(
        self, owner: object, captured: Captured, program: Program, options: CompileOptions
    ) -> None:
        """Bring the graph up on its actors, for as long as `owner` lives.

        Raises:
            ActorDiedError: An actor is dead, or dies meanwhile.
            GraphError: An actor is not up within `compile_timeout`.
            MemoryCapError: There is no memory for the channels.
        """
        self.graph_id = captured.host.process << 32 | next(_graph_ids)
        self.owner = os.getpid()
        self.program = program
        self.host = captured.host
        self.actors = captured.actors
        self.fault: BaseException | None = None
        self.closed_at: float | None = None
        self._captured = captured
        self._groups = Groups(self.graph_id, captured, program)
        self._loaded: list[ActorId] = []
        self._unloading: dict[int, Pending] = {}
        """Replies of the participants that were asked to let go."""
        self._closer: dict[str, int] = {}
        """The thread that takes the graph down just now; no lock, which Ctrl-C could leave held."""
        self._is_down = False
        self._lock = threading.Lock()
        self.places = places_of(captured)
        self._tickets = Tickets.of(self.host)
        self.member = Member(self._tickets, self.graph_id)
        deadline = time.monotonic() + options.compile_timeout_s
        lines = tuple(
            await_process(self.host, actor, deadline, options.compile_timeout_s)
            for actor in self.actors
        )
        processes = (self.host.process, *lines)
        self._unwatch = self._unwatch_waits = self._stay = self._drop_claim = _nothing
        self._bequests: list[Callable[[], None]] = []
        """How to take back what is to be done if this process dies."""
        self._can_close = False
        segment = Segment(-1)
        try:
            GraphSegment.allocate(segment, len(processes), program.channels)
            self._look_into(segment.fd, processes, options)
            self._bring_up(owner, processes, options, deadline)
        except BaseException:  # Ctrl-C too
            if self._can_close:
                self.close(_ROLLBACK_S)
            else:
                segment.close()
            raise

    def _look_into(self, memory: int, processes: tuple[int, ...], options: CompileOptions) -> None:
        """Map the graph's memory, and make what looks into it."""
        program = self.program
        self.segment = GraphSegment(
            memory, self.host.board, processes, program.channels, program.participants
        )
        self.gauge = Gauge(
            self.segment, self._groups, program.participants, options.max_memory_bytes
        )
        self.log = Log(len(program.steps[0]), max(map(len, program.steps)), self.segment.words)
        """What the driver does with the graph."""
        names = {node.id: node.describe() for node in self._captured.graph.nodes}
        self.observer = Observer(
            self.host, self.actors, program, names, self.segment, self.name, self.log
        )
        self._can_close = True  # all that `close` needs is there

    def _bring_up(
        self, owner: object, processes: tuple[int, ...], options: CompileOptions, deadline: float
    ) -> None:
        self._unwatch = self.host.watch(self._on_death)
        self._unwatch_waits = self.host.watch_waits(self.observer.waits)
        self._stay = self.host.at_shutdown(self._shut_down)
        # Here, not in the owner: Ctrl-C may come before it has this.
        close_when_collected = weakref.finalize(owner, self.abandon)
        close_when_collected.atexit = False  # the session's end closes it, and waits
        self._check_alive()
        self._drop_claim = self.host.claim(self.graph_id, self.actors)
        memory = self.segment.segment.fd
        self._leave_word(self.actors, memory, unload_graph, str(self.graph_id).encode())
        parts = self._groups.open(self.places, memory, deadline, self._leave_word)
        self._load(processes, parts, options, deadline)

    def _check_alive(self) -> None:
        """Deaths before the watch began do not reach it."""
        for actor in self.actors:
            error = self.host.death(actor.actor_id)
            if error is not None:
                raise copy.copy(error)

    def _leave_word(
        self, actors: Sequence[Actor], memory: int, function: SystemCall, payload: bytes
    ) -> None:
        """Have actors let go of the graph, or of a group of it, if this process dies."""
        ids = [actor.actor_id for actor in actors]
        self._bequests.append(self.host.at_death(ids, memory, function, payload))

    def _load(
        self,
        processes: tuple[int, ...],
        parts: dict[int, dict[OperationId, RankPart]],
        options: CompileOptions,
        deadline: float,
    ) -> None:
        pending: list[Pending] = []
        lent: list[Any] = []
        """Until the programs are loaded."""
        labels = {actor.actor_id: actor.label for actor in self.actors}
        shared = self._tickets.join(self.member, self.host, labels)
        ranks = self._groups.ranks
        for participant, actor in enumerate(self.actors, 1):
            part, ring = shared.get(actor.actor_id, (None, None))
            package = pack(
                self._captured,
                self.program,
                options,
                self.places,
                participant,
                graph_id=self.graph_id,
                processes=processes,
                parts=parts[participant],
                with_torch=tensor.is_loaded() or is_hinted(self.program, participant),
                edges=self._groups.edges_of(participant),
                ranks=ranks,
                tickets=part,
            )
            payload, with_it = pickling.dumps_by_value(package)
            lent += with_it
            fds = [self.segment.segment.fd, *([] if ring is None else [ring.segment.fd])]
            self._loaded.append(actor.actor_id)
            pending.append(self.host.submit(actor.actor_id, load_graph, payload, fds))
        for actor, reply in zip(self.actors, pending, strict=True):
            try:
                reply.result(deadline)
            except TimeoutError as error:
                doing = self._activity(actor.actor_id)
                msg = (
                    f"actor {actor.label} did not load its program within compile_timeout="
                    f"{options.compile_timeout_s} s: {doing or _ELSEWHERE}"
                )
                raise GraphError(with_stack(msg, doing)) from error

    def _activity(self, actor_id: ActorId) -> Activity:
        deadline = time.monotonic() + _STACKS_S
        return self.host.activities([actor_id], deadline, stacks=True)[actor_id]

    # --- while it is up ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What messages call the graph: its number, in hex."""
        return f"{self.graph_id:x}"

    @property
    def settled(self) -> Mapping[OperationId, tuple[str, str]]:
        """Backends of operations that do not run on what was chosen for them, and why."""
        return self._groups.settled

    def guard(self) -> None:
        """Raise what ended the graph, if it has ended."""
        if self.segment.words[at.STATE_WORD] != at.OPEN:
            raise self.end_cause()

    def end_cause(self) -> BaseException:
        """Return the first fault, or that the graph was torn down."""
        if self.fault is not None:
            # A copy: raising leaves a traceback on it, whose frames hold the graph that is then
            # never collected, since the finalizer of the graph holds this deployment.
            cause = copy.copy(self.fault)
            cause.__cause__ = self.fault.__cause__
            return cause
        when = "" if self.closed_at is None else f" {time.monotonic() - self.closed_at:.1f} s ago"
        return ChannelClosedError(f"graph {self.name} was torn down{when}: compile again")

    def _on_death(self, actor_id: ActorId, error: ActorDiedError) -> None:
        """Break the graph, once; called from the supervising thread."""
        numbers = [n for n, actor in enumerate(self.actors, 1) if actor.actor_id == actor_id]
        if not numbers:
            return
        with self._lock:
            if self.fault is None:
                self.fault = self._blame(numbers[0], error)
        self.end(at.BROKEN)

    def _blame(self, participant: int, error: ActorDiedError) -> GraphActorDiedError:
        """Say in which node of which execution the actor died."""
        progress = self.segment.progress(participant)
        node, where = None, "between executions"
        if progress.step:
            node = self.observer.describe(participant, progress.step)
            where = f"in {node} of execution {progress.execution}"
        who, how = _who_and_how(self.actors[participant - 1].label, str(error))
        died = GraphActorDiedError(
            f"graph {self.name} lost {who} {where}: {how}\n"
            "The graph is broken; its other actors stay usable: compile again on them",
            exit_code=error.exit_code,
            signal=error.signal,
            node=node,
            execution=progress.execution if node else None,
            stderr_tail=error.stderr_tail,
            cause=error.cause,
        )
        died.__cause__ = error.cause  # not the error itself: all its text is here
        return died

    # --- the end ----------------------------------------------------------------------------------

    def end(self, state: int) -> None:
        """Close or break the graph for everybody; nobody waits in it any longer."""
        if os.getpid() != self.owner:
            return
        self.segment.end(state)
        self._groups.end(state)

    def abandon(self) -> None:
        """End the graph without waiting, from the garbage collector: takes no lock here."""
        if os.getpid() == self.owner and not self._is_down:
            self.host.call_soon(lambda: self.close(0.0))

    def _shut_down(self, deadline: float) -> None:
        """End the graph with its session, while the actors still answer."""
        self.close(max(0.0, deadline - time.monotonic()))

    def break_off(self) -> None:
        """End the graph after Ctrl-C: who is in user code lets go of it later."""
        self.close(_ROLLBACK_S)

    def close(self, timeout_s: float) -> list[int]:
        """Take the graph down, waiting for each actor up to `timeout_s` in all. Idempotent.

        What an interrupt (Ctrl-C) breaks off the next call finishes.

        Returns:
            The participants that did not let go in time.
        """
        me = threading.get_ident()
        try:
            if self._closer.setdefault("thread", me) != me or self._is_down:
                return []
            self.closed_at = self.closed_at or time.monotonic()
            return self._take_down(time.monotonic() + timeout_s)
        finally:
            if self._closer.get("thread") == me:
                self._closer.clear()

    def _take_down(self, deadline: float) -> list[int]:
        """Do all that `close` does. Each step may be done again: any may be broken off."""
        self.gauge.keep()
        self.end(at.CLOSED)
        # First: nothing of it waits for anybody any more, and whoever sees an actor free may at
        # once compile a graph with it, in another process.
        self._drop_claim()
        self._unload()
        self._groups.release()
        try:
            late = [
                participant for participant, reply in self._unloading.items()
                if not self._has_let_go(reply, deadline)
            ]  # fmt: skip
            self._groups.close(deadline)
        finally:  # also when Ctrl-C ends the waiting
            self._groups.close(0.0)
            self._unwatch()
            self._unwatch_waits()
            self._stay()
            self._tickets.leave(self.member)
            while self._bequests:
                self._bequests.pop()()
            self._captured.owned.close(deadline)
            self.segment.close()
            self._is_down = True
            # These refer to this: memory would wait for the collector.
            self._unwatch = self._unwatch_waits = self._stay = self._drop_claim = _nothing
            self._unloading.clear()
        return late

    def _unload(self) -> None:
        """Ask the actors that loaded the graph to let go of it, each once."""
        for participant, actor in enumerate(self.actors, 1):
            loaded = actor.actor_id in self._loaded and participant not in self._unloading
            if loaded and self.host.death(actor.actor_id) is None:
                payload = str(self.graph_id).encode()
                try:
                    reply = self.host.submit(actor.actor_id, unload_graph, payload)
                except RuntimeError:
                    break  # the session has ended meanwhile, and with it all its actors
                self._unloading[participant] = reply

    @staticmethod
    def _has_let_go(reply: Pending, deadline: float) -> bool:
        """Wait for an actor to let go; returns whether it did in time."""
        try:
            reply.result(deadline)
        except TimeoutError:
            return False
        except ActorDiedError:
            pass  # it let go for good
        return True

    def describe_late(self, late: Sequence[int]) -> str:
        """Return what the participants that did not let go are doing, with their stacks."""
        ids = [self.actors[participant - 1].actor_id for participant in late]
        doing = self.host.activities(ids, time.monotonic() + _STACKS_S, stacks=True)
        return "; ".join(
            f"actor {self.actors[participant - 1].label} "
            f"{self._why_late(participant, doing[actor_id])}"
            for participant, actor_id in zip(late, ids, strict=True)
        )

    def _why_late(self, participant: int, activity: Activity) -> str:
        progress = self.segment.progress(participant)
        if activity.call:
            where = f"does not answer: {activity}"
        elif not progress.step:
            where = f"does not answer: {activity or _ELSEWHERE}"
        else:
            step = self.observer.describe(participant, progress.step)
            inside = isinstance(self.program.steps[participant][progress.step - 1], Compute)
            how = "is still in user code" if inside else "does not answer. Last seen"
            doing = f" ({activity})" if str(activity) else ""
            where = f"{how}: {step}, execution {progress.execution}{doing}"
        return with_stack(where, activity)


def _who_and_how(label: str, text: str) -> tuple[str, str]:
    """Take apart what is said of an actor's death: who it was, and how it died."""
    who, died, how = text.partition(" died: ")
    if died and who.startswith(f"actor {label}"):
        return who, how
    return f"actor {label}", text.removeprefix(f"actor {label} ")


def _nothing() -> None:
    """Stand for what has been done and must not be done again."""
