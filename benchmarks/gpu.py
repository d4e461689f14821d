"""The case of GPUs: tensors between actors on one, beside raw copies and torch's own sharing."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

import runtime
from benchmarks import gpu_actors
from benchmarks.gpu_raw import raw
from benchmarks.registry import Config, Plan, Row, case
from benchmarks.rounds import Side, compare, interleave, timed
from benchmarks.stats import paired_differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.rounds import Measured

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_SIZES: Final = (4, MIB, 64 * MIB, GIB)
_FEW_BYTES: Final = 64 * MIB
"""The largest size of quick runs and of the CPU."""
_BUSY_MS: Final = 20.0
_STAGES: Final = 4
_MICRO_BATCHES: Final = 16
_IN_FLIGHT: Final = 8
_WAIT_S: Final = 120.0
WHATS: Final = ("hop", "host", "bandwidth", "pipeline", "allreduce")


@case(
    full=Plan(actors=(2,), rounds=7, trips=50, whats=WHATS),
    quick=Plan(actors=(2,), rounds=2, trips=10, whats=WHATS),
    limit_s=600.0,
)
def gpu(config: Config) -> Iterator[Row]:
    """Tensors between actors on one GPU: latency, host time, bandwidth, a pipeline, allreduce."""
    why = gpu_actors.why_not()
    if why:
        yield {"skipped": why}
        return
    parts = {
        "hop": _hop,
        "host": _host,
        "bandwidth": _bandwidth,
        "pipeline": _pipeline,
        "allreduce": _allreduce,
    }
    for row in parts[config.what](config):
        yield {"device": gpu_actors.device(), **row}


def sizes(config: Config) -> tuple[int, ...]:
    """Return the sizes of a configuration: its own, or those of the case."""
    if config.nbytes:
        return (config.nbytes,)
    most = _FEW_BYTES if config.quick or gpu_actors.device() == "cpu" else GIB
    return tuple(nbytes for nbytes in _SIZES if nbytes <= most)


def hops_of(nbytes: int) -> int:
    """Return how often a tensor goes over in one execution: each time it has a ring of its own."""
    return 16 if nbytes <= MIB else 8 if nbytes <= 64 * MIB else 2


def trips_of(config: Config, nbytes: int) -> int:
    """Return the trips of a block: fewer of large tensors."""
    return max(3, min(config.trips, (4 * GIB) // max(nbytes * hops_of(nbytes), 1)))


def figures(nbytes: int, ours_us: float, two_copies_us: float) -> Row:
    """Return what the GPU's memory gave, in GB/s of copying, and the share of what it can give."""
    if nbytes < MIB:
        return {}
    moved = 2 * nbytes / 1e3
    return {
        "gb_per_s": round(moved / ours_us, 1),
        "ceiling_gb_per_s": round(moved / two_copies_us, 1),
        "fraction": round(two_copies_us / ours_us, 3),
    }


def overhead_us(measured: Measured, stages: int) -> float:
    """Return what ours takes more than the work alone, for each stage, over the rounds."""
    ours, alone = ([block.p50_ns for block in measured.blocks[side]] for side in ("ours", "alone"))
    return round(median(paired_differences(ours, alone)) / stages / 1e3, 2)


def _hop(config: Config) -> Iterator[Row]:
    """Yield the time of one hop among many, beside two copies, and beside torch's sharing."""
    for nbytes in sizes(config):
        hops = hops_of(nbytes)
        with ExitStack() as stack:
            copies = stack.enter_context(raw("copies", "copies", nbytes, hops))
            shared = stack.enter_context(raw("torch_ipc", "shared", nbytes, hops))
            graph = stack.enter_context(_bouncing(nbytes, hops, "give", "settle"))
            ours = _side(partial(_settled, graph), hops)
            row = _compared(config, nbytes, [ours, copies, shared])
            transport = gpu_actors.transport_of(graph)
        yield {"bytes": nbytes, "hops": hops, "transport": transport, **row}


def _host(config: Config) -> Iterator[Row]:
    """Yield what hosts take for a hop while the GPU is busy: nobody waits for it."""
    hops, nbytes = hops_of(MIB), MIB
    with ExitStack() as stack:
        actors = stack.enter_context(gpu_actors.session(2))
        graph = stack.enter_context(_graph(actors, nbytes, hops, "give_behind", "note"))

        def enqueue() -> int:
            begin = perf_counter_ns()
            graph.execute(_BUSY_MS).get(_WAIT_S)
            took = perf_counter_ns() - begin
            runtime.get([actor.drain.remote() for actor in actors], timeout=_WAIT_S)
            return took

        for _ in range(5):
            enqueue()
        side = Side(name="ours", block=lambda n: [enqueue() // hops for _ in range(n)])
        row = compare(interleave([side], config.rounds, config.trips))
        transport = gpu_actors.transport_of(graph)
    kernel_us = _BUSY_MS * 1e3
    if gpu_actors.device() == "cuda" and _number(row, "ours_us") * hops >= kernel_us / 2:
        raise RuntimeError(f"hosts took {row['ours_us']} us a hop: they waited for the GPU")
    yield {"bytes": nbytes, "hops": hops, "transport": transport, **row}


def _bandwidth(config: Config) -> Iterator[Row]:
    """Yield the time of an execution of one hop, with several in flight."""
    for nbytes in (size for size in sizes(config) if size >= MIB):
        with ExitStack() as stack:
            copies = stack.enter_context(raw("copies", "copies", nbytes, _IN_FLIGHT))
            graph = stack.enter_context(_bouncing(nbytes, 1, "give", "settle"))
            ours = _side(partial(_batch, graph, _IN_FLIGHT), _IN_FLIGHT)
            row = _compared(config, nbytes * _IN_FLIGHT, [ours, copies])
        shares = figures(nbytes, _number(row, "ours_us"), _number(row, "copies_us"))
        yield {"bytes": nbytes, "in_flight": _IN_FLIGHT, **row, **shares}


def _pipeline(config: Config) -> Iterator[Row]:
    """Yield what a micro-batch takes beyond its kernels, for each stage."""
    with ExitStack() as stack:
        alone = stack.enter_context(raw("alone", "layers", _STAGES, _MICRO_BATCHES))
        actors = stack.enter_context(gpu_actors.session(_STAGES))
        runtime.get([actor.hold_layers.remote() for actor in actors], timeout=_WAIT_S)
        drawn = gpu_actors.drawn_pipeline(actors)
        graph = stack.enter_context(
            drawn.experimental_compile(_max_inflight_executions=_MICRO_BATCHES)
        )
        ours = _side(partial(_batch, graph, _MICRO_BATCHES), _MICRO_BATCHES)
        measured = interleave([ours, alone], config.rounds, config.trips)
        transport = gpu_actors.transport_of(graph)
    row = compare(measured) | {"overhead_us": overhead_us(measured, _STAGES)}
    yield {"actors": _STAGES, "micro_batches": _MICRO_BATCHES, "transport": transport, **row}


def _allreduce(config: Config) -> Iterator[Row]:
    """Yield the time of an allreduce in a graph, beside the sum of as many tensors in one place."""
    for ranks in (2, 4):
        for nbytes in (size for size in sizes(config) if size <= _FEW_BYTES):
            with ExitStack() as stack:
                alone = stack.enter_context(raw("alone", "sums", nbytes, ranks))
                actors = stack.enter_context(gpu_actors.session(ranks))
                runtime.get([actor.hold.remote(nbytes) for actor in actors], timeout=_WAIT_S)
                graph = stack.enter_context(gpu_actors.drawn_sum(actors).experimental_compile())
                ours = _side(partial(_summed, graph), 1)
                row = _compared(config, nbytes, [ours, alone])
                backend = gpu_actors.transport_of(graph)
            yield {"actors": ranks, "bytes": nbytes, "transport": backend, **row}


@contextmanager
def _bouncing(nbytes: int, hops: int, source: str, sink: str) -> Iterator[Any]:
    with gpu_actors.session(2) as actors, _graph(actors, nbytes, hops, source, sink) as graph:
        yield graph


@contextmanager
def _graph(actors: list[Any], nbytes: int, hops: int, source: str, sink: str) -> Iterator[Any]:
    """Compile a tensor's way; its rings have few slots, which grow when it first comes."""
    runtime.get([actor.hold.remote(nbytes) for actor in actors], timeout=_WAIT_S)
    drawn = gpu_actors.drawn_hops(actors, hops, source, sink)
    in_flight = _IN_FLIGHT if hops == 1 else 2
    with drawn.experimental_compile(_max_inflight_executions=in_flight) as graph:
        yield graph


def _side(trip: Callable[[], object], each: int) -> Side:
    """Make our side of trips that are `each` times what is asked for."""
    block = timed(trip, warm_trips=5)
    return Side(name="ours", block=lambda trips: [time // each for time in block(trips)])


def _settled(graph: Any) -> None:
    graph.execute(0, True).get(_WAIT_S)


def _batch(graph: Any, count: int) -> None:
    """Have so many executions in flight, of which only the last one waits for the GPU."""
    refs = [graph.execute(0, number == count - 1) for number in range(count)]
    for ref in refs:
        ref.get(_WAIT_S)


def _summed(graph: Any) -> None:
    heads = runtime.get(graph.execute(0), timeout=_WAIT_S)
    if set(heads) != {float(len(heads))}:
        raise RuntimeError(f"{len(heads)} ones were summed to {heads}")


def _compared(config: Config, nbytes: int, sides: list[Side]) -> Row:
    return compare(interleave(sides, config.rounds, trips_of(config, nbytes)))


def _number(row: Row, name: str) -> float:
    value = row[name]
    assert isinstance(value, (int, float))
    return value
