"""What processes print: prefixes, and the same line from several of them."""

from __future__ import annotations

import pytest

from runtime.dedup import VARIABLE, WINDOW_S, Deduplicator
from tests.runtime import scripts

proc = pytest.mark.proc


class Shown:
    """A deduplicator with a clock and timers of the test's."""

    def __init__(self, enabled=True):
        self.now = 0.0
        self.text = b""
        self.timers = []
        self.dedup = Deduplicator(
            self.write,
            lambda delay, function: self.timers.append((self.now + delay, function)),
            enabled=enabled,
            clock=lambda: self.now,
        )

    def write(self, lines):
        self.text += lines

    def say(self, source, text):
        self.dedup.feed(source, f"({source}) ".encode(), f"{text}\n".encode())

    def pass_time(self, seconds):
        self.now += seconds
        due = [entry for entry in self.timers if entry[0] <= self.now]
        self.timers = [entry for entry in self.timers if entry[0] > self.now]
        for _, function in due:
            function()

    def take(self):
        text, self.text = self.text, b""
        return text.decode().splitlines()


def test_a_line_of_many_processes_is_shown_once_and_counted():
    shown = Shown()
    for source in range(1, 5):
        shown.say(source, "same")
    assert shown.take() == ["(1) same"]
    shown.pass_time(WINDOW_S)
    assert shown.take() == ["(4) same [repeated 3x across processes]"]
    shown.say(2, "same")
    assert shown.take() == ["(2) same"]


def test_a_line_that_came_once_more_is_shown_as_it_is():
    shown = Shown()
    shown.say(1, "same")
    shown.say(2, "same")
    shown.dedup.flush()
    assert shown.take() == ["(1) same", "(2) same"]
    shown.pass_time(WINDOW_S)
    assert shown.take() == []


def test_what_one_process_repeats_is_not_held_back():
    shown = Shown()
    for _ in range(3):
        shown.say(1, "same")
    assert shown.take() == ["(1) same"] * 3


def test_what_comes_after_the_time_is_new():
    shown = Shown()
    shown.say(1, "same")
    shown.pass_time(WINDOW_S)
    shown.say(2, "same")
    assert shown.take() == ["(1) same", "(2) same"]
    assert not shown.timers


def test_each_held_line_has_its_own_time():
    shown = Shown()
    shown.say(1, "first")
    shown.say(2, "first")
    shown.pass_time(3)
    shown.say(1, "second")
    for _ in range(2):
        shown.say(2, "second")
    assert shown.take() == ["(1) first", "(1) second"]
    shown.pass_time(2)
    assert shown.take() == ["(2) first"]
    shown.pass_time(3)
    assert shown.take() == ["(2) second [repeated 2x across processes]"]


def test_only_repeated_lines_of_a_piece_are_left_out():
    shown = Shown()
    shown.say(1, "same")
    shown.say(2, "before\nsame\n\nafter")
    assert shown.take() == ["(1) same", "(2) before", "(2) ", "(2) after"]


def test_it_can_be_turned_off(monkeypatch):
    monkeypatch.setenv(VARIABLE, "0")
    shown = Shown(enabled=None)
    for source in (1, 2, 3):
        shown.say(source, "same")
    assert len(shown.take()) == 3


@pytest.mark.parametrize("text", ["\n".join(["x"] * 1000), "x" * 5000])
def test_floods_and_long_lines_are_passed_on(text):
    shown = Shown()
    shown.say(1, text)
    shown.say(2, text)
    assert len(shown.take()) == 2 * (text.count("\n") + 1)


@proc
def test_the_end_of_the_session_shows_what_is_held_back():
    done = scripts.run("""
workers = [Worker.remote() for _ in range(4)]
for worker in workers:
    runtime.get(worker.say.remote("same"))
runtime.shutdown()
print("over", file=sys.stderr)
""")
    first, second, over = done.stderr.splitlines()
    assert first.endswith(") same")
    assert second.endswith(") same [repeated 3x across processes]")
    assert over == "over"


@proc
def test_output_is_shown_with_the_name_of_the_task_or_actor():
    done = scripts.run("""
@runtime.remote
def compute():
    print("from a task")
    return os.getpid()

print(runtime.get(compute.remote()), end=" ")
worker = Worker.options(name="eve").remote()
runtime.get(worker.say.remote("from an actor"))
print(runtime.get(worker.pid.remote()))
""")
    task_pid, actor_pid = done.stdout.split()
    assert sorted(done.stderr.splitlines()) == [
        f"(compute pid={task_pid}) from a task",
        f"(eve pid={actor_pid}) from an actor",
    ]
