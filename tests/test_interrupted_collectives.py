"""Ctrl-C in a driver whose actors are in a collective: what it breaks off goes on, or is undone."""

from __future__ import annotations

import signal

import pytest

from tests.live import LONG_S, driver, end_all

pytestmark = pytest.mark.proc

BEFORE = """
import collective
from compiled_dag import CollectiveTimeoutError
from tests.eager import Member
from tests.live import reduce
path = sys.argv[1]
def memory_files():
    links = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3, 200)
             if os.path.lexists(f"/proc/self/fd/{fd}")]
    return sum("memfd:" in link for link in links)
def is_waiting(actor):
    id_ = actor._runtime_process.actor_id
    session = runtime.lifecycle.current()
    return session.activities([id_], time.monotonic(), stacks=False)[id_].wait is not None
def interrupted(use):
    print("ready", flush=True)
    try:
        use()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
await_zygotes()
"""

EAGER = f"""{BEFORE}
members = [Member.remote(rank) for rank in range(2)]
runtime.get([one.pid.remote() for one in members])
files = memory_files()
def create(**options):
    return collective.create_collective_group(members, "gloo", "g", **options)
def blocked():
    ref = members[0].total.remote("g")
    wait_until(lambda: is_waiting(members[0]))
    return ref
"""

GRAPH = f"""{BEFORE}
crew = make_ranks(2)
dag = reduce(crew).experimental_compile(_get_timeout=60)
assert runtime.get(dag.execute(0)) == [6.0, 6.0]
def blocked():
    ref = dag.execute(Order(2, "wait", path))[0]
    wait_until(lambda: "allreduce" in where(dag)["Rank(1)"])
    return ref
"""

BLOCKED = {
    "get": (
        "create(); ref = blocked()",
        "runtime.get(ref)",
        "assert runtime.get([members[1].total.remote('g'), ref]) == [2.0, 2.0]",
    ),
    "create": (
        "busy = members[1].be_busy_until.remote(path)",
        "create()",
        "open(path, 'w').close(); runtime.get(busy); create()",
    ),
    "create, and a rank later": (
        "busy = members[1].be_busy_until.remote(path)",
        "create()",
        (
            "assert collective.get_collective_groups() == []; assert memory_files() == files\n"
            "assert runtime.get(members[0].join.remote(1)) == (0, 1)\n"
            "assert runtime.get(members[0].total.remote()) == 1.0\n"
            "runtime.get(members[0].destroy.remote())\n"
            "open(path, 'w').close(); runtime.get(busy); create()"
        ),
    ),
    "destroy": (
        "create(); busy = members[1].be_busy_until.remote(path)",
        "collective.destroy_collective_group('g')",
        (
            "assert collective.get_collective_groups() == []; assert memory_files() == files\n"
            "open(path, 'w').close(); runtime.get(busy); create()"
        ),
    ),
}
"""What comes before, what is interrupted, and what is to be possible then."""


def test_ctrl_c_in_a_wait_for_an_eager_group_is_caught_and_everything_goes_on(tmp_path):
    body = EAGER
    for before, use, after in BLOCKED.values():
        body += f"""
path += "+"
{before}
interrupted(lambda: {use})
{after}
assert runtime.get([one.total.remote("g", 3.0) for one in members]) == [6.0, 6.0]
collective.destroy_collective_group("g")
wait_until(lambda: memory_files() == files)
print("went on", flush=True)
"""
    with driver(body, str(tmp_path / "release")) as started:
        for _ in BLOCKED:
            started.goes_on_after_an_interrupt()
        started.ends_well()


def test_ctrl_c_while_a_graph_is_in_a_collective_is_caught_and_the_result_comes(tmp_path):
    body = f"""{GRAPH}
ref = blocked()
interrupted(lambda: ref.get())
open(path, "w").close()
assert ref.get() == 6.0
assert runtime.get(dag.execute(0)) == [6.0, 6.0]
print("went on", flush=True)
"""
    with driver(body, str(tmp_path / "release")) as started:
        started.goes_on_after_an_interrupt()
        started.ends_well()


UNCAUGHT = {
    "eager": f"{EAGER}\ncreate(); pids = runtime.get([one.pid.remote() for one in members])",
    "graph": f"{GRAPH}\npids = pids_of(crew)",
}


@pytest.mark.parametrize("where", UNCAUGHT)
def test_ctrl_c_that_nobody_catches_ends_ranks_that_wait_for_each_other(where, tmp_path):
    body = f"{UNCAUGHT[where]}\nref = blocked()\nprint(*pids, flush=True)\nruntime.get(ref)"
    with driver(body, str(tmp_path / "never")) as started:
        pids = [int(pid) for pid in started.line().split()]
        started.wait_until_asleep()
        started.interrupt()
        assert started.wait() in (130, -signal.SIGINT)
        assert started.errors.rstrip().endswith("KeyboardInterrupt")
        assert started.errors.count("Traceback") == 1, started.errors
        assert end_all(pids, LONG_S) == []
