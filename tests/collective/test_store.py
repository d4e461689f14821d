from __future__ import annotations

import os
import sys
import threading
from datetime import timedelta

import pytest

from collective import header as head
from collective.store import MeshStore, SharedMemoryStore
from compiled_dag import ChannelClosedError, CollectiveTimeoutError
from tests.collective.parts import PATIENCE_S, at_once


def stores_of(group, timeout_s=PATIENCE_S, kind=SharedMemoryStore):
    return [
        kind(header, waiter, timeout_s)
        for header, waiter in zip(group.headers, group.waiters, strict=True)
    ]


@pytest.fixture
def stores(ranks):
    """Two ranks' stores of one group."""
    return stores_of(ranks(2))


@pytest.mark.parametrize("value", ["text", b"bytes", b"", b"\0", b"\xff" * 1000, "é"])
def test_what_one_rank_sets_another_gets(stores, value) -> None:
    first, second = stores
    first.set("key", value)
    expected = value.encode() if isinstance(value, str) else value
    assert first.get("key") == second.get("key") == expected


def test_the_last_value_set_counts(stores) -> None:
    first, second = stores
    first.set("key", "a")
    second.set("key", "b")
    first.set("other", "c")
    assert first.get("key") == b"b"
    assert second.num_keys() == 2


def test_a_get_waits_for_the_value(stores) -> None:
    first, second = stores
    waiting = threading.Event()
    guard = first._header.guard
    first._header.guard = lambda: (waiting.set(), guard())

    def set_late() -> None:
        waiting.wait(PATIENCE_S)
        second.set("key", "value")

    assert at_once(lambda: first.get("key"), set_late) == [b"value", None]


def test_check_tells_whether_all_keys_are_there(stores) -> None:
    first, second = stores
    first.set("a", "1")
    assert second.check(["a"])
    assert second.check([])
    assert not second.check(["a", "b"])


def test_wait_wants_all_keys_and_says_which_are_missing(stores) -> None:
    first, second = stores
    first.set("a", "1")
    first.set("c", "1")
    second.wait(["a", "c"])
    with pytest.raises(
        CollectiveTimeoutError, match=r"no rank published \['b', 'd'\] within 0.01 s"
    ):
        second.wait(["a", "b", "c", "d"], timedelta(seconds=0.01))


def test_the_time_is_the_stores_own_unless_given(ranks) -> None:
    first, _ = stores_of(ranks(2), timeout_s=0.01)
    with pytest.raises(CollectiveTimeoutError, match=r"within 0.01 s while the group formed"):
        first.get("key")
    first.set_timeout(timedelta(seconds=0.02))
    with pytest.raises(CollectiveTimeoutError, match=r"within 0.02 s"):
        first.wait(["key"])


def test_a_late_rank_is_a_timeout_error(ranks) -> None:
    first, _ = stores_of(ranks(2), timeout_s=0)
    with pytest.raises(TimeoutError):
        first.get("key")


@pytest.mark.parametrize("state", [head.CLOSED, head.BROKEN])
def test_the_end_of_the_group_wakes_a_rank_that_waits(stores, state) -> None:
    first, second = stores
    waiting = threading.Event()
    guard = first._header.guard
    first._header.guard = lambda: (waiting.set(), guard())

    def end() -> None:
        waiting.wait(PATIENCE_S)
        second._header.end(state)

    result, _ = at_once(lambda: first.get("key"), end)
    assert isinstance(result, ChannelClosedError)


def test_adding_counts_over_all_ranks(stores) -> None:
    first, second = stores
    assert [first.add("count", 2), second.add("count", 3), first.add("count", -1)] == [2, 5, 4]
    assert second.add("other", 0) == 0
    assert second.get("count") == b"4"


@pytest.fixture
def hectic():
    """Let threads take turns all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_adding_at_once_loses_nothing(ranks, hectic) -> None:
    stores = stores_of(ranks(4))

    def add(store) -> None:
        for _ in range(50):
            store.add("count", 1)

    at_once(*(lambda store=store: add(store) for store in stores))
    assert stores[0].get("count") == b"200"


def test_setting_at_once_loses_nothing(ranks, hectic) -> None:
    stores = stores_of(ranks(4))

    def fill(rank) -> None:
        for number in range(50):
            stores[rank].set(f"{rank}/{number}", str(number))

    at_once(*(lambda rank=rank: fill(rank) for rank in range(4)))
    assert stores[0].num_keys() == 200
    assert stores[3].get("1/49") == b"49"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_another_process_never_finds_the_log_empty_while_it_grows(stores) -> None:
    first, second = stores
    first.set("key", "value")
    child = os.fork()
    if not child:
        try:
            for _ in range(20_000):
                second.set("other", "")
        finally:
            os._exit(0)
    found = set()
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        found.update(min(first._used(), 1) for _ in range(1000))
    assert found == {1}


def test_comparing_sets_what_is_as_expected(stores) -> None:
    first, second = stores
    assert first.compare_set("key", "", "a") == b"a"
    assert second.compare_set("key", "a", "b") == b"b"
    assert first.get("key") == b"b"


def test_comparing_leaves_what_is_not_as_expected(stores) -> None:
    first, second = stores
    first.set("key", "a")
    assert second.compare_set("key", "other", "b") == b"a"
    assert second.compare_set("missing", "other", "b") == b"other"
    assert not first.check(["missing"])
    assert first.get("key") == b"a"


def test_a_deleted_key_is_gone_until_it_is_set_again(stores) -> None:
    first, second = stores
    first.set("key", "a")
    assert second.delete_key("key")
    assert not first.check(["key"])
    assert first.num_keys() == 0
    assert not first.delete_key("key")
    first.set("key", "b")
    assert second.get("key") == b"b"


def test_a_value_is_never_taken_for_a_deletion(stores) -> None:
    first, second = stores
    for value in (b"\0deleted", b"", b"\0"):
        first.set("key", value)
        assert second.get("key") == value


def test_a_store_that_is_full_says_so_and_keeps_what_it_has(stores) -> None:
    first, second = stores
    first.set("key", "a")
    with pytest.raises(MemoryError, match=f"limited to {head.LOG_BYTES} bytes"):
        first.set("large", b"x" * head.LOG_BYTES)
    assert second.get("key") == b"a"
    second.set("more", "b")
    assert first.num_keys() == 2


def test_torch_finds_it_through_a_prefix(stores) -> None:
    from torch.distributed import PrefixStore

    first, second = (PrefixStore("here", store) for store in stores)
    first.set("key", "a")
    assert second.get("key") == b"a"
    assert second.add("count", 3) == 3
    assert stores[0].check(["here/key"])


# --- of ranks that connect ------------------------------------------------------------------------


@pytest.fixture
def mesh(ranks):
    """Two ranks' stores of a group whose ranks connect."""
    return stores_of(ranks(2), kind=MeshStore)


def test_a_rank_that_connects_gets_no_address_before_all_are_there(mesh) -> None:
    first, second = mesh
    first.set("0", "here")
    assert not first.check(["0"])
    with pytest.raises(CollectiveTimeoutError, match=r"not all ranks came within 0.01 s"):
        first.wait(["0"], timedelta(seconds=0.01))
    second.set("1", "there")
    assert first.get("1") == b"there"


def test_in_a_group_that_was_ended_all_ranks_get_all_addresses(mesh) -> None:
    for rank, store in enumerate(mesh):
        store.set(str(rank), "here")
    mesh[0].header.end(head.CLOSED)
    assert [store.get(key) for store in mesh for key in "01"] == [b"here"] * 4


def test_or_no_rank_gets_any(mesh) -> None:
    first, second = mesh
    first.set("0", "here")
    first.header.end(head.CLOSED)
    with pytest.raises(ChannelClosedError):
        second.set("1", "there")
    for store in mesh:
        with pytest.raises(ChannelClosedError):
            store.get("0")


def test_the_last_address_counts_although_the_end_is_seen_first(mesh) -> None:
    """Who sets it has found the group open; who waits finds it ended, and looks again."""
    first, second = mesh
    first.set("0", "here")
    guard = first._guard

    def late() -> None:
        first._guard = guard
        second.set("1", "there")
        second.header.end(head.CLOSED)
        guard()

    first._guard = late
    assert first.get("1") == b"there"
