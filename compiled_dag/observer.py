"""Looks at a graph that is up, from the driver: where everybody is, without asking anybody.

A time-out is told with a report (`compiled_dag.hang`). Stacks cost their processes a signal, so
they are taken of those only who wait for nobody, for time-outs of a second and more, and once a
second at most; a shorter time-out is told in one line.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import TYPE_CHECKING, Final

from compiled_dag.diagnosis import Seen, Snapshot, diagnose, step_text
from compiled_dag.host import Activity, Wait

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.hang import HangReport
    from compiled_dag.host import Actor, ActorId, Host
    from compiled_dag.ir import NodeId
    from compiled_dag.program import Program
    from compiled_dag.trace.log import Log

FULL_S: Final = 1.0
"""Time-outs from here on get a full report, and no more often than that."""
LEAD_S: Final = 0.1
"""How long before the end of such a wait its report is begun."""
GRACE_S: Final = 0.05
"""How long after the end of the wait a stack is still waited for."""
_ASK_S: Final = 0.5
"""How long stacks are waited for when nothing else sets a limit."""


class Observer:
    """One graph's. Any thread may use it."""

    def __init__(
        self,
        host: Host,
        actors: Sequence[Actor],
        program: Program,
        names: Mapping[NodeId, str],
        segment: GraphSegment,
        graph: str,
        log: Log,
    ) -> None:
        """Look at nothing yet.

        Args:
            host: Whose processes they are.
            actors: By participant, from 1 on.
            program: The graph's program.
            names: What messages call each node.
            segment: The graph's shared memory.
            graph: The graph's id.
            log: What the driver did with it.
        """
        self._host = host
        self._actors = tuple(actors)
        self._program = program
        self._names = names
        self._segment = segment
        self._graph = graph
        self._log = log
        self._lock = threading.Lock()
        self._last_s = -FULL_S

    def describe(self, participant: int, step: int) -> str:
        """Return what messages call step number `step` (from 1) of a participant."""
        steps = self._program.steps[participant]
        return step_text(self._program, self._names, participant, steps[step - 1])

    def report(
        self, *, stacks: bool, deadline: float | None = None, waited_s: float | None = None
    ) -> HangReport:
        """Return where everybody is.

        Args:
            stacks: Also the Python stacks of those who wait for nobody.
            deadline: `time.monotonic` value until which stacks are waited for.
            waited_s: Since how long the caller waits, if it does.
        """
        by = time.monotonic() + _ASK_S if deadline is None else deadline
        living = [a.actor_id for a in self._actors if self._host.death(a.actor_id) is None]
        activities = self._host.activities(living, by, stacks=False)
        snapshot = self._snapshot(activities, waited_s)
        report = diagnose(self._program, self._names, snapshot)
        if not stacks:
            return report
        busy = [
            actor.actor_id
            for actor, found in zip(self._actors, report.actors, strict=True)
            if found.state == "busy" or activities.get(actor.actor_id, _NOTHING).wait is not None
        ]
        with_stacks = {**activities, **self._host.activities(busy, by, stacks=True)}
        seen = [
            dataclasses.replace(one, activity=with_stacks.get(one.actor_id, _NOTHING))
            for one in snapshot.actors
        ]
        snapshot = dataclasses.replace(snapshot, actors=tuple(seen))
        return diagnose(self._program, self._names, snapshot)

    def _snapshot(self, activities: Mapping[ActorId, Activity], waited_s: float | None) -> Snapshot:
        written, now_ns = self._segment.written(), time.monotonic_ns()
        return Snapshot(
            graph=self._graph,
            written=written,
            waited_s=waited_s,
            submitted_s={one.execution: (now_ns - one.end_ns) / 1e9 for one in self._log.read()[0]},
            actors=tuple(
                self._seen(participant, actor, activities)
                for participant, actor in enumerate(self._actors, 1)
            ),
        )

    def _seen(self, participant: int, actor: Actor, activities: Mapping[ActorId, Activity]) -> Seen:
        progress = self._segment.progress(participant)
        death = self._host.death(actor.actor_id)
        return Seen(
            actor_id=actor.actor_id,
            begun=self._segment.begun(participant, self._program.first_channel(participant)),
            execution=progress.execution,
            step=progress.step,
            for_s=progress.for_s,
            death="" if death is None else str(death),
            activity=activities.get(actor.actor_id, _NOTHING),
        )

    # --- time-outs

    def late(self, timeout_s: float, deadline: float | None) -> str:
        """Return what the error of a wait that ends at `deadline` says; empty for a poll."""
        if not timeout_s or deadline is None:
            return ""
        if timeout_s < FULL_S or not self._take_turn(deadline):
            return self.report(stacks=False).summary
        waited_s = max(0.0, timeout_s - (deadline - time.monotonic()))
        return str(self.report(stacks=True, deadline=deadline + GRACE_S, waited_s=waited_s))

    def _take_turn(self, deadline: float) -> bool:
        """Tell whether the last full report is long enough before this one; note this one.

        By their deadlines, so that of waits one after the other each has its report.
        """
        with self._lock:
            if deadline - self._last_s < FULL_S:
                return False
            self._last_s = deadline
            return True

    # --- circles

    def waits(self) -> list[Wait]:
        """Return who waits for whom in steps."""
        report = self.report(stacks=False)
        by_label = {actor.label: actor.actor_id for actor in self._actors}
        return [
            Wait(
                actor_id=by_label[found.label],
                on=by_label[other],
                text=f"{other}: it {found.text} (execution {found.execution})",
                for_s=found.for_s or 0.0,
            )
            for found in report.actors
            if found.state == "waiting" and found.begun
            for other in found.waits_for
            if other in by_label
        ]


_NOTHING: Final = Activity()
