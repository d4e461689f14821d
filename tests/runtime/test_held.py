"""What a process holds of references whose home is the driver, and what it reports of their end."""

from __future__ import annotations

import pytest

from runtime.held import Held


@pytest.fixture
def held():
    return Held(None)


def test_a_reference_that_arrives_again_is_the_same_and_is_reported_with_its_count(held):
    ref = held.find(5)
    assert held.find(5) is ref
    assert held.living(5) is ref
    del ref
    assert held.living(5) is None
    assert held.take_gone() == [(5, 2)]
    assert held.take_gone() == []


def test_one_that_arrives_after_its_last_copy_has_gone_begins_a_count_of_its_own(held):
    held.find(5)  # and lets go of it
    again = held.find(5)
    assert held.take_gone() == [(5, 1)]
    del again
    assert held.take_gone() == [(5, 1)]


def test_a_negative_number_is_that_of_a_lifeline(held):
    assert held.find(-3).actor_id == 3


def test_what_is_made_here_is_counted_as_if_it_had_arrived(held):
    ref = held.new("a task")
    number = ref.number
    assert held.living(number) is ref
    del ref
    assert held.take_gone() == [(number, 1)]


def test_somebody_is_told_of_the_first_that_has_gone(held):
    told = []
    held.on_gone = lambda: told.append(list(held.gone))
    held.find(7)
    assert told == [[(7, 1)]]


def test_an_outcome_is_asked_for_once_while_the_reference_lives(held):
    refs = [held.find(1), held.find(2)]
    assert held.want(refs[:1]) == [1]
    assert held.want(refs) == [2]
    del refs
    assert held.want([held.find(1)]) == [1]


def test_others_are_let_find_a_reference_once_while_it_lives(held):
    told = []
    for _ in range(2):
        ref = held.find(1)
        for _ in range(2):
            held.lend(1, lambda: told.append(1))
        del ref
    assert told == [1, 1]


def test_lending_that_was_interrupted_is_done_again(held):
    def interrupt():
        raise KeyboardInterrupt

    ref, told = held.find(1), []
    with pytest.raises(KeyboardInterrupt):
        held.lend(ref.number, interrupt)
    held.lend(ref.number, lambda: told.append(1))
    assert told == [1]
