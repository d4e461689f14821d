"""In which order the stages of a pipeline do their work, as data; and how long that would take."""

from __future__ import annotations

from collections import deque
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, NamedTuple

from pipelines.lanes import Box, Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SCHEDULES = ("1f1b", "gpipe")


class Task(NamedTuple):
    """One micro-batch through one stage: forward or back."""

    kind: str
    batch: int

    def __str__(self) -> str:
        return f"{self.kind}{self.batch}"

    @staticmethod
    def parse(text: str) -> Task:
        """Return what `str` made text of."""
        return Task(text[0], int(text[1:]))


def orders(schedule: str, num_stages: int, batches: int) -> list[list[Task]]:
    """Return each stage's tasks, in order.

    "gpipe" goes forward with all micro-batches, then back with all. "1f1b" begins to go back as
    soon as it can: a stage takes in only as many micro-batches as there are stages from it to the
    end, and from then on one for each that it has done with.
    """
    stages = []
    for stage in range(num_stages):
        ahead = batches if schedule == "gpipe" else min(num_stages - stage - 1, batches)
        forward = [Task("F", batch) for batch in range(batches)]
        backward = [Task("B", batch) for batch in range(batches)]
        turns = chain.from_iterable(zip_longest(forward[ahead:], backward))
        stages.append(forward[:ahead] + [task for task in turns if task is not None])
    return stages


def source(stage: int, task: Task, num_stages: int) -> int | None:
    """Return the stage that this task's value comes from: its neighbour, if it has one."""
    neighbour = stage - 1 if task.kind == "F" else stage + 1
    return neighbour if 0 <= neighbour < num_stages else None


def in_turn(orders: Sequence[Sequence[Task]]) -> Iterator[tuple[int, Task]]:
    """Yield all tasks with their stages, each after those that it needs."""
    todo = [deque(tasks) for tasks in orders]
    done: set[tuple[int, Task]] = set()
    while any(todo):
        before = len(done)
        for stage, tasks in enumerate(todo):
            while tasks:
                needed = source(stage, tasks[0], len(todo))
                if needed is not None and (needed, tasks[0]) not in done:
                    break
                done.add((stage, tasks[0]))
                yield stage, tasks.popleft()
        assert len(done) > before, f"these tasks wait for each other: {todo}"


def is_possible(lanes: Sequence[Lane]) -> bool:
    """Tell whether no task began before the one whose value it needs had ended."""
    boxes = [{box.name: box for box in lane.boxes} for lane in lanes]
    for stage, of_stage in enumerate(boxes):
        for name, box in of_stage.items():
            needed = None if name == "step" else source(stage, Task.parse(name), len(lanes))
            if needed is not None and box.begin_s < boxes[needed][name].end_s:
                return False
    return True


def ideal(
    orders: Sequence[Sequence[Task]], length_s: Callable[[int, Task], float], last_s: float = 0
) -> list[Lane]:
    """Say when each task would run if only the tasks took time.

    Args:
        orders: Each stage's tasks.
        length_s: How long a task of a stage takes.
        last_s: How long all stages take for what they do after their tasks.
    """
    ends: dict[tuple[int, Task], float] = {}
    boxes: list[list[Box]] = [[] for _ in orders]
    for stage, task in in_turn(orders):
        needed = source(stage, task, len(orders))
        begin_s = 0.0 if needed is None else ends[needed, task]
        if boxes[stage]:
            begin_s = max(begin_s, boxes[stage][-1].end_s)
        ends[stage, task] = begin_s + length_s(stage, task)
        boxes[stage].append(
            Box(execution=0, name=str(task), begin_s=begin_s, end_s=ends[stage, task])
        )
    for of_stage in boxes:
        begin_s = of_stage[-1].end_s
        of_stage.append(Box(execution=0, name="step", begin_s=begin_s, end_s=begin_s + last_s))
    return [
        Lane(label=f"stage {stage}", boxes=tuple(of_stage))
        for stage, of_stage in enumerate(boxes, 1)
    ]


def as_text(orders: Sequence[Sequence[Task]]) -> str:
    """Return a line for each stage, on which every task takes a column."""
    lanes = ideal(orders, lambda _stage, _task: 1.0)
    width = 1 + max(len(str(task)) for task in orders[0])
    lines = []
    for lane in lanes:
        columns = {int(box.begin_s): box.name for box in lane.boxes if box.name != "step"}
        cells = (columns.get(column, ".") for column in range(max(columns) + 1))
        lines.append(f"{lane.label} | " + "".join(cell.ljust(width) for cell in cells).rstrip())
    return "\n".join(lines)
