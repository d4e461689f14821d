"""When an actor is made again, by how its process ended and why."""

from __future__ import annotations

import pytest

from runtime import obituary
from runtime.fate import Fate

KILLED_BY_A_SIGNAL = -9


def fate(most=1, *, status=KILLED_BY_A_SIGNAL, reason="", released=False):
    made = Fate(most)
    made.status, made.released = status, released
    made.give_reason(reason)
    return made


@pytest.mark.parametrize("status", [KILLED_BY_A_SIGNAL, 1, None])
def test_one_that_nobody_asked_to_end_is_made_again(status):
    assert fate(status=status).restarts(lambda: False)


@pytest.mark.parametrize(
    "ended",
    [
        {"most": 0},
        {"status": 0},
        {"reason": obituary.KILLED},
        {"reason": obituary.SESSION_ENDED},
        {"reason": obituary.KILLED, "released": True},
    ],
)
def test_one_that_was_to_end_or_has_no_restarts_is_not(ended):
    assert not fate(**ended).restarts(lambda: True)


@pytest.mark.parametrize("unused", [{"released": True}, {"reason": obituary.UNUSED}])
def test_one_that_nobody_holds_is_made_again_for_the_calls_that_are_left(unused):
    assert fate(**unused).is_unused
    assert fate(**unused).restarts(lambda: True)
    assert not fate(**unused).restarts(lambda: False)


@pytest.mark.parametrize(("most", "times"), [(2, 2), (0, 0), (-1, 5)])
def test_restarts_are_counted_down_unless_there_is_no_limit(most, times):
    made = fate(most)
    for number in range(times):
        assert made.restarts(lambda: False)
        made.use_restart()
        assert (made.num_restarts, made.status) == (number + 1, None)
    assert made.has_restarts == (most < 0)


def test_the_first_reason_stays():
    made = fate(reason=obituary.UNUSED)
    made.give_reason(obituary.KILLED)
    assert made.reason == obituary.UNUSED
