"""What the system refuses, what users' code does to its own process, and odd names."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
import types
from collections import deque
from pathlib import Path

import pytest

import runtime
from runtime import lifecycle, wire, zygote
from runtime.exceptions import ActorDiedError, GetTimeoutError, TaskError, WorkerCrashedError
from runtime.messages import Spawn, SpawnFailed
from tests.live import LONG_S
from tests.runtime.actors import Worker, wait_until_dead

MIB = 1 << 20


def get(refs):
    return runtime.get(refs, timeout=LONG_S)


def own_sockets():
    """Return the sockets of this process by number, with their descriptors."""
    for fd in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            target = str(fd.readlink())
            if target.startswith("socket:["):
                yield int(fd.name), target[len("socket:[") : -1]


# --- memory, processes


def run_out_of_memory(*_):
    page = resource.getpagesize()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * page
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 64 * MIB, before[1]))
    try:
        return bytearray(1024 * MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.proc
def test_memory_that_cannot_be_had_is_an_exception_and_the_process_lives(session):
    actor = Worker.remote()
    pid = get(actor.pid.remote())
    with pytest.raises(MemoryError) as caught:
        get(actor.__ray_call__.remote(run_out_of_memory))
    assert isinstance(caught.value, TaskError)
    assert get(actor.pid.remote()) == pid
    with pytest.raises(MemoryError):
        get(runtime.remote(run_out_of_memory).remote())


def spawn_message(fds):
    return Spawn(
        actor_id=7,
        class_name="A",
        line=1,
        environment={},
        num_threads=None,
        folder="/",
        path=(),
        gpu_ids=(),
        max_concurrency=None,
        concurrency_groups={},
        graph_defaults={},
        fresh=False,
        fds=fds,
    )


def test_a_zygote_that_may_not_fork_says_so_and_goes_on(monkeypatch):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        one = zygote._Zygote(theirs, None)
        read, write = os.pipe()
        one._spawn(spawn_message((read, write)))
        into = deque()
        wire.Inbox(ours).receive(into)
    (answer,) = into
    assert isinstance(answer, SpawnFailed)
    assert (answer.actor_id, "unavailable" in answer.reason) == (7, True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.close(write)


@pytest.mark.proc
def test_a_process_that_cannot_be_made_fails_its_calls_and_nothing_else(session, monkeypatch):
    before = Worker.remote()
    assert get(before.echo.remote(1)) == 1
    current = lifecycle.current()

    def refuse(spawn, **_):
        failed = current.processes.spawn_failed
        current.supervisor.call_soon(lambda: failed(spawn.actor_id, "no more processes"))

    with monkeypatch.context() as patch:
        patch.setattr(current.zygotes, "spawn", refuse)
        actor = Worker.remote()
        with pytest.raises(ActorDiedError, match=r"Worker\(\d+\) could not be started: no more"):
            get(actor.echo.remote(1))
        with pytest.raises(WorkerCrashedError, match="worker process.*no more processes"):
            get(runtime.remote(max).remote(1, 2))
    assert get(before.echo.remote(1)) == 1
    assert get(Worker.remote().echo.remote(2)) == 2
    assert get(runtime.remote(max).remote(1, 2)) == 2


# --- what user code does to its own process


def close_everything(*_):
    os.closerange(3, 256)


def write_junk(*_):
    for fd, _ in own_sockets():
        os.write(fd, b"\0" * 100)


@pytest.mark.proc
@pytest.mark.parametrize("harm", [close_everything, write_junk])
def test_an_actor_that_breaks_its_own_connection_is_the_only_one_to_die(session, harm):
    actor, other = Worker.remote(), Worker.remote()
    pid = get(actor.pid.remote())
    with pytest.raises(ActorDiedError):
        get(actor.__ray_call__.remote(harm))
    assert wait_until_dead([pid]) == []
    assert get(other.echo.remote(1)) == 1
    with pytest.raises(WorkerCrashedError):
        get(runtime.remote(max_retries=0)(harm).remote())
    assert get(runtime.remote(max).remote(1, 2)) == 2


@pytest.mark.proc
def test_nothing_has_an_address(session):
    actor = Worker.remote()

    def addresses(*_):
        tables = {name: Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6", "unix")}
        lines = [
            line.split()
            for table in tables.values()
            for line in table.splitlines()[1:]
            if any(inode in line.split() for _, inode in own_sockets())
        ]
        return [line for line in lines if len(line) != 7]  # a unix socket without a path

    assert get(actor.__ray_call__.remote(addresses)) == []
    assert get(runtime.remote(addresses).remote()) == []


# --- constructors


@pytest.mark.proc
def test_a_constructor_that_hangs_is_named_and_can_be_killed(session, tmp_path):
    @runtime.remote
    class Hangs:
        def __init__(self, path):
            Path(path).write_text(str(os.getpid()))
            runtime.get(Worker.remote().sleep.remote(1000))

        def work(self):
            pass

    actor = Hangs.remote(str(tmp_path / "pid"))
    with pytest.raises(GetTimeoutError, match=r"Hangs\.work on actor Hangs\(1\)"):
        runtime.get(actor.work.remote(), timeout=0.1)
    ref = actor.work.remote()
    runtime.kill(actor)
    with pytest.raises(ActorDiedError, match=r"runtime\.kill"):
        get(ref)


@pytest.mark.proc
def test_a_class_whose_module_is_not_there_for_the_actor(session, monkeypatch):
    ghost = types.ModuleType("ghost")
    exec("class Ghost:\n    def work(self): pass\n", ghost.__dict__)
    monkeypatch.setitem(sys.modules, "ghost", ghost)
    actor = runtime.remote(ghost.Ghost).remote()
    with pytest.raises(ActorDiedError, match="No module named 'ghost'") as caught:
        get(actor.work.remote())
    assert isinstance(caught.value.cause, ModuleNotFoundError)


# --- names


@pytest.mark.proc
@pytest.mark.parametrize("name", ["größer als sonst \N{SNOWMAN}", "n" * 10_000, "a\nb", "a/b\0"])
def test_names_may_be_anything(session, name):
    actor = Worker.options(name=name).remote(3)
    assert get(runtime.get_actor(name).add.remote(1)) == 4
    kind = runtime.remote(type(name.replace("\0", "")[:50], (), {"work": lambda self: 1}))
    assert get(kind.remote().work.remote()) == 1
    assert get(runtime.remote(max).options(name=name).remote(1, 2)) == 2
    del actor
