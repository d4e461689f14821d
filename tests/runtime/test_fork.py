"""Forked children of the driver and of actors touch nothing of their parents'."""

from __future__ import annotations

import multiprocessing
import os

import numpy as np
import pytest

import runtime
from tests.runtime.actors import Worker, open_files

pytestmark = pytest.mark.proc


def in_fork(function) -> str:
    """Return the text that `function` returns in a forked child."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            text = function()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as file:
        return file.read()


def test_a_forked_child_of_the_driver_is_refused(session):
    worker = Worker.remote()
    ref = worker.echo.remote(1)
    runtime.get(ref)
    for use in (
        lambda: runtime.put(1),
        lambda: worker.echo.remote(1),
        lambda: runtime.kill(worker),
        lambda: runtime.get(worker.echo.remote(1)),
    ):
        text = in_fork(lambda use=use: str(use()))
        assert text.startswith("RuntimeError")
        assert str(os.getpid()) in text
    assert runtime.get(worker.echo.remote(2)) == 2


def test_a_forked_child_of_the_driver_keeps_no_descriptor_of_the_session(session):
    worker = Worker.remote()
    runtime.get(worker.echo.remote(1))

    def listing():
        return " ".join(name for name in open_files() if "socket" in name or "eventpoll" in name)

    before = listing()
    assert "socket" in before
    after = in_fork(listing)
    assert len(after.split()) < len(before.split())
    assert "eventpoll" not in after


def test_a_forked_child_that_drops_everything_and_shuts_down_changes_nothing(session):
    worker = Worker.remote()
    held = runtime.put(np.ones(1 << 20))
    value = runtime.get(held)

    def drop():
        nonlocal worker, held, value
        del worker, held, value
        runtime.shutdown()
        try:
            runtime.put(1)
        except RuntimeError:
            return "refused"

    assert in_fork(drop) == "refused"
    assert value.sum() == 1 << 20
    assert runtime.get(held).sum() == 1 << 20
    assert runtime.get(worker.echo.remote(3)) == 3


def test_multiprocessing_in_the_driver(session):
    worker = Worker.remote()
    value = runtime.get(worker.echo.remote(np.ones(1 << 20)))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
        pool.close()
        pool.join()
    assert value.sum() == 1 << 20
    assert runtime.get(worker.echo.remote(1)) == 1


def test_a_fork_of_an_actor_keeps_no_control_socket(session):
    found = runtime.get(Worker.remote().descriptors_of_fork.remote())
    assert found
    assert not any(link.startswith(("socket:", "anon_inode:[pidfd]")) for link in found)
