"""What CUDA does where its documentation says nothing, or where it costs: ``-m gpu_tests.facts``.

Nothing of ours but the calls (`compiled_dag.cuda.cupy_driver`). Each fact is found out in processes
of its own, which are given up after `LIMIT_S`: some may hang. One line of JSON for each.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from compiled_dag.cuda.cupy_driver import CupyDriver

    Fact = dict[str, Any]

LIMIT_S: Final = 30.0
_SOON_S: Final = 2.0
"""What is not done by then counts as never done."""
_MIB: Final = 1 << 20
_CYCLES_PER_MS: Final = 1_500_000
_MANY: Final = 1000


def main(arguments: list[str]) -> int:
    """Find all facts, or be one of the processes of one."""
    if arguments:
        found = FACTS[arguments[0]]() if arguments[0] in FACTS else _PEERS[arguments[0]]()
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    codes = [_told(name) for name in FACTS]
    return max(codes)


def _told(name: str) -> int:
    """Have a process find a fact; say it, or what became of the process."""
    process = _started(name, stderr=subprocess.STDOUT)
    try:
        text, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        text, _ = process.communicate()
        text += f"\nnot over in {LIMIT_S} s"
    lines = text.strip().splitlines() or ["nothing said"]
    if process.returncode:
        sys.stdout.write(f"{name}: FAILED\n{text}\n")
        return 1
    sys.stdout.write(f"{name}: {lines[-1]}\n")
    return 0


def _started(name: str, **more: Any) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "gpu_tests.facts", name]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, **more)


@contextmanager
def _peer(name: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Start another process; it and what it said first."""
    with _started(name) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def _driver() -> tuple[CupyDriver, Any]:
    import torch

    from compiled_dag.cuda.cupy_driver import CupyDriver

    torch.cuda.init()
    driver = CupyDriver()
    driver.select(0)
    return driver, torch


def _stays(hold: bytes, event: bytes) -> None:
    """Say what this process exports, and wait to be killed."""
    sys.stdout.write(json.dumps({"memory": hold.hex(), "event": event.hex()}) + "\n")
    sys.stdout.flush()
    signal.pause()


def _busy_peer() -> None:
    """Record an event behind a kernel that takes a minute, and fill memory before that."""
    driver, torch = _driver()
    pointer, event = driver.allocate(2 * _MIB), driver.make_event(is_shared=True)
    ones = torch.ones(_MIB, dtype=torch.uint8, device="cuda")
    driver.copy(pointer, ones.data_ptr(), _MIB, 0)
    torch.cuda.synchronize()
    torch.cuda._sleep(60_000 * _CYCLES_PER_MS)
    driver.record(event, 0)
    _stays(driver.export_memory(pointer), driver.export_event(event))


def _idle_peer() -> None:
    """Export memory and an event that is done."""
    driver, _ = _driver()
    pointer, event = driver.allocate(2 * _MIB), driver.make_event(is_shared=True)
    driver.record(event, 0)
    _stays(driver.export_memory(pointer), driver.export_event(event))


def _done_soon(driver: CupyDriver, event: int) -> float | None:
    """Return in how many seconds an event is done; None if it is not soon."""
    begun = time.perf_counter()
    while time.perf_counter() - begun < _SOON_S:
        if driver.is_done(event):
            return round(time.perf_counter() - begun, 4)
    return None


def _versions() -> Fact:
    _, torch = _driver()
    import cupy

    facts = torch.cuda.get_device_properties(0)
    return {
        "torch": torch.__version__, "cuda": torch.version.cuda, "cupy": cupy.__version__,
        "nccl": torch.cuda.nccl.version(), "gpu": facts.name, "python": sys.version.split()[0],
        "kernel": os.uname().release, "cores": os.cpu_count(),
        "driver": cupy.cuda.runtime.driverGetVersion(),
    }  # fmt: skip


def _cycles() -> Fact:
    """Return what kernels of `torch.cuda._sleep` really take."""
    _, torch = _driver()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(_CYCLES_PER_MS)
    begin.record()
    torch.cuda._sleep(100 * _CYCLES_PER_MS)
    end.record()
    end.synchronize()
    return {"ms_of_100": round(begin.elapsed_time(end), 2)}


def _host_times() -> Fact:
    """Return what calls take on the host, on this process's own things."""
    driver, _ = _driver()
    pointer, event = driver.allocate(2 * _MIB), driver.make_event(is_shared=True)
    calls: dict[str, Callable[[], object]] = {
        "record": lambda: driver.record(event, 0),
        "wait": lambda: driver.wait(0, event),
        "is_done": lambda: driver.is_done(event),
        "copy_4_bytes": lambda: driver.copy(pointer + _MIB, pointer, 4, 0),
        "current": driver.current,
    }
    return {name: _us(call) for name, call in calls.items()}


def _us(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    for _ in range(_MANY):
        call()
    return round((time.perf_counter() - begun) / _MANY * 1e6, 2)


def _sharing() -> Fact:
    """Return whether memory and events can be opened, and what calls on opened ones take."""
    driver, _ = _driver()
    with _peer("idle peer") as (_, handles):
        begun = time.perf_counter()
        pointer = driver.import_memory(bytes.fromhex(handles["memory"]))
        event = driver.import_event(bytes.fromhex(handles["event"]))
        opened_ms = round((time.perf_counter() - begun) * 1e3, 2)
        again = driver.import_memory(bytes.fromhex(handles["memory"]))
        found = {
            "opened_ms": opened_ms,
            "opened_twice_is_one_address": again == pointer,
            "wait_us": _us(lambda: driver.wait(0, event)),
            "is_done_us": _us(lambda: driver.is_done(event)),
        }
        driver.close_memory(again)
        driver.close_memory(pointer)
        driver.destroy_event(event)
        return found


def _own_handles() -> Fact:
    """Return what becomes of opening what the same process has exported."""
    driver, _ = _driver()
    pointer, event = driver.allocate(2 * _MIB), driver.make_event(is_shared=True)
    handle, of_event = driver.export_memory(pointer), driver.export_event(event)
    return {
        "memory": _status(driver, lambda: driver.import_memory(handle)),
        "event": _status(driver, lambda: driver.import_event(of_event)),
    }


def _status(driver: CupyDriver, call: Callable[[], object]) -> str:
    try:
        call()
    except driver.error_type as error:
        return str(error)
    return "allowed"


def _dead_event() -> Fact:
    """Return what becomes of a stream that waits for an event of a process that has died.

    And whether the event, recorded again by who waits, on a stream that is idle, sets it free.
    """
    driver, torch = _driver()
    waiting, idle = torch.cuda.Stream(), torch.cuda.Stream()
    mark = driver.make_event(is_shared=False)
    with _peer("busy peer") as (process, handles):
        event = driver.import_event(bytes.fromhex(handles["event"]))
        driver.wait(waiting.cuda_stream, event)
        driver.record(mark, waiting.cuda_stream)
        before = _done_soon(driver, mark)
        process.kill()
        process.wait()
        found: Fact = {"before_s": before, "after_death_s": _done_soon(driver, mark)}
        driver.record(event, idle.cuda_stream)
        found["recorded_again_s"] = _done_soon(driver, mark)
        found["others_work"] = _works_on(torch, idle)
        return found


def _works_on(torch: Any, stream: Any) -> bool:
    with torch.cuda.stream(stream):
        done = torch.ones(1000, device="cuda")
        mark = torch.cuda.Event()
        mark.record(stream)
    deadline = time.perf_counter() + _SOON_S
    while not mark.query():
        if time.perf_counter() > deadline:
            return False
    return bool(done.numel())


def _dead_memory() -> Fact:
    """Return what becomes of memory whose owner has died: of a copy from it, of closing it."""
    driver, torch = _driver()
    target = torch.zeros(_MIB, dtype=torch.uint8, device="cuda")
    with _peer("busy peer") as (process, handles):
        pointer = driver.import_memory(bytes.fromhex(handles["memory"]))
        process.kill()
        process.wait()
        time.sleep(0.5)
        driver.copy(target.data_ptr(), pointer, _MIB, 0)
        mark = driver.make_event(is_shared=False)
        driver.record(mark, 0)
        return {
            "copy_s": _done_soon(driver, mark),
            "content_is_left": bool(target.min() == 1),
            "close": _status(driver, lambda: driver.close_memory(pointer)),
        }


def _pinning() -> Fact:
    """Return what pinning costs, what it gives, and what pinning twice is."""
    import ctypes

    driver, torch = _driver()
    nbytes = 64 * _MIB
    fd = os.memfd_create("facts")
    os.ftruncate(fd, nbytes)
    memory = mmap.mmap(fd, nbytes)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    begun = time.perf_counter()
    driver.register(address, nbytes)
    found: Fact = {"pin_64_mib_ms": round((time.perf_counter() - begun) * 1e3, 2)}
    found["twice"] = _status(driver, lambda: driver.register(address, nbytes))
    source = torch.ones(nbytes, dtype=torch.uint8, device="cuda")
    for name, (to, of) in {
        "to_host_gb_per_s": (address, source.data_ptr()),
        "to_gpu_gb_per_s": (source.data_ptr(), address),
    }.items():
        driver.copy(to, of, nbytes, 0)
        torch.cuda.synchronize()
        begun = time.perf_counter()
        driver.copy(to, of, nbytes, 0)
        torch.cuda.synchronize()
        found[name] = round(nbytes / (time.perf_counter() - begun) / 1e9, 1)
    driver.unregister(address)
    return found


def _captured_wait() -> Fact:
    """Return whether a capture allows a wait for an event of the kind that is shared."""
    driver, torch = _driver()
    event = driver.make_event(is_shared=True)
    driver.record(event, torch.cuda.current_stream().cuda_stream)
    try:
        with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="thread_local"):
            driver.wait(torch.cuda.current_stream().cuda_stream, event)
            torch.ones(4, device="cuda")
    except (RuntimeError, driver.error_type) as error:
        return {"wait": f"refused: {error}"}
    return {"wait": "allowed"}


FACTS: Final = {
    "versions": _versions,
    "cycles": _cycles,
    "host times": _host_times,
    "sharing": _sharing,
    "own handles": _own_handles,
    "pinning": _pinning,
    "captured wait": _captured_wait,
    "dead memory": _dead_memory,
    "dead event": _dead_event,
}
_PEERS: Final = {"busy peer": _busy_peer, "idle peer": _idle_peer}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
