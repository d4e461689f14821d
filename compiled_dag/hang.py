"""What a hang report says: who is where, who waits for whom, and who is to blame. Data and text."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

State = Literal["dead", "busy", "waiting", "idle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorReport:
    """Where one actor of a graph is."""

    label: str
    state: State
    """``idle``: it has finished all that was submitted; ``busy``: it waits for nobody."""
    execution: int
    """The execution it is in, or else the one it has to begin next: it finished those before."""
    begun: bool
    """Whether it is in that execution."""
    text: str
    """What it is doing; reads on from its label."""
    for_s: float | None = None
    """Since how long, where that is known."""
    waits_for: tuple[str, ...] = ()
    """Labels of the actors that it waits for."""
    stack: tuple[str, ...] = ()
    """Of its main thread, if it is busy; the most recent call last."""

    @property
    def since(self) -> str:
        """The time, to be appended to the text."""
        return _since(self.for_s)

    def __str__(self) -> str:
        return f"{self.label} {self.text}{self.since}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HangReport:
    """Where everybody in a graph was at one moment. `str` of it is the text for people."""

    graph: str
    """The graph's id."""
    first: int
    """The oldest unfinished execution."""
    submitted: int
    """Executions submitted: those from `first` up to this one are unfinished."""
    outputs: tuple[tuple[str, str, int], ...]
    """For each output: its name, whose it is, and how many executions of it are there."""
    actors: tuple[ActorReport, ...]
    blamed: tuple[str, ...]
    """Labels of the actors at the end of the waiting; of those in a circle if there is no end."""
    circle: bool
    """Whether the blamed wait for each other."""
    ended: str = ""
    """Why the graph has ended, if it has."""
    waited_s: float | None = None
    """Since how long somebody in the driver waits; None: nobody does."""
    submitted_s: Mapping[int, float] = field(default_factory=dict)
    """How long ago executions were submitted: of those that follow fast, some have no entry."""

    @property
    def summary(self) -> str:
        """One line: what is unfinished, and who is to blame."""
        if self.ended:
            return self.ended
        if self.first >= self.submitted:
            return f"graph {self.graph}: all {self.submitted} executions are finished"
        what = _executions(self.first, self.submitted - 1)
        verb = "is" if self.submitted - self.first == 1 else "are"
        return f"{what} of graph {self.graph} {verb} unfinished: {self._blame()}"

    def _blame(self) -> str:
        found = [actor for actor in self.actors if actor.label in self.blamed]
        if self.circle and len(self.blamed) == 1:
            return f"{self.blamed[0]} waits for itself"
        if self.circle:
            return f"{', '.join(self.blamed)} wait for each other in a circle"
        if not found:
            return "nobody holds them up: they are about to go on"
        return "; ".join(f"{actor}{_of(actor, self.first)}" for actor in found)

    def __str__(self) -> str:
        lines = [self.summary]
        for numbers, text in self._situations():
            lines += [f"  {_executions(numbers[0], numbers[-1])}{self._age(numbers)}:", *text]
        if self.first >= self.submitted:
            lines += [f"  {actor}" for actor in self.actors]
        return "\n".join(lines)

    def _situations(self) -> list[tuple[list[int], tuple[str, ...]]]:
        """Return who is where, execution by execution; those that look the same together."""
        each = [(n, tuple(self._lines(n))) for n in range(self.first, self.submitted)]
        return [
            ([n for n, _ in group], text) for text, group in groupby(each, key=lambda one: one[1])
        ]

    def _age(self, executions: list[int]) -> str:
        """Return, to be appended, when the first of them was submitted, if that is known."""
        age_s = self.submitted_s.get(executions[0])
        if age_s is None:
            return ""
        which = "" if len(executions) == 1 else "the first "
        return f", {which}submitted {age_s:.3f} s ago"

    def _lines(self, execution: int) -> Iterable[str]:
        for name, owner, count in self.outputs:
            if count <= execution:
                yield f"    driver waits for {name} from {owner}{_since(self.waited_s)}"
        finished = [one.label for one in self.actors if one.execution > execution]
        later = [
            one.label for one in self.actors if one.execution < execution and one.state != "dead"
        ]
        for actor in self.actors:
            if actor.execution == execution or (
                actor.state == "dead" and actor.execution < execution
            ):
                yield f"    {actor}"
                yield from (f"      {frame}" for frame in actor.stack)
        if finished:
            yield f"    finished by {', '.join(finished)}"
        if later:
            yield f"    not begun by {', '.join(later)}"


def _since(seconds: float | None) -> str:
    return "" if seconds is None else f", for {seconds:.3f} s"


def _executions(first: int, last: int) -> str:
    return f"execution {first}" if first == last else f"executions {first} to {last}"


def _of(actor: ActorReport, execution: int) -> str:
    """Say which execution an actor is in where it is not the one that is talked about."""
    return "" if actor.execution == execution else f" (execution {actor.execution})"
