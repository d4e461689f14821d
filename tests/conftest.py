"""Fixtures for all tests: a session, and the check that nothing outlives a test.

A crash prints every thread's stack: pytest itself enables faulthandler on the real standard error,
which is captured already when this file is imported.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests import leaks

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from compiled_dag.shm.segment import Segment
    from tests.fakes import ThreadHost
    from tests.incubator import Incubator

CALL_FAILED = pytest.StashKey[bool]()

leaks.mark_descendants()

# No deadline per example: the machine is shared, and time is not what these tests are about.
hypothesis.settings.register_profile(
    "tests",
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    """Give each of several workers (``-n``) a temporary folder of its own: leaks are counted there.

    `/dev/shm` they share: what one of them makes there for a moment, others wait for.
    """
    if hasattr(config, "workerinput"):
        folder = tempfile.mkdtemp(prefix="tests-")
        os.environ["TMPDIR"] = folder
        tempfile.tempdir = None  # looked up again
        config.add_cleanup(lambda: shutil.rmtree(folder))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let `no_leaks` know how the test ended."""
    report = yield
    if report.when == "call":
        item.stash[CALL_FAILED] = report.failed
    return report


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> None:
    """Have the collector pass over what exists already: torch alone makes it ten times slower.

    So what earlier modules have imported, or pytest keeps of their tests, slows no later one down.
    Twice: a dead handle's finalizer leaves word with its session, which lives until the next time.
    What is garbage when it is frozen, its memory and descriptors, stays for good.
    """
    gc.collect()
    gc.collect()
    gc.freeze()


LOOKS = ("observer.GRACE_S", "observer._ASK_S", "owned._STACKS_S", "deployment._STACKS_S")
GROUP_LOOKS = ("group._STACKS_S", "eager_group._STATES_S")


@pytest.fixture
def _patient_looks() -> Iterator[None]:
    """Give actors that are asked for their stacks all the time that a crowded machine takes.

    The test's own `monkeypatch` begins later, behind `no_leaks`: what it has put somewhere may hold
    handles, and is to be gone when that looks.
    """
    names = (
        *(f"compiled_dag.{look}" for look in LOOKS),
        *(f"collective.{look}" for look in GROUP_LOOKS),
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in names:
            monkeypatch.setattr(name, 30.0)
        yield


@pytest.fixture
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail if the test leaves behind a process, thread, descriptor, mapping, socket or file.

    A test that failed already is not judged: its traceback holds its values.
    """
    before = leaks.snapshot()
    yield
    failed = request.node.stash.get(CALL_FAILED, False)
    left = leaks.settle(before, timeout_s=0 if failed else leaks.SETTLE_S)
    if left:
        leaks.end_new_processes(before)
    if left and not failed:
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def _no_leaks_if_proc(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("proc"):
        request.getfixturevalue("incubator")
        request.getfixturevalue("_patient_looks")
        request.getfixturevalue("no_leaks")


@pytest.fixture(scope="session")
def incubator() -> Iterator[Incubator]:
    """Have the sessions' zygotes forked from one process that has imported torch."""
    from runtime import launch  # a broken runtime must not stop the pure tests
    from tests.incubator import START, Incubator

    incubator = Incubator()
    launch.start_process = incubator.start_process
    yield incubator
    launch.start_process = START
    incubator.close()


@pytest.fixture
def own_zygotes(incubator: Incubator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test's sessions start their zygotes as those of users do."""
    from runtime import launch
    from tests.incubator import START

    monkeypatch.setattr(launch, "start_process", START)


@pytest.fixture
def session(no_leaks: None) -> Iterator[None]:
    """Run the test between `runtime.init()` and `runtime.shutdown()`; check both for leaks.

    Of two CPUs, wherever it runs: tests have one task wait while another one is done.
    """
    import runtime  # a broken runtime must not stop the pure tests

    try:
        runtime.init(num_cpus=2)
        yield
    finally:
        runtime.shutdown()


@pytest.fixture
def state_segment() -> Iterator[Segment]:
    """Return memory of which `state_words` are mapped."""
    from compiled_dag.shm.segment import PAGE, Segment  # a broken package fails its tests alone

    made = Segment.create("test", PAGE)
    yield made
    made.close()


@pytest.fixture
def state_words(state_segment: Segment) -> memoryview[int]:
    """Return the words of a graph or group whose state is OPEN."""
    from compiled_dag.shm.segment import PAGE
    from compiled_dag.shm.state import OPEN, set_state

    words = state_segment.map(0, PAGE).view().cast("Q")
    set_state(words, OPEN)
    return words


@pytest.fixture
def host(no_leaks: None) -> Iterator[ThreadHost]:
    """Actors on threads: the whole compiled path without a process; checked for leaks."""
    from tests.fakes import ThreadHost  # a broken loop must not stop the pure tests

    host = ThreadHost()
    try:
        yield host
    finally:
        host.close()
        vars(host).clear()  # pytest keeps the fixture's value until the leaks were counted
