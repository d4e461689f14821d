"""Eager groups for long: all operations, overlapping groups, kills, ends, and Ctrl-C."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import threading

import pytest

import collective
import runtime
from compiled_dag import ActorDiedError, TaskError
from runtime import lifecycle
from tests.crew import footprint
from tests.drill import Driller
from tests.live import LONG_S, await_zygotes, wait_until

pytestmark = [pytest.mark.soak, pytest.mark.proc, pytest.mark.timeout(600)]

NUM_ACTORS = 5
OPERATIONS = 25
"""Of a group, in a round."""
GROWTH_KB = 16_000


def interrupt(use, delay_s):
    """Interrupt this thread once, in `use` or just after it; CPython drops it in a `__del__`."""
    main = threading.main_thread().ident
    timer = threading.Timer(delay_s, signal.pthread_kill, (main, signal.SIGINT))
    with contextlib.suppress(KeyboardInterrupt):
        timer.start()
        use()
        timer.join()
        threading.Event().wait(1)  # what has been sent comes here at the latest
    timer.join()


class Round:
    """Some groups of some of the actors, work for them, and what may happen meanwhile."""

    def __init__(self, choose, crew):
        self.choose = choose
        self.crew = crew
        self.groups = {}
        """By name: ranks, as positions in the crew."""
        self.victim = None
        """Position of an actor that is to die."""

    def make_groups(self):
        for backend in ("gloo", "shm"):
            self.groups[f"made on {backend}"] = backend, self.some()
        self.groups["met"] = self.choose.choice(["gloo", "shm"]), self.some()
        for name, (backend, ranks) in self.groups.items():
            members = [self.crew[position] for position in ranks]
            if name == "met":
                size = len(ranks)
                joins = [one.join.remote(name, size, n, backend) for n, one in enumerate(members)]
                runtime.get(joins, timeout=LONG_S)
            else:
                self.create(members, backend, name)

    def some(self):
        return self.choose.sample(range(NUM_ACTORS), self.choose.randint(1, NUM_ACTORS))

    def create(self, members, backend, name):
        """Make a group; sometimes at the second try."""

        def create():
            collective.create_collective_group(members, backend, name)

        if self.choose.random() < 0.3:
            interrupt(create, self.choose.uniform(0, 0.02))
            with contextlib.suppress(ValueError):  # it was not made
                collective.destroy_collective_group(name)
        create()

    def work(self):
        """Have all ranks work in all groups; return the calls by group."""
        seed = self.choose.randrange(1 << 30)
        return {
            name: [self.crew[at].drill.remote(name, seed, OPERATIONS) for at in ranks]
            for name, (_, ranks) in self.groups.items()
        }

    def kill_sometimes(self):
        if self.choose.random() < 0.5:
            self.victim = self.choose.randrange(NUM_ACTORS)
            pid = runtime.get(self.crew[self.victim].pid.remote(), timeout=LONG_S)
            killer = threading.Timer(self.choose.uniform(0, 0.2), os.kill, (pid, signal.SIGKILL))
            killer.start()
            return killer
        return None

    def check(self, calls):
        """Check what has come of the work; returns how many operations were done."""
        done = 0
        for name, (_, ranks) in self.groups.items():
            for at, ref in zip(ranks, calls[name], strict=True):
                found = outcome(ref)
                if isinstance(found, int):
                    done += found
                elif at != self.victim:
                    cause = getattr(found, "cause", found)
                    assert isinstance(cause, ActorDiedError), (name, ranks, self.victim, found)
                    assert self.victim in ranks
        return done

    def end(self):
        for group in list(lifecycle.current().groups._groups.values()):
            with contextlib.suppress(ValueError):  # gone with its last rank
                collective.destroy_collective_group(group.name)
        if self.victim is not None:
            self.crew[self.victim] = Driller.remote()


def outcome(ref):
    try:
        return runtime.get(ref, timeout=LONG_S)
    except (ActorDiedError, TaskError) as error:
        return error


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # as `interrupt` says
@pytest.mark.parametrize("seed", range(2))
def test_random_groups_operations_kills_and_interrupts(session, seed):
    choose = random.Random(seed)
    await_zygotes()
    crew = [Driller.remote() for _ in range(NUM_ACTORS)]
    done, before = 0, None
    for number in range(40):
        round_ = Round(choose, crew)
        round_.make_groups()
        killer = round_.kill_sometimes()
        calls = round_.work()
        if choose.random() < 0.3:
            every = [ref for refs in calls.values() for ref in refs]
            interrupt(lambda refs=every: [outcome(ref) for ref in refs], choose.uniform(0, 0.1))
        done += round_.check(calls)
        if killer is not None:
            killer.join()
        round_.end()
        assert lifecycle.current().groups._groups == {}
        for files in runtime.get([one.memory_files.remote() for one in crew], timeout=LONG_S):
            assert files == []
        if number == 10:
            before = footprint()
    assert done > 5_000
    # What was of actors that have died goes a little later than they.
    wait_until(lambda: all(new <= old for new, old in zip(counts(), before[:-1], strict=True)))
    assert footprint()[-1] - before[-1] < GROWTH_KB


def counts():
    gc.collect()
    return footprint()[:-1]
