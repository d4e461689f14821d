"""Put a load on a fresh interpreter's session and print what it came to, as JSON.

    python -m benchmarks.load memory 4 ours

A part of the cases `core`, `memory` and `idle`: memory can only be read where nothing else has been
measured before.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.graphs import drawn_chain, up
from benchmarks.memory import allocated, family, processor_ns, pss, settled_pss
from benchmarks.systems import SYSTEMS, System
from benchmarks.works import Worker

if TYPE_CHECKING:
    from benchmarks.registry import Row

MIB = 1 << 20
_IDLE_S = 3.0


def memory(actors: int, system: System) -> Row:
    """Weigh an idle session with some actors: this process, theirs, and those that fork them."""
    runtime = system.load()
    with runtime.init(**dict(system.options)):
        remote = runtime.remote(Worker)
        handles = [remote.remote() for _ in range(actors)]
        runtime.get([handle.echo.remote(1) for handle in handles])
        total = settled_pss()
        return {
            "actors": actors,
            "processes": len(family()),
            "ours_mib": round(total / MIB, 1),
            "driver_mib": round(pss(os.getpid()) / MIB, 1),
        }


def chain(actors: int, system: System) -> Row:
    """Weigh a session with a compiled chain that has run for a while."""
    runtime = system.load()
    with runtime.init(**dict(system.options)):
        with up(system, drawn_chain(actors)) as compiled:
            for _ in range(1000):
                runtime.get(compiled.execute(1))
            total = settled_pss()
        return {"actors": actors, "ours_mib": round(total / MIB, 1)}


def idle(actors: int, system: System) -> Row:
    """Read how much processor time a compiled chain takes that has nothing to do."""
    runtime = system.load()
    with runtime.init(**dict(system.options)):
        with up(system, drawn_chain(actors)) as compiled:
            for _ in range(1000):
                runtime.get(compiled.execute(1))
            settled_pss()  # what starts processes goes on for seconds
            before, began = processor_ns(), time.perf_counter_ns()
            time.sleep(_IDLE_S)
            took, lasted = processor_ns() - before, time.perf_counter_ns() - began
        return {"actors": actors, "ours_percent": round(100 * took / lasted, 3)}


def pending(tasks: int, system: System) -> Row:
    """Submit tasks behind one that holds the only CPU, weigh them, then let them run."""
    runtime = system.load()
    with runtime.init(num_cpus=1), tempfile.TemporaryDirectory() as folder:
        gate = Path(folder) / "open"
        held = runtime.remote(_held).remote(str(gate))
        echo = runtime.remote(_echo)
        runtime.wait([held], timeout=1)
        echo.remote(0)  # the function is there before anything is counted
        gc.collect()
        before, began = allocated(os.getpid()), time.perf_counter()
        refs = [echo.remote(number) for number in range(tasks)]
        submitted = time.perf_counter()
        nbytes = allocated(os.getpid()) - before
        gate.touch()
        released = time.perf_counter()
        answers = runtime.get(refs)
        ended = time.perf_counter()
        if answers != list(range(tasks)):
            raise SystemExit("the tasks did not echo their input")
        return {
            "tasks": tasks,
            "bytes_per_task": nbytes // tasks,
            "submit_us": round((submitted - began) / tasks * 1e6, 2),
            "ours_us": round((ended - released) / tasks * 1e6, 2),
        }


def alive(actors: int, system: System) -> Row:
    """Have many actors alive at once."""
    runtime = system.load()
    runtime.init()
    runtime.get(runtime.remote(Worker).remote().echo.remote(1))
    before = settled_pss()
    began = time.perf_counter()
    remote = runtime.remote(Worker)
    handles = [remote.remote() for _ in range(actors)]
    runtime.get([handle.echo.remote(1) for handle in handles])
    answered = time.perf_counter()
    runtime.get([handle.echo.remote(1) for handle in handles])
    again = time.perf_counter()
    grown = settled_pss() - before
    ending = time.perf_counter()
    runtime.shutdown()
    ended = time.perf_counter()
    return {
        "actors": actors,
        "start_ms": round((answered - began) * 1e3, 1),
        "start_each_ms": round((answered - began) / actors * 1e3, 2),
        "call_all_ms": round((again - answered) * 1e3, 2),
        "mib_each": round(grown / actors / MIB, 2),
        "shutdown_ms": round((ended - ending) * 1e3, 1),
    }


def _held(gate: str) -> None:
    while not Path(gate).exists():
        time.sleep(0.001)


def _echo(value: int) -> int:
    return value


LOADS = {load.__name__: load for load in (memory, chain, idle, pending, alive)}

if __name__ == "__main__":
    json.dump(LOADS[sys.argv[1]](int(sys.argv[2]), SYSTEMS[sys.argv[3]]), sys.stdout)
