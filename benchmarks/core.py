"""The case `core`: calls of actors, tasks and objects, without a graph."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks import ours, peers, pipe
from benchmarks.memory import settled_pss
from benchmarks.registry import Config, Plan, Row, case
from benchmarks.rounds import compare, interleave, started
from benchmarks.works import core_works

if TYPE_CHECKING:
    from collections.abc import Iterator

IDLE_ACTORS = 4
LOAD_LIMIT_S = 120.0


@case(
    full=Plan(actors=(1,), rounds=7, trips=1000),
    quick=Plan(actors=(1,), rounds=2, trips=100),
    limit_s=1800.0,
)
def core(config: Config) -> Iterator[Row]:
    """Calls, tasks, objects: round trips, batches, memory, many at once."""
    with ExitStack() as stack:
        below = stack.enter_context(pipe.ping_pong())  # it forks: first
        stack.enter_context(ours.session())
        settled_pss()  # processes that fork actors go on importing for seconds
        for what, work in core_works(config.trips).items():
            with ours.side(work) as mine, started(config.open_peer(what)) as other:
                sides = [mine, below, other.side]
                measured = interleave(sides, config.rounds, config.trips)
            yield {"what": what} | compare(measured) | other.failure
    yield {"case": "core-memory", **_memory(config)}
    for name, number in (("pending", 100 * config.trips), ("alive", config.trips // 5)):
        yield {"case": f"core-{name}", **_load(name, number)}


def _memory(config: Config) -> Row:
    row = _load("memory", IDLE_ACTORS)
    if config.peer is not None:
        other = _load("memory", IDLE_ACTORS, config.peer.name)["pss_mib"]
        assert isinstance(other, float)
        assert isinstance(row["pss_mib"], float)
        row[f"{config.peer.name}_pss_mib"] = other
        row[f"{config.peer.name}_ratio"] = round(other / row["pss_mib"], 2)
    return row


def _load(name: str, number: int, system: str = "ours") -> Row:
    """Run a part in a fresh interpreter, a peer's in its own; see `benchmarks.load`."""
    mine = system == "ours"
    python = sys.executable if mine else str(peers.python())
    done = subprocess.run(
        [python, "-m", "benchmarks.load", name, str(number), system],
        check=False,
        capture_output=True,
        text=True,
        timeout=LOAD_LIMIT_S,
        env=None if mine else peers.environment(),
    )
    if done.returncode:
        raise RuntimeError(f"benchmarks.load {name} ended with {done.returncode}:\n{done.stderr}")
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row
