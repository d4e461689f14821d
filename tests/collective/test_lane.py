"""Operations on another thread are on the streams of the thread that began them."""

from __future__ import annotations

import contextlib
import sys
import threading
from types import SimpleNamespace

from collective.lane import Work, from_here


class PaperCuda:
    """Two GPUs, and what is current on them, by thread as in torch."""

    def __init__(self) -> None:
        self._own = threading.local()
        self.made_current: list[int] = []
        """GPUs, in order: each takes memory there."""

    @property
    def now(self):
        if not hasattr(self._own, "now"):
            self._own.now = {"device": 0, 0: 0, 1: 0}
        return self._own.now

    def is_initialized(self):
        return True

    def device_count(self):
        return 2

    def current_device(self):
        return self.now["device"]

    def current_stream(self, device):
        return SimpleNamespace(device=device, cuda_stream=self.now[device])

    @contextlib.contextmanager
    def device(self, number):
        before, self.now["device"] = self.now["device"], number
        self.made_current.append(number)
        yield
        self.now["device"] = before

    @contextlib.contextmanager
    def stream(self, stream):
        before, self.now[stream.device] = self.now[stream.device], stream.cuda_stream
        with self.device(stream.device):
            yield
        self.now[stream.device] = before


def seen_elsewhere(monkeypatch, current):
    """Return what is current where an operation runs on another thread, and what became so."""
    cuda, found = PaperCuda(), []
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    cuda.now.update(current)
    there = threading.Thread(target=from_here(lambda: found.append(dict(cuda.now))))
    there.start()
    there.join(120)
    assert cuda.now == current
    return found.pop(), cuda.made_current


def test_the_streams_of_all_gpus_go_along_and_which_one_is_current(monkeypatch) -> None:
    current = {"device": 1, 0: 7, 1: 9}
    assert seen_elsewhere(monkeypatch, current)[0] == current


def test_a_gpu_that_nothing_was_done_on_is_not_made_current(monkeypatch) -> None:
    current = {"device": 0, 0: 7, 1: 0}
    assert seen_elsewhere(monkeypatch, current) == (current, [0, 0])


def test_a_work_handle_shows_what_users_call_only() -> None:
    assert {name for name in dir(Work) if not name.startswith("_")} == {"is_completed", "wait"}
