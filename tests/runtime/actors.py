"""Remote classes that several tests use."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import runtime
from tests.crew import wait_for_file


@runtime.remote
class Worker:
    """Does what tests ask of an actor."""

    def __init__(self, start: int = 0) -> None:
        self.value = start
        self.seen: list[Any] = []

    def echo(self, value):
        return value

    def add(self, amount, *, times=1):
        self.value += amount * times
        return self.value

    def record(self, value):
        self.seen.append(value)
        return list(self.seen)

    def fail(self, message="boom"):
        raise ValueError(message)

    def pid(self):
        return os.getpid()

    def environment(self, name):
        return os.environ.get(name)

    def sleep(self, seconds):
        time.sleep(seconds)
        return seconds

    def wait_for_file(self, path):
        """End once `path` exists: a call whose end the test decides."""
        wait_for_file(path)
        return path

    def say(self, text, stream="stdout"):
        getattr(sys, stream).write(f"{text}\n")

    def flood(self, megabytes):
        line = "x" * 99 + "\n"
        for _ in range(megabytes * 10_000):
            sys.stdout.write(line)
        return megabytes

    def pair(self):
        return 1, 2

    def kill_itself(self, number=signal.SIGKILL):
        os.kill(os.getpid(), number)
        signal.pause()

    def exit_hard(self, code):
        sys.stderr.write("last words\n")
        os._exit(code)

    def exit(self, code):
        sys.exit(code)

    def interrupt(self):
        raise KeyboardInterrupt

    def segfault(self):
        ctypes.string_at(0)

    def hold_gil(self):
        read, _write = os.pipe()
        ctypes.PyDLL(None).read(read, ctypes.create_string_buffer(1), 1)

    def lock(self):
        return threading.Lock()

    def start_sleeper(self):
        return subprocess.Popen(["sleep", "1000"]).pid

    def main_thread(self):
        return threading.current_thread() is threading.main_thread()

    def threads(self):
        import torch

        return torch.get_num_threads()

    def draw(self):
        import random

        import numpy as np

        return random.random(), float(np.random.rand())  # noqa: NPY002  what the zygote shares is the legacy state

    def total(self, array):
        return float(array.sum())

    def writeable(self, array):
        return array.flags.writeable

    def scale(self, tensor):
        tensor.mul_(2)
        return tensor

    def gpus(self):
        return runtime.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")

    def descriptors(self):
        return sorted(open_files())

    def descriptors_of_fork(self):
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            os.write(write, "\n".join(open_files()).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        found = os.read(read, 100_000).decode().splitlines()
        os.close(read)
        os.close(write)
        return found

    def use_runtime(self):
        return runtime.put(1)

    def load(self, num_workers, held):
        """Iterate a DataLoader with forked workers while `held` is in use."""
        import torch.utils.data

        dataset = torch.utils.data.TensorDataset(torch.arange(8.0))
        loader = torch.utils.data.DataLoader(dataset, batch_size=2, num_workers=num_workers)
        return sum(float(batch[0].sum()) for batch in loader), float(held.sum())


def open_files() -> list[str]:
    """Return what the descriptors of this process refer to."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
            found.append(str(entry.readlink()))
    return found


def is_alive(pid: int) -> bool:
    """Tell whether a process runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat[stat.rindex(b")") + 2 : stat.rindex(b")") + 3] != b"Z"


def wait_until_dead(pids, timeout_s=60.0):
    """Wait for processes to end; returns those that have not."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while (alive := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < deadline:
        pause.wait(0.01)
    return alive
