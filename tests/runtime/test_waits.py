"""Actors that wait for each other: found, told by name, once."""

from __future__ import annotations

import warnings

import pytest

import runtime
from compiled_dag import DAGContext, GraphError, InputNode
from compiled_dag.errors import ChannelTimeoutError, GetTimeoutError
from compiled_dag.host import ActorId, Wait
from runtime import lifecycle, waits
from runtime.waits import circles_of, text_of
from tests.live import LONG_S, wait_until


def wait(actor: int, on: int | None, for_s: float = 1.0) -> Wait:
    target = None if on is None else ActorId(on)
    return Wait(actor_id=ActorId(actor), on=target, text=f"call on {on}", for_s=for_s)


def members(*pairs) -> list[list[int]]:
    return [[one.actor_id for one in circle] for circle in circles_of(wait(*p) for p in pairs)]


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        ([], []),
        ([(1, 2), (2, 3), (3, None)], []),
        ([(1, 1)], [[1]]),
        ([(1, 2, 5.0), (2, 1, 9.0)], [[2, 1]]),
        ([(1, 2, 3.0), (2, 3, 2.0), (3, 1, 1.0)], [[1, 2, 3]]),
        ([(9, 1), (1, 2, 2.0), (2, 1, 1.0)], [[1, 2]]),  # who only waits for it is not in it
        ([(1, 3), (1, 2, 2.0), (2, 1, 1.0)], [[1, 2]]),
        ([(1, 2, 2.0), (2, 1, 1.0), (3, 4, 2.0), (4, 3, 1.0)], [[1, 2], [3, 4]]),
    ],
)
def test_circles_are_found_each_once_and_end_with_their_youngest_wait(pairs, found) -> None:
    assert members(*pairs) == found


def test_the_text_names_everybody_and_what_to_do() -> None:
    (circle,) = circles_of([wait(1, 2, 3.0), wait(2, 1, 2.0)])
    assert text_of(circle, lambda actor_id: f"A({actor_id})").splitlines()[:3] == [
        "A(1), A(2) wait for each other in a circle:",
        "  A(1) waits for call on 2, for 3.0 s",
        "  A(2) waits for call on 1, for 2.0 s",
    ]


@runtime.remote
class Friend:
    """Asks another one."""

    def __init__(self) -> None:
        self.other = None

    def know(self, other):
        self.other = other

    def help(self, _value=None):
        return 1

    def ask(self, _value=None):
        return runtime.get(self.other.help.remote())

    def meet(self):
        return runtime.get(self.other.ask.remote())

    def compile(self):
        with InputNode() as inp:
            output = self.other.help.bind(inp)
        with output.experimental_compile() as dag:
            return dag.execute(0).get()

    def join(self, *values):
        return values


def friends():
    """Make two actors that know each other."""
    made = [Friend.remote(), Friend.remote()]
    runtime.get([one.know.remote(other) for one, other in zip(made, reversed(made), strict=True)])
    return made


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(waits, "AFTER_S", 0.1)


@pytest.mark.proc
def test_calls_that_wait_for_each_other_are_warned_about_once(session, soon) -> None:
    one, two = friends()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ref = one.meet.remote()
        wait_until(lambda: caught)
        looks = []
        supervisor = lifecycle.current().supervisor
        supervisor.call_soon(lambda: supervisor.call_later(0.3, lambda: looks.append(1)))
        wait_until(lambda: looks)
    (warning,) = caught
    text = str(warning.message)
    assert warning.category is RuntimeWarning
    assert "Friend(1), Friend(2) wait for each other" in text.replace(
        "Friend(2), Friend(1)", "Friend(1), Friend(2)"
    )
    assert "Friend(1) waits for Friend.ask on actor Friend(2), for " in text
    assert "Friend(2) waits for Friend.help on actor Friend(1), for " in text
    with pytest.raises(
        GetTimeoutError, match=r"Friend.meet on actor Friend\(1\), where it has run for \d"
    ):
        runtime.get(ref, timeout=0.01)
    with pytest.raises(
        GetTimeoutError, match=r"help on actor Friend\(2\), which has run Friend.ask for \d"
    ):
        runtime.get(two.help.remote(), timeout=0.01)


@pytest.mark.proc
def test_a_step_and_a_call_that_wait_for_each_other_are_warned_about_and_reported(
    session, soon
) -> None:
    one, two = friends()
    with InputNode() as inp:
        output = two.join.bind(one.ask.bind(two.help.bind(inp)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with output.experimental_compile() as dag:
            ref = dag.execute(0)
            wait_until(lambda: caught)
            with pytest.raises(ChannelTimeoutError) as raised:
                ref.get(timeout=1.0)
            runtime.kill(one)
    text = str(caught[0].message)
    assert "Friend(1) waits for Friend.help on actor Friend(2)" in text
    assert "Friend(2) waits for Friend(1): it waits for Friend.ask#" in text
    report = raised.value.report
    assert "wait for each other in a circle" in report.splitlines()[0]
    assert "where get waits for Friend.help on actor Friend(2)" in report
    assert 'test_waits.py", line ' in report
    assert ", in ask" in report


@pytest.mark.proc
def test_actors_that_compile_on_each_other_are_warned_about(session, soon, monkeypatch) -> None:
    monkeypatch.setattr(DAGContext.get_current(), "compile_timeout", 5.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        refs = [one.compile.remote() for one in friends()]
        wait_until(lambda: caught)
        with pytest.raises(GraphError, match="did not load its program within") as raised:
            runtime.get(refs, timeout=LONG_S)
    text = str(caught[0].message)
    assert "Friend(1) waits for actor Friend(2) to take its part of a graph" in text
    assert "Friend(2) waits for actor Friend(1) to take its part of a graph" in text
    assert "in the call Friend.compile, for " in str(raised.value)


@pytest.mark.proc
def test_waits_that_end_and_actors_that_take_calls_meanwhile_are_not_warned_about(
    session, soon
) -> None:
    one, two = friends()
    assert runtime.get(one.ask.remote(), timeout=LONG_S) == 1
    wide = Friend.options(max_concurrency=2).remote()
    runtime.get([wide.know.remote(one), one.know.remote(wide)], timeout=LONG_S)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refs = [one.meet.remote(), two.ask.remote()]  # two waits for one, which waits for wide
        _, late = runtime.wait(refs, num_returns=2, timeout=0.5)
    assert refs[0] in late
    assert refs[1] in late
    runtime.kill(one)
