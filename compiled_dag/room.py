"""Refuses a graph whose processes or slots can never be there, before any process is started."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from compiled_dag.channel import layout as at
from compiled_dag.class_node import ClassNode
from compiled_dag.errors import GraphError, MemoryCapError
from compiled_dag.shm.segment import PAGE, available_bytes, no_descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from compiled_dag.capture import Captured
    from compiled_dag.host import ActorId
    from compiled_dag.options import CompileOptions
    from compiled_dag.owned import NewActor
    from compiled_dag.program import Program

_REMEDY: Final = (
    "Ask for less, or start the session with more: init(num_cpus=, num_gpus=, resources=), which "
    "are only counted, not measured"
)

_GROWS: Final = (
    "It is the first size of every slot: leave it out, and channels grow as far as values need it"
)


@contextlib.contextmanager
def needing_descriptors() -> Iterator[None]:
    """Say of what fails for want of file descriptors that this is why.

    Raises:
        OSError: There are none, with ``errno.EMFILE``.
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        msg = f"the graph cannot be compiled: {no_descriptors()}"
        raise OSError(errno.EMFILE, msg) from error


def check_room(captured: Captured) -> None:
    """Check that the processes that the graph will have for itself can be placed, all together.

    Raises:
        GraphError: One asks for more than the session has in all, or all do.
    """
    if not captured.new_actors:
        return
    totals = captured.host.totals()
    for new in captured.new_actors:
        short = _short(new.remote.needs, totals)
        if short:
            msg = (
                f"{_describe(captured, new)} can never run: its process asks for more than the "
                f"session has in all ({short}). {_REMEDY}"
            )
            raise GraphError(msg)
    _check_together(captured, totals)


def fit_slots(program: Program, options: CompileOptions) -> CompileOptions:
    """Return the options with payload slots that there can be.

    A size that nobody chose gives way to the graph's cap, so that every channel may have two, and
    to what a channel can address.

    Raises:
        GraphError: The graph's own cap does not allow one of the size that was asked for, or a
            channel cannot address its slots.
        MemoryCapError: There is no memory for one.
    """
    if not options.has_chosen_buffer:
        size = min(options.buffer_size_bytes, _most(program))
        if options.max_memory_bytes is not None:
            share = options.max_memory_bytes // max(1, 2 * len(program.channels))
            size = min(size, max(PAGE, share // PAGE * PAGE))
        options = dataclasses.replace(options, buffer_size_bytes=size)
    _check_slots(program, options)
    return options


def _most(program: Program) -> int:
    """Return the largest slots of which a channel can address as many as it may need."""
    return at.REGION // (program.depth + 2)


def _check_slots(program: Program, options: CompileOptions) -> None:
    size, cap = options.buffer_size_bytes, options.max_memory_bytes
    asked = f"_buffer_size_bytes={size}"
    if cap is not None and size > cap and options.has_chosen_buffer:
        msg = (
            f"{asked} is more than _max_memory_bytes={cap}: the graph could not have one payload "
            "slot. Lower the first, from which channels grow by themselves, or raise the second"
        )
        raise GraphError(msg)
    available = available_bytes()
    if size > available:
        msg = (
            f"{asked}: there is no memory for one payload slot; {available} bytes are available "
            f"(MemAvailable, or the cgroup's limit). {_GROWS}"
        )
        raise MemoryCapError(msg)
    most = _most(program)
    if size > most:
        msg = (
            f"{asked} with _max_inflight_executions={program.depth} is more than a channel can "
            f"address: at most {most} bytes a slot. {_GROWS}"
        )
        raise GraphError(msg)


def _check_together(captured: Captured, totals: Mapping[str, float]) -> None:
    """Check what processes hold as long as the graph lives."""
    held: dict[str, float] = defaultdict(float)
    holders: dict[str, list[str]] = defaultdict(list)
    new_ids = {new.actor_id for new in captured.new_actors}
    for actor in captured.actors:
        if actor.actor_id not in new_ids and actor.num_gpus:
            held["GPU"] += actor.num_gpus
            holders["GPU"].append(f"{actor.label}: {actor.num_gpus:g}")
    for new in captured.new_actors:
        for name, amount in new.remote.holds.items():
            held[name] += amount
            holders[name].append(f"{_describe(captured, new)}: {amount:g}")
    short = _short(held, totals)
    if short:
        who = "; ".join(
            f"{name} by {', '.join(holders[name])}"
            for name in held
            if held[name] > totals.get(name, 0)
        )
        msg = (
            "the graph's processes can never be there at one time: together they hold more than "
            f"the session has in all ({short}): {who}. {_REMEDY}"
        )
        raise GraphError(msg)


def _short(wanted: Mapping[str, float], totals: Mapping[str, float]) -> str:
    """Return what is wanted beyond what there is; empty if nothing."""
    return ", ".join(
        f"{name}: {amount:g} of {totals.get(name, 0):g}"
        for name, amount in wanted.items()
        if round(amount, 6) > totals.get(name, 0)
    )


def _describe(captured: Captured, new: NewActor) -> str:
    if isinstance(new.made_by, ClassNode):
        return f"{new.label}, bound at {new.made_by._source}"
    return _call_on(captured, new.actor_id)


def _call_on(captured: Captured, worker: ActorId) -> str:
    """Return the first call of a function that a worker runs."""
    return next(node.describe() for node in captured.graph.nodes if node.actor == worker)
