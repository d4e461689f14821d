"""Ctrl-C while a session ends, at the moments where it would do harm."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.live import LONG_S, driver, end_all, running

pytestmark = pytest.mark.proc

INTERRUPTED_END = """
crew = make(2)
session = runtime.lifecycle.current()
await_zygotes()
pids = [*pids_of(crew), *session.zygotes.pids()]
print(*pids, flush=True)
def ctrl_c(*_):
    os.kill(os.getpid(), signal.SIGINT)
def interrupted_around(owner, name):
    function = getattr(owner, name)
    def call(*arguments, **options):
        ctrl_c()
        result = function(*arguments, **options)
        ctrl_c()
        return result
    setattr(owner, name, call)
interrupted_around(session, "_release")
interrupted_around(session.supervisor, "stop")
interrupted_around(session.zygotes, "close")
if sys.argv[1] == "early":
    session.at_shutdown(ctrl_c)
"""


@pytest.mark.parametrize("when", ["early", "late"])
def test_ctrl_c_while_the_interpreter_exits_shows_nothing_and_leaves_nothing(when):
    with driver(INTERRUPTED_END, when) as started:
        pids = [int(pid) for pid in started.line().split()]
        assert started.wait() == 0
        assert started.errors == ""
        assert end_all(pids, LONG_S) == []


@pytest.mark.parametrize("when", ["early", "late"])
def test_ctrl_c_in_a_shutdown_is_raised_when_everything_has_ended(when):
    body = """
try:
    runtime.shutdown()
except KeyboardInterrupt:
    print("interrupted", runtime.is_initialized(), flush=True)
wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), 5)
assert pids_of(make(1))
"""
    with driver(INTERRUPTED_END + body, when) as started:
        pids = [int(pid) for pid in started.line().split()]
        assert started.line() == "interrupted False"
        assert end_all(pids, LONG_S) == []
        assert started.wait() == 0, started.errors
        assert started.errors == ""


INTERRUPTED = """
import os, signal
import runtime
from compiled_dag import InputNode
@runtime.remote
class Echo:
    def work(self, value):
        return value
with InputNode() as inp:
    output = Echo.remote().work.bind(inp)
dag = output.experimental_compile()
print(dag.execute(5).get(), flush=True)
os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_script_that_ctrl_c_ends_ends_by_that_signal() -> None:
    """Shells go by it. CPython forgets it when text is run after it, as by an import at exit."""
    with running([sys.executable, "-c", INTERRUPTED]) as started:
        assert started.line() == "5"
        assert started.wait() == -signal.SIGINT
        assert started.errors.rstrip().endswith("KeyboardInterrupt")
