"""What messages say when a graph's window is full: how many, which, and who holds them."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from compiled_dag.program import Compute

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.deployment import Deployment
    from compiled_dag.options import CompileOptions
    from compiled_dag.results import Results

_MOST_NAMED: Final = 3


def full(
    deployment: Deployment,
    results: Results,
    options: CompileOptions,
    unfetched: Sequence[int],
    num_waiting: int,
) -> str:
    """Say that there is no place for one more execution.

    Args:
        deployment: The graph.
        results: Its results.
        options: What it was compiled with.
        unfetched: Numbers of the executions sent and not fetched.
        num_waiting: How many more wait to be sent.
    """
    since = f", from execution {unfetched[0]} on" if unfetched else ""
    facts = [f"{len(unfetched)} executions of graph {deployment.name} are unfetched{since}"]
    facts[0] += f", and _max_inflight_executions={options.max_inflight}"
    if options.capacity_policy == "queue":
        facts.append(
            f"{num_waiting} more wait to be sent, and _max_queued_executions={options.max_queued}"
        )
    if options.capacity_policy == "block":
        option = "_submit_timeout (COMPILED_DAG_SUBMIT_TIMEOUT)"
        facts.append(f"no place came free within {option}={options.submit_timeout_s} s")
    if results.num_kept() >= options.max_buffered_results:
        facts.append(
            f"{results.num_kept()} results were kept for refs that were not got, and "
            f"_max_buffered_results={options.max_buffered_results}"
        )
    holders = (text for number in unfetched if (text := _holder(deployment, results, number)))
    facts += islice(holders, _MOST_NAMED)
    wait = 'use _capacity_policy="block" (or "queue", "drop_oldest")'
    other = wait if options.capacity_policy == "raise" else "give it more time"
    return "; ".join(facts) + (
        ". Get results before executing more (one whose refs were dropped counts until it has "
        f"finished), raise the limit, or {other}"
    )


def _holder(deployment: Deployment, results: Results, number: int) -> str:
    """Say what an execution waits for: nothing, where it only stands behind another one."""
    if results.is_finished(number):
        outputs = results.unread(number)
        if not outputs:
            return ""
        what = "output" if len(outputs) == 1 else "outputs"
        verb = "was" if len(outputs) == 1 else "were"
        return f"execution {number} has finished and {what} {_list(outputs)} {verb} not got"
    actors = [
        f"{deployment.actors[participant - 1].label} is in it ({step})"
        for participant, step in _steps_in(deployment, number)
    ]
    return f"execution {number} has not finished: {', '.join(actors) or 'no actor is at it yet'}"


def _list(outputs: Sequence[int]) -> str:
    return ", ".join(map(str, outputs))


def _steps_in(deployment: Deployment, number: int) -> list[tuple[int, str]]:
    """Return who runs user code of an execution, and which."""
    found = []
    for participant in range(1, len(deployment.actors) + 1):
        progress = deployment.segment.progress(participant)
        if progress.execution == number and progress.step:
            step = deployment.program.steps[participant][progress.step - 1]
            if isinstance(step, Compute):
                found.append(
                    (participant, deployment.observer.describe(participant, progress.step))
                )
    return found


def dropped(deployment: Deployment, options: CompileOptions, number: int | None, by: int) -> str:
    """Say that an execution gave its place to another.

    Args:
        deployment: The graph.
        options: What it was compiled with.
        number: The execution; None for one that was never sent.
        by: The execution that replaced it.
    """
    what = "an execution that still waited to be sent" if number is None else f"execution {number}"
    return (
        f"{what} of graph {deployment.name} was dropped for execution {by}: "
        f'_capacity_policy="drop_oldest" and _max_inflight_executions={options.max_inflight}. Get '
        "results sooner, or raise the limit"
    )
