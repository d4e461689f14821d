"""What the table of unanswered calls says: whose result a reference is, what a death leaves."""

from __future__ import annotations

import pytest

from compiled_dag.errors import ActorDiedError, PendingCallsLimitError
from runtime.messages import Call
from runtime.objects import ObjectRef
from runtime.pending import CREATION, Repeatable, check_room, fail_entry, number_of, sort_lost
from runtime.system_call import SystemCall


def ref(what="A.f"):
    return ObjectRef(what, None)


def repeatable(number, attempts):
    return Repeatable(Call(number, b"f", 1, ()), (), (ref(),), attempts, False)


def system_call():
    return SystemCall(None, "what it was asked for", None)


def test_the_call_that_makes_a_reference_is_found_among_all_kinds():
    mine, several = ref(), (ref(), ref())
    pending = {1: system_call(), 2: several, 3: repeatable(3, 1), 4: (mine,)}
    assert number_of(pending, mine) == 4
    assert number_of(pending, several[1]) == 2
    assert number_of(pending, pending[3].refs[0]) == 3
    assert number_of(pending, ref()) is None


def test_neither_the_constructor_nor_what_this_project_sends_takes_up_room():
    pending = {CREATION: (ref(),), 1: system_call(), 2: (ref(),)}
    check_room(pending, 2)
    with pytest.raises(PendingCallsLimitError, match=r"1 calls .* max_pending_calls=1\."):
        check_room(pending, 1)


def test_after_a_death_what_has_an_attempt_left_is_made_again_the_last_one_first():
    pending = {
        CREATION: (ref(),),
        1: repeatable(1, 2),
        2: (ref(),),
        3: repeatable(3, 0),
        4: system_call(),
        5: repeatable(5, -1),
        6: repeatable(6, 1),
    }
    again, over = sort_lost(pending, unsent={6})
    assert [entry.call.number for entry in again] == [5, 1]
    assert over == [4, 3, 2]
    assert [pending[number].attempts for number in (1, 3, 5, 6)] == [1, 0, -1, 1]


def test_whoever_waits_is_told_of_his_own_call():
    death, refs, call = ActorDiedError("dead"), (ref("A.f"), ref("A.g")), system_call()
    for entry in (refs, call):
        fail_entry(entry, death, lambda what: ActorDiedError(f"{what}: dead"))
    assert [str(one.error) for one in refs] == ["A.f: dead", "A.g: dead"]
    assert call.outcome().error is death
