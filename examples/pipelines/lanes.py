"""What the stages of a pipeline did when, read from the trace of their graph."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One run of a stage's method; times are seconds of the machine's clock."""

    execution: int
    name: str
    begin_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """How long it took."""
        return self.end_s - self.begin_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """What one stage did, in order of time."""

    label: str
    boxes: tuple[Box, ...]

    def of(self, executions: Sequence[int]) -> Lane:
        """Return the part that belongs to some executions."""
        boxes = (box for box in self.boxes if box.execution in executions)
        return Lane(label=self.label, boxes=tuple(boxes))

    def first(self, count: int) -> Lane:
        """Return the part with the first boxes."""
        return replace(self, boxes=self.boxes[:count])

    def named(self, names: Sequence[str]) -> Lane:
        """Return the lane with other names for its boxes."""
        pairs = zip(self.boxes, names, strict=True)
        return replace(self, boxes=tuple(replace(box, name=name) for box, name in pairs))

    def typical_s(self, kind: str) -> float:
        """Return the median time of what has a name that begins so."""
        return median(box.length_s for box in self.boxes if box.name.startswith(kind))


def read(events: Sequence[dict[str, Any]]) -> list[Lane]:
    """Collect what `CompiledDAG.trace` says of methods: a lane for each actor, as they were bound.

    Executions that not all of them have on record, or not as a whole, are left out.
    """
    names = {
        event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"
    }
    boxes: dict[int, list[Box]] = {pid: [] for pid in names}
    for event in events:
        if event.get("cat") == "compute":
            begin_s, took_s = event["ts"] / 1e6, event["dur"] / 1e6
            execution, name = event["args"]["execution"], event["name"]
            boxes[event["pid"]].append(
                Box(execution=execution, name=name, begin_s=begin_s, end_s=begin_s + took_s)
            )
    lanes = [Lane(label=names[pid], boxes=tuple(found)) for pid, found in boxes.items() if found]
    known = set.intersection(*map(_on_record, lanes))
    return [lane.of(sorted(known)) for lane in lanes]


def _on_record(lane: Lane) -> set[int]:
    """Return the executions of which a lane has all methods; of some it may have only a part."""
    counts = Counter(box.execution for box in lane.boxes)
    return {execution for execution, count in counts.items() if count == max(counts.values())}


def executions(lanes: Sequence[Lane]) -> list[int]:
    """Return the numbers of the executions, in order."""
    return sorted({box.execution for box in lanes[0].boxes})


def span(lanes: Sequence[Lane]) -> tuple[float, float]:
    """Return when the first method began and the last one ended."""
    return (
        min(lane.boxes[0].begin_s for lane in lanes),
        max(lane.boxes[-1].end_s for lane in lanes),
    )


def length_s(lanes: Sequence[Lane]) -> float:
    """Return how long all of it took."""
    begin_s, end_s = span(lanes)
    return end_s - begin_s


def idle(lanes: Sequence[Lane], among: Sequence[Lane]) -> float:
    """Return in which part of the time of all lanes some of them ran no method, in their mean.

    Fast graphs record one execution in 16; each then stands for those that follow it.
    """
    numbers = executions(among)
    each_stands_for = (numbers[-1] - numbers[0] + 1) / len(numbers)
    busy_s = sum(box.length_s for lane in lanes for box in lane.boxes) * each_stands_for
    return 1 - busy_s / (len(lanes) * length_s(among))


def typical(lanes: Sequence[Lane]) -> list[Lane]:
    """Return the lanes of the one execution that took the median time."""
    each = [[lane.of([number]) for lane in lanes] for number in executions(lanes)]
    middle = median(map(length_s, each))
    return min(each, key=lambda lanes: abs(length_s(lanes) - middle))
