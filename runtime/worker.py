"""An actor's process, from its birth (a fork of the zygote) to its end.

Everything runs on the main thread, one thing at a time, served by `compiled_dag.loop.Loop`: the
steps of resident graphs, ordinary calls, and this project's own functions. Only calls of actors
that run several at once are elsewhere (`runtime.concurrency`). One daemon thread waits for the
driver's death and then kills the process group.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import random
import select
import signal
import socket
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from compiled_dag.loop import Loop
from compiled_dag.options import DAGContext
from compiled_dag.shm.board import FORKS, Board, Doorbell
from compiled_dag.shm.waiter import Waiter
from runtime import context, lifecycle, stacks
from runtime.interruption import Interruption
from runtime.mailbox import Mailbox
from runtime.nested import NestedSession
from runtime.references import number_from
from runtime.service import Service, exit_code

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runtime.messages import Spawn

_NAME_CHARACTERS: Final = 15  # the kernel's limit


def run(spawn: Spawn, board: Board, driver_fd: int) -> int:
    """Be the actor until it ends; returns the exit code."""
    # A process group, not a session: Linux schedules every session as one (autogroup), and a yield
    # gives way within the session only. In sessions of their own 8 actors took 4 times as long.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # So the terminal is still theirs: to ask it for something fails, instead of stopping the actor.
    signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    redirect_output(spawn.fds)
    control_fd, stacks_fd = spawn.fds[0], spawn.fds[3]
    close_descriptors({0, 1, 2, control_fd, stacks_fd, board.fd, driver_fd})
    stacks.register(stacks_fd)
    _settle(spawn)
    threading.Thread(
        target=_watch_driver, args=(driver_fd,), name="compiled-dag", daemon=True
    ).start()
    control = socket.socket(fileno=control_fd)
    os.register_at_fork(after_in_child=lambda: _leave_to_parent(control, driver_fd, stacks_fd))
    doorbell = Doorbell(board, spawn.line)
    waiter = Waiter(doorbell)
    os.register_at_fork(before=partial(_note_fork, board, spawn.line, os.getpid()))
    number_from(spawn.actor_id)
    interruption = Interruption(board, spawn.line)
    mailbox = Mailbox(control, board, spawn.line, interruption)
    session = NestedSession(mailbox, doorbell, waiter, board, spawn.line)
    lifecycle.enter(session)
    service = Service(spawn, mailbox, board, waiter, session, interruption)
    interruption.install()
    loop = Loop(board, spawn.line, waiter, service.serve)
    service.loop = loop
    session.held.on_gone = loop.look_again
    try:
        loop.run()
    except SystemExit as exit_:
        service.exit_code = exit_code(exit_)
    except KeyboardInterrupt as interrupt:
        service.exit_code = exit_code(interrupt)
    service.close()
    _leave()
    return service.exit_code


def redirect_output(fds: tuple[int, ...]) -> None:
    """Make the pipes given in a `Spawn` this process's standard output and error."""
    for source, target in zip(fds[1:3], (1, 2), strict=True):
        os.dup2(source, target)


def close_descriptors(keep: Iterable[int]) -> None:
    """Close every descriptor but those in `keep`."""
    kept = set(keep)
    for fd in [int(name) for name in os.listdir("/proc/self/fd")]:  # noqa: PTH208  names only
        if fd not in kept:
            with contextlib.suppress(OSError):  # the descriptor of the listing itself
                os.close(fd)


def _settle(spawn: Spawn) -> None:
    """Take on the environment the actor was asked for."""
    os.environ.clear()
    os.environ.update(spawn.environment)
    DAGContext.apply(spawn.graph_defaults)
    sys.path[:] = spawn.path
    # The folder may be gone by now; relative paths fail later, with their own message.
    with contextlib.suppress(OSError):
        os.chdir(spawn.folder)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable(2)
    name = f"{spawn.class_name[: _NAME_CHARACTERS - 6]}({spawn.actor_id})"
    Path("/proc/self/comm").write_text(name[:_NAME_CHARACTERS])
    context.enter_actor(spawn.actor_id, spawn.class_name, spawn.gpu_ids)
    _reseed()
    torch = sys.modules.get("torch")
    if torch is not None and spawn.num_threads is not None:
        torch.set_num_threads(spawn.num_threads)


def _reseed() -> None:
    """Give each actor random numbers of its own, not the zygote's."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.seed()


def _watch_driver(driver_fd: int) -> None:
    """Wait for the driver's death, then kill this process and what it started."""
    poll = select.poll()
    poll.register(driver_fd, select.POLLIN)
    poll.poll()
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _leave_to_parent(control: socket.socket, driver_fd: int, stacks_fd: int) -> None:
    """Hold none of the actor's connections in a child it forked (a DataLoader worker, say)."""
    control.close()
    stacks.unregister(stacks_fd)
    with contextlib.suppress(OSError):  # a grandchild: its parent closed it already
        os.close(driver_fd)
    context.leave_actor()


def _note_fork(board: Board, line: int, owner: int) -> None:
    """Tell the driver that a child sees what this process sees now (see `runtime.peer`)."""
    if os.getpid() == owner:  # its children's children see nothing else
        board.words[board.word_index(line, FORKS)] += 1


def _leave() -> None:
    """Run exit handlers and flush; the interpreter's own end is skipped (slow, and may hang)."""
    atexit._run_exitfuncs()  # noqa: SLF001  no public name; ends multiprocessing's children, too
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody may be reading any more
            stream.flush()
