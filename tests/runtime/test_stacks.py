"""Stacks of processes that do not help: forked children, in whatever a process can be in."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import threading
import time
from contextlib import contextmanager

import pytest

from runtime import stacks
from runtime.stacks import StackPipe, Stacks, Subject, frames_of
from tests.live import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

SOON_S = 60.0


def search_for_ever() -> None:
    """Backtrack in C, with the GIL, for longer than anybody waits."""
    re.match(r"(a+)+$", "a" * 64 + "b")


def read_in_c() -> None:
    """Wait in C with the GIL for what never comes; the call goes on after a signal."""
    read, _write = os.pipe()
    ctypes.PyDLL(None).read(read, ctypes.create_string_buffer(1), 1)


def spin() -> None:
    while True:
        pass


def recurse(depth: int) -> None:
    if depth:
        recurse(depth - 1)
    spin()


@contextmanager
def child(run):
    """Fork a child that registers and runs; yields it as somebody to ask."""
    pipe = StackPipe()
    begun, begin = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            stacks.register(pipe.theirs)
            os.write(begin, b"x")
            run()
        finally:
            os._exit(0)
    os.close(pipe.theirs)
    os.read(begun, 1)
    os.close(begun)
    os.close(begin)
    try:
        yield Subject(key=1, pid=pid, pipe=pipe)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        pipe.close()
        pipe.close()


def ask(*subjects, stacks=None, timeout_s=SOON_S):
    found = (stacks or Stacks()).take(subjects, time.monotonic() + timeout_s)
    return [found[subject.key] for subject in subjects]


def function_of(stack) -> str:
    return stack.frames[-1].rpartition(" in ")[2] if stack.frames else stack.state


def await_in(subject, name) -> None:
    wait_until(lambda: any(frame.endswith(f" in {name}") for frame in ask(subject)[0].frames))


@pytest.mark.parametrize("run", [search_for_ever, read_in_c, spin, threading.Event().wait])
def test_the_stack_of_a_busy_process_comes_without_its_help(run) -> None:
    with child(run) as subject:
        await_in(subject, run.__name__)
        for _ in range(3):
            (stack,) = ask(subject)
            assert stack.state == ""
            text = "\n".join(stack.frames)
            assert f"in {run.__name__}" in text
            assert text.index("in child") < text.index(f"in {run.__name__}")
        assert os.waitpid(subject.pid, os.WNOHANG) == (0, 0)  # and it goes on


def test_python_code_that_waits_notices_nothing() -> None:
    reported, report = os.pipe()

    def run() -> None:
        start = time.monotonic()
        time.sleep(0.2)
        os.write(report, b"early" if time.monotonic() - start < 0.2 else b"whole")

    with child(run) as subject:
        ask(subject)
        assert os.read(reported, 5) == b"whole"
    os.close(reported)
    os.close(report)


def test_a_deep_stack_is_cut_where_it_begins() -> None:
    with child(lambda: recurse(300)) as subject:
        wait_until(lambda: function_of(ask(subject)[0]) == "spin")
        (stack,) = ask(subject)
        assert stack.frames[0].startswith("... (no more than 100")
        assert len(stack.frames) == 101


def test_a_stopped_process_is_not_asked_but_told_of() -> None:
    with child(spin) as subject:
        os.kill(subject.pid, signal.SIGSTOP)
        os.waitpid(subject.pid, os.WUNTRACED)
        for _ in range(2):
            (stack,) = ask(subject)
            assert stack.frames == ()
            assert "stopped by a signal; SIGCONT lets it go on (kernel state T" in stack.state
        os.kill(subject.pid, signal.SIGCONT)
        wait_until(lambda: function_of(ask(subject)[0]) == "spin")


def test_one_that_is_stopped_after_it_was_asked_answers_the_next_question() -> None:
    with child(spin) as subject:
        await_in(subject, "spin")
        os.kill(subject.pid, signal.SIGSTOP)
        os.waitpid(subject.pid, os.WUNTRACED)
        os.kill(subject.pid, stacks.SIGNAL)  # as if it had been asked just before
        assert "stopped" in ask(subject)[0].state
        os.kill(subject.pid, signal.SIGCONT)
        assert function_of(ask(subject)[0]) == "spin"


def test_one_that_does_not_handle_the_signal_is_left_alone() -> None:
    def forget() -> None:
        stacks.unregister(-1)
        time.sleep(100)

    with child(forget) as subject:
        wait_until(lambda: "is starting, or runs another program" in ask(subject)[0].state)
        assert os.waitpid(subject.pid, os.WNOHANG) == (0, 0)


def test_one_that_blocks_the_signal_is_given_up_in_time() -> None:
    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {stacks.SIGNAL})
        time.sleep(100)

    with child(block) as subject:
        state = [""]

        def is_told() -> bool:  # once it has come to where it sleeps
            state[0] = ask(subject, timeout_s=0.02)[0].state
            return "kernel state S" in state[0]

        wait_until(is_told)
        assert "did not answer in time" in state[0]


def test_the_dead_are_told_of() -> None:
    with child(lambda: None) as subject:
        wait_until(lambda: ask(subject)[0].state == "its process has ended")
    assert ask(subject)[0].state == "its process has ended"


def test_several_are_asked_at_once_by_several() -> None:
    with child(spin) as one, child(search_for_ever) as two:
        other = Subject(key=2, pid=two.pid, pipe=two.pipe)
        await_in(one, "spin")
        await_in(two, "match")
        shared, found = Stacks(), []

        def take() -> None:
            found.append([function_of(stack) for stack in ask(one, other, stacks=shared)])

        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 6
        assert found == [["spin", "match"]] * 6


def test_who_has_to_wait_too_long_is_told_so() -> None:
    with child(spin) as subject:
        shared = Stacks()
        with shared._lock:
            assert "took too long" in ask(subject, stacks=shared, timeout_s=0.01)[0].state


def test_a_pipe_whose_number_is_anothers_is_not_touched() -> None:
    pipe = StackPipe()
    os.close(pipe.theirs)
    os.close(pipe._fd)
    read, write = os.pipe()
    assert read == pipe._fd
    assert pipe.borrow() == -1
    pipe._fd = -1
    assert pipe.borrow() == -1
    os.close(read)
    os.close(write)


def test_our_own_frames_are_left_out_unless_there_are_no_others() -> None:
    own = f'  File "{stacks.__file__}", line 1 in take\n'
    text = f'  File "x.py", line 3 in work\n{own}  File "<string>", line 1 in <module>\n'
    assert frames_of(text) == ('File "x.py", line 3, in work',)
    assert frames_of(own) == (f'File "{stacks.__file__}", line 1, in take',)
    assert frames_of("") == ()
    line = '  File "x.py", line 3 in work\n'
    for tail in ("", "  ...\n"):  # Python 3.13 leaves it out
        assert len(frames_of(line * 99)) == 99
        assert frames_of(line * 100 + tail)[0] == "... (no more than 100 are shown)"
