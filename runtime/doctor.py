"""``compiled-dag doctor``: does this machine have what graphs need?

Each check is a function that returns findings. A failure means that nothing will work here, a
warning that something optional is missing, or that a limit may be met.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import platform
import resource
import select
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from compiled_dag.errors import MemoryCapError
from runtime.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NEEDED_PYTHON: Final = (3, 10)
_MACHINES: Final = ("x86_64", "aarch64")
_FEW_DESCRIPTORS: Final = 1024
"""An actor takes 5 descriptors of the driver's, a large value in memory 1."""
_FEW_PROCESSES: Final = 512
_LITTLE_MEMORY_BYTES: Final = 1 << 30
_SPARSE_BYTES: Final = 1 << 42
"""Address space of one channel's payload slots."""
_SHM: Final = Path("/dev/shm")  # noqa: S108  looked at, nothing is made there
_SMALL_SHM_BYTES: Final = 1 << 30
_ROUND_TRIPS: Final = 200
_WAIT_S: Final = 30.0


def examine(out: TextIO) -> int:
    """Run every check and write the report; returns 0, or 1 if something needed is missing."""
    counts = dict.fromkeys(Level, 0)
    for check in CHECKS:
        for finding in _findings(check):
            counts[finding.level] += 1
            out.write(f"{finding}\n")
            out.flush()
    warnings, failures = counts[Level.WARNING], counts[Level.FAILURE]
    summary = ", ".join(
        f"{count} {word}{'s' * (count != 1)}"
        for count, word in ((failures, "failure"), (warnings, "warning"))
        if count
    )
    out.write(f"\n{summary or 'all there'}\n")
    return 1 if failures else 0


def _findings(
    check: Callable[[], Iterator[Finding]], level: Level = Level.FAILURE
) -> Iterator[Finding]:
    """Run one check; what it raises is its finding, as bad as `level`."""
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001  a report of everything wrong needs all checks run
        subject = check.__name__.strip("_").replace("_", " ")
        yield Finding(level, subject, f"{type(error).__name__}: {error}")


def _python() -> Iterator[Finding]:
    found = f"{platform.python_version()} ({platform.python_implementation()}), {sys.executable}"
    if sys.version_info < _NEEDED_PYTHON or platform.python_implementation() != "CPython":
        yield Finding(Level.FAILURE, "python", found, "use CPython 3.10 or newer")
    else:
        yield Finding(Level.OK, "python", found)
    machine, system = platform.machine(), platform.system()
    level = Level.OK if system == "Linux" and machine in _MACHINES else Level.FAILURE
    advice = "" if level is Level.OK else f"only Linux on {' and '.join(_MACHINES)} is supported"
    yield Finding(level, "system", f"{system} {platform.release()} {machine}", advice)


def _packages() -> Iterator[Finding]:
    import cloudpickle  # noqa: PLC0415  a missing one is a finding
    import numpy as np  # noqa: PLC0415

    yield Finding(Level.OK, "numpy", np.__version__)
    yield Finding(Level.OK, "cloudpickle", cloudpickle.__version__)


def _torch() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        text = "not installed: graphs of tensors, and collectives, need it"
        yield Finding(Level.WARNING, "torch", text, "pip install 'compiled-dag[torch]'")
        return
    import torch  # noqa: PLC0415
    from torch import distributed  # noqa: PLC0415

    backends = [
        name
        for name, found in (
            ("gloo", distributed.is_available() and distributed.is_gloo_available()),
            ("nccl", distributed.is_available() and distributed.is_nccl_available()),
        )
        if found
    ]
    text = f"{torch.__version__}, CUDA {torch.version.cuda or 'no'}, {', '.join(backends)}"
    if "gloo" in backends:
        yield Finding(Level.OK, "torch", text)
    else:
        yield Finding(Level.WARNING, "torch", text, "collectives on CPUs need a build with gloo")


def _gpus() -> Iterator[Finding]:
    from runtime import gpus  # noqa: PLC0415

    found = gpus.count_devices()
    visible = gpus.physical_devices(os.environ, found)
    if not found:
        yield Finding(Level.NOTE, "GPU", "none: num_gpus is counted, and devices are faked")
    elif not visible:
        listed = os.environ.get(gpus.VARIABLE)
        text = f"{found} on the machine, none visible ({gpus.VARIABLE}={listed!r})"
        yield Finding(Level.WARNING, "GPU", text, f"unset {gpus.VARIABLE}")
    else:
        yield Finding(Level.OK, "GPU", f"{len(visible)} of {found} visible: {', '.join(visible)}")
    yield from _cupy(found)
    if visible:
        from runtime.gpu_examination import devices, sharing  # noqa: PLC0415  loads CUDA

        for check in (devices, sharing):  # graphs on CPUs do without
            yield from _findings(check, Level.WARNING)


def _cupy(num_gpus: int) -> Iterator[Finding]:
    advice = "pip install 'compiled-dag[gpu]'"
    if importlib.util.find_spec("cupy") is not None:
        try:
            import cupy  # noqa: PLC0415
        except ImportError as error:  # it is for another CUDA, say
            yield Finding(Level.WARNING, "cupy", f"cannot be imported: {error}", advice)
        else:
            yield Finding(Level.OK, "cupy", cupy.__version__)
    elif num_gpus:
        text = "not installed: device channels need it"
        yield Finding(Level.WARNING, "cupy", text, advice)
    else:
        yield Finding(Level.NOTE, "cupy", "not installed; of no use without a GPU")


def _memory() -> Iterator[Finding]:
    from compiled_dag.shm.segment import available_bytes  # noqa: PLC0415

    cpus = len(os.sched_getaffinity(0))
    yield Finding(Level.OK, "CPUs", f"{cpus} usable of {os.cpu_count()}")
    available = available_bytes()
    level = Level.OK if available >= _LITTLE_MEMORY_BYTES else Level.WARNING
    yield Finding(level, "memory", f"{_size(available)} available (machine and cgroup)")
    yield from _cgroup()
    yield _dev_shm()


def _cgroup() -> Iterator[Finding]:
    """Tell of the limits that this process's cgroup sets (version 2)."""
    try:
        path = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2]
    except OSError:
        return
    folder, limits = Path("/sys/fs/cgroup") / path.lstrip("/"), []
    for name in ("memory.max", "pids.max", "cpu.max"):
        with contextlib.suppress(OSError):  # not every cgroup has each of them
            text = (folder / name).read_text().strip()
            if not text.startswith("max"):
                limits.append(f"{name} {text}")
    yield Finding(Level.NOTE if limits else Level.OK, "cgroup", ", ".join(limits) or "no limits")


def _dev_shm() -> Finding:
    if not _SHM.is_dir():
        return Finding(Level.NOTE, str(_SHM), "not there; it is not needed")
    total = shutil.disk_usage(_SHM).total
    text = f"{_size(total)}; this project does not use it"
    if total < _SMALL_SHM_BYTES:
        text += ", but a DataLoader with workers and NCCL do"
        return Finding(Level.NOTE, str(_SHM), text, "docker run --shm-size=8g")
    return Finding(Level.OK, str(_SHM), text)


def _limits() -> Iterator[Finding]:
    for subject, limit, least, advice in (
        ("descriptors", resource.RLIMIT_NOFILE, _FEW_DESCRIPTORS, "ulimit -n 65536"),
        ("processes", resource.RLIMIT_NPROC, _FEW_PROCESSES, "ulimit -u 4096"),
    ):
        soft, hard = resource.getrlimit(limit)
        text = f"at most {_count(soft)} (hard limit {_count(hard)})"
        enough = soft == resource.RLIM_INFINITY or soft >= least
        level = Level.OK if enough else Level.WARNING
        yield Finding(level, subject, text, "" if enough else advice)
    for subject, limit, advice in (
        ("addresses", resource.RLIMIT_AS, "ulimit -v unlimited: channels are sparse mappings"),
        ("file size", resource.RLIMIT_FSIZE, "ulimit -f unlimited: channels are sparse files"),
    ):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            yield Finding(Level.FAILURE, subject, f"at most {_size(soft)}", advice)


def _kernel() -> Iterator[Finding]:
    yield _probe("fork", _fork)
    yield _probe("memfd", _sparse_segment)
    yield _probe("futex", _futex)
    yield _probe("pidfd", _pidfd)


def _probe(subject: str, run: Callable[[], str]) -> Finding:
    try:
        return Finding(Level.OK, subject, run())
    except (OSError, AttributeError, MemoryCapError) as error:
        advice = "the kernel is too old, or a seccomp profile (of the container?) forbids it"
        return Finding(Level.FAILURE, subject, str(error), advice)


def _fork() -> str:
    began = time.perf_counter()
    pid = os.fork()
    if not pid:
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status:
        raise OSError(f"the child ended with status {status}")
    return f"{(time.perf_counter() - began) * 1e3:.1f} ms"


def _sparse_segment() -> str:
    from compiled_dag.shm.segment import PAGE, Segment  # noqa: PLC0415

    segment = Segment.create("compiled-dag-doctor", _SPARSE_BYTES)
    try:
        segment.map(_SPARSE_BYTES - PAGE, PAGE).view()[0] = 1
    finally:
        segment.close()
    return f"{_size(_SPARSE_BYTES)} of address space, mapped and sealed"


def _futex() -> str:
    from compiled_dag.shm.futex import Timespec, futex_wait  # noqa: PLC0415

    word = ctypes.c_uint32(0)
    ctypes.set_errno(0)
    began = time.perf_counter()
    futex_wait(ctypes.c_void_p(ctypes.addressof(word)), 0, Timespec.of(0.001))
    waited = time.perf_counter() - began
    if waited < 0.001:  # noqa: PLR2004  it came back without having slept
        raise OSError("waiting on a word returned at once")
    return f"a sleep of 1.0 ms took {waited * 1e3:.1f} ms"


def _pidfd() -> str:
    pid = os.fork()
    if not pid:
        os._exit(0)
    try:
        pidfd = os.pidfd_open(pid)
        try:
            if not select.select([pidfd], [], [], _WAIT_S)[0]:
                raise OSError("the end of a process was not reported")
        finally:
            os.close(pidfd)
    finally:
        os.waitpid(pid, 0)
    return "reports the end of a process"


class _Echo:
    """The actor of the round trip."""

    def echo(self, value: int) -> int:
        """Return what it is given."""
        return value


def _session() -> Iterator[Finding]:
    import runtime  # noqa: PLC0415
    from compiled_dag import InputNode  # noqa: PLC0415

    if runtime.is_initialized():
        yield Finding(Level.NOTE, "session", "one is running here: not tried")
        return
    began = time.perf_counter()
    with runtime.init(num_cpus=1):
        actor = runtime.remote(_Echo).remote()
        runtime.get(actor.echo.remote(0), timeout=_WAIT_S)
        yield Finding(Level.OK, "actor", f"answered {_since(began)} ms after init()")
        with InputNode() as value:
            node = actor.echo.bind(value)
        began = time.perf_counter()
        with node.experimental_compile() as graph:
            runtime.get(graph.execute(0), timeout=_WAIT_S)
            yield Finding(Level.OK, "graph", f"answered {_since(began)} ms after compiling began")
            began = time.perf_counter()
            for number in range(_ROUND_TRIPS):
                if runtime.get(graph.execute(number), timeout=_WAIT_S) != number:
                    raise RuntimeError("the graph returned a wrong value")
            each = (time.perf_counter() - began) / _ROUND_TRIPS
            yield Finding(Level.OK, "round trip", f"{each * 1e6:.0f} us, mean of {_ROUND_TRIPS}")


def _gloo() -> Iterator[Finding]:
    from runtime.gloo_examination import gloo  # noqa: PLC0415  starts a session

    yield from gloo()


def _settings() -> Iterator[Finding]:
    for name in sorted(os.environ):
        if name.startswith("COMPILED_DAG_"):
            yield Finding(Level.NOTE, "setting", f"{name}={os.environ[name]}")


def _since(began: float) -> str:
    return f"{(time.perf_counter() - began) * 1e3:.0f}"


def _count(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


def _size(nbytes: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if nbytes < 1024:  # noqa: PLR2004
            return f"{nbytes:.4g} {unit}"
        nbytes /= 1024
    return f"{nbytes:.4g} TiB"


CHECKS: Final[tuple[Callable[[], Iterator[Finding]], ...]] = (
    _python,
    _packages,
    _torch,
    _gpus,
    _memory,
    _limits,
    _kernel,
    _settings,
    _session,
    _gloo,
)
"""In the order of the report: what others need comes first."""
