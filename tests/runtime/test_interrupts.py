"""Ctrl-C on any line of what is submitted: it is done, or it is not, and all goes on."""

from __future__ import annotations

import gc
import itertools
import sys

import pytest

import runtime
from runtime import lifecycle
from tests import leaks
from tests.gates import Interrupt
from tests.live import LONG_S, wait_until
from tests.runtime import subjects
from tests.runtime.subjects import Plain

pytestmark = pytest.mark.proc

EVERY = pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.soak)])
"""Interrupted at every 29th place, or at each."""


def task(_actor):
    subjects.echo_task.remote(1)


def task_that_needs(actor):
    subjects.echo_task.remote(actor.echo.remote(1))


def call(actor):
    actor.echo.remote(1)


def call_that_needs(actor):
    actor.echo.remote(subjects.echo_task.remote(1))


def new_actor(_actor):
    Plain.remote().echo.remote(1)


def killing(_actor):
    runtime.kill(Plain.remote())


def cancelling(actor):
    runtime.cancel(subjects.echo_task.remote(1))
    runtime.cancel(actor.echo.remote(1))


def stored(actor):
    actor.echo.remote(runtime.put(b"1" * 100_000))


def with_memory_for_its_result(actor):
    actor.echo.remote(b"1" * 200_000)


WORKS = [
    *(task, task_that_needs, call, call_that_needs, new_actor, killing, cancelling, stored),
    with_memory_for_its_result,
]


@EVERY
@pytest.mark.parametrize("work", WORKS)
def test_ctrl_c_on_any_line_of_a_submission_leaves_all_usable(session, work, step):
    actor = Plain.options(num_cpus=0).remote()
    get = lambda ref: runtime.get(ref, timeout=LONG_S)  # noqa: E731
    assert get([actor.echo.remote(0), subjects.echo_task.remote(0)]) == [0, 0]
    free = runtime.cluster_resources()["CPU"]
    modules = tuple(
        module for name, module in list(sys.modules.items()) if name.startswith("runtime.")
    )  # fmt: skip
    for place in itertools.count(1, step):
        with Interrupt(modules, place) as interrupt:
            work(actor)
        if not interrupt.raised:
            break
        gc.collect()
        assert get([actor.echo.remote(place), subjects.echo_task.remote(place)]) == [place] * 2
        wait_until(lambda: runtime.available_resources().get("CPU") == free)
    assert place > 30
    assert lifecycle.current().processes


BEGINNING = ("lifecycle", "session", "launch", "zygotes", "supervisor")


@EVERY
def test_ctrl_c_on_any_line_of_init_leaves_nothing(no_leaks, step):
    runtime.init()
    runtime.shutdown()  # what is imported is there now
    modules = tuple(sys.modules[f"runtime.{name}"] for name in BEGINNING)
    before = leaks.snapshot()
    for place in itertools.count(1, step):
        with Interrupt(modules, place) as interrupt:
            runtime.init()
        runtime.shutdown()  # where it came behind the beginning
        assert leaks.settle(before) == []
        if not interrupt.raised:
            break
    assert place > 100
