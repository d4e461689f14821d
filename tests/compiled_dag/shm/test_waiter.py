from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from compiled_dag import ChannelClosedError
from compiled_dag.shm import waiter as waiters
from compiled_dag.shm.board import Board, Doorbell
from compiled_dag.shm.waiter import Site, Waiter, mode_from_environment

SLOW_S = 600e-6


@pytest.fixture
def board():
    segment = Board.create()
    board = Board(segment.fd)
    segment.close()
    return board


def fine() -> None:
    """Guard of a wait that nothing ends."""


def closed() -> None:
    """Guard of a wait that is over."""
    raise ChannelClosedError("it is closed")


@pytest.mark.parametrize("mode", ["latency", "balanced", "eco"])
def test_a_word_that_differs_already_is_seen_at_once(board, mode) -> None:
    waiter = Waiter(Doorbell(board, 1), mode)
    assert waiter.word(board.words, 0, 1, closed)
    assert waiter.until(lambda: True, closed)
    assert waiter.sleeps == 0


@pytest.mark.parametrize("mode", ["latency", "balanced", "eco"])
@pytest.mark.parametrize("how", ["word", "until"])
def test_a_word_that_changes_later_ends_the_wait(board, mode, how) -> None:
    waiter, index = Waiter(Doorbell(board, 1), mode), board.mailbox_index(1)
    sleeping = threading.Event()

    def change() -> None:
        sleeping.wait(120)
        board.post(1, 5)

    thread = threading.Thread(target=change)
    thread.start()
    guard = sleeping.set  # called before the first sleep: from then on the change may come
    if how == "word":
        done = waiter.word(board.words, index, 0, guard)
    else:
        done = waiter.until(lambda: board.words[index] == 5, guard)
    thread.join(120)
    assert done
    assert board.words[index] == 5


@pytest.mark.parametrize("mode", ["latency", "balanced", "eco"])
@pytest.mark.parametrize("which", [0, 1])
def test_either_of_two_words_ends_the_wait(board, mode, which) -> None:
    waiter, sleeping = Waiter(Doorbell(board, 1), mode), threading.Event()
    indices = board.mailbox_index(1), board.mailbox_index(2)

    def change() -> None:
        sleeping.wait(120)
        board.words[indices[which]] = 5
        board.ring(1)

    thread = threading.Thread(target=change)
    thread.start()
    one, other = ((board.words, index, 0) for index in indices)
    assert waiter.either(one, other, sleeping.set, Site())
    thread.join(120)
    assert waiter.either((board.words, 0, 1), other, closed, Site())
    assert not waiter.either((board.words, 0, 0), (board.words, 0, 0), fine, Site(), 0.0)


def test_the_deadline_ends_the_wait_with_false(board) -> None:
    waiter = Waiter(Doorbell(board, 1))
    deadline = time.monotonic() + 0.01
    assert not waiter.word(board.words, 0, 0, fine, deadline)
    assert time.monotonic() >= deadline
    assert not waiter.until(lambda: False, fine, time.monotonic())


def test_what_is_ready_at_the_deadline_counts(board) -> None:
    looks = iter([False] * 12)
    waiter = Waiter(Doorbell(board, 1), "eco")
    assert waiter.until(lambda: next(looks, True), closed, time.monotonic() - 1)


def test_the_guard_ends_a_wait_before_it_sleeps(board) -> None:
    waiter = Waiter(Doorbell(board, 1), "eco")
    with pytest.raises(ChannelClosedError, match="it is closed"):
        waiter.word(board.words, 0, 0, closed)
    assert waiter.sleeps == 0
    assert board.bells[board.bell_index(1)] == 0


def test_the_guard_ends_a_wait_that_is_rung_for_the_end(board) -> None:
    waiter = Waiter(Doorbell(board, 1), "eco")
    ended, sleeping = threading.Event(), threading.Event()

    def guard() -> None:
        sleeping.set()
        if ended.is_set():
            closed()

    def end() -> None:
        sleeping.wait(120)
        ended.set()
        board.ring(1)

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(ChannelClosedError):
        waiter.until(lambda: False, guard)
    thread.join(120)


# --- when it yields, and when it stops yielding ---------------------------------------------------


class FakeTime:
    """A clock that only yields advance, each by the next of the times given."""

    def __init__(self) -> None:
        self.now = 0.0
        self.yields = 0
        self.costs: list[float] = []
        self.on_yield = None

    def monotonic(self) -> float:
        return self.now

    def sched_yield(self) -> None:
        self.yields += 1
        self.now += self.costs.pop(0) if self.costs else 1e-6
        if self.on_yield is not None:
            self.on_yield()


@pytest.fixture
def fake(monkeypatch):
    fake = FakeTime()
    monkeypatch.setattr(waiters, "os", SimpleNamespace(environ={}, sched_yield=fake.sched_yield))
    monkeypatch.setattr(waiters, "time", SimpleNamespace(monotonic=fake.monotonic))
    return fake


class FakeBell:
    """A doorbell that is rung as soon as somebody sleeps on it."""

    def arm(self) -> int:
        return 1

    def sleep(self, token, timeout) -> None:
        self.rung()

    def disarm(self) -> None:
        pass


class Waits:
    """Waits of one waiter, one after the other."""

    def __init__(self, fake: FakeTime) -> None:
        self.fake = fake
        self.bell = FakeBell()
        self.waiter = Waiter(self.bell)

    def wait(
        self,
        after_yields: int | None,
        cost: float = 1e-6,
        site: Site | None = None,
        asleep: float = 0,
    ) -> int:
        """Wait for what comes with that many yields (or asleep only); return how many it took."""
        start = self.fake.yields
        self.fake.costs = [cost]
        came = []

        def ring() -> None:
            self.fake.now += asleep
            came.append(True)

        self.bell.rung = ring

        def ready() -> bool:
            done = self.fake.yields - start
            return bool(came) or (after_yields is not None and done >= after_yields)

        assert self.waiter.until(ready, fine, None, site)
        return self.fake.yields - start

    def good(self, count: int) -> None:
        for _ in range(count):
            assert self.wait(1) == 1

    def slow(self) -> None:
        assert self.wait(None, cost=SLOW_S) == 1

    def skipped(self, limit: int = 10_000) -> int:
        """Count the waits that go to sleep without a yield."""
        for count in range(limit):
            if self.wait(1) == 1:
                return count
        raise AssertionError("it never yields again")


@pytest.fixture
def waits(fake):
    return Waits(fake)


def test_a_quick_yield_is_followed_by_the_next(waits) -> None:
    assert waits.wait(5) == 5
    assert waits.waiter.sleeps == 0


def test_yielding_ends_after_its_budget(waits) -> None:
    assert waits.wait(None) == pytest.approx(200, abs=1)
    assert waits.waiter.sleeps == 1


def test_a_slow_yield_ends_the_yielding_and_skips_it_for_2_waits(waits) -> None:
    waits.slow()
    assert waits.waiter.sleeps == 1
    assert waits.skipped() == 2


class Looked(list):
    """Words that count the looks at the first of them."""

    count = 0

    def __getitem__(self, index):
        self.count += index == 0
        return super().__getitem__(index)


@pytest.mark.parametrize("how", ["word", "either", "any_of", "until"])
def test_a_wait_that_skips_yielding_looks_once_and_once_more_when_armed(waits, how) -> None:
    waits.slow()
    words, looks = Looked([0, 0, 0]), []
    one, other, third = [(words, index, 0) for index in range(3)]

    def ring() -> None:
        looks.append(words.count)
        words[0] = 1

    waits.bell.rung, waiter = ring, waits.waiter
    if how == "word":
        assert waiter.word(*one, fine)
    elif how == "either":
        assert waiter.either(one, other, fine, Site())
    elif how == "any_of":
        assert waiter.any_of(one, other, third, fine, Site())
    else:
        assert waiter.until(lambda: words[0] != 0, fine)
    assert looks == [3 if how == "any_of" else 2]  # that one looks by way of `until`


def test_each_further_slow_yield_doubles_what_is_skipped(waits) -> None:
    skipped = []
    for _ in range(4):
        waits.slow()
        skipped.append(waits.skipped())
    assert skipped == [2, 4, 8, 16]


def test_what_is_skipped_has_a_limit(waits) -> None:
    for _ in range(16):
        waits.slow()
        last = waits.skipped()
    assert last == 8192


def test_16_good_waits_halve_what_the_next_slow_yield_costs(waits) -> None:
    for _ in range(3):
        waits.slow()
        waits.skipped()  # the wait that ends this count is a good one
    waits.good(15)
    waits.slow()
    assert waits.skipped() == 8  # 3 slow, one decayed, one more slow


def test_a_slow_yield_starts_the_count_of_good_waits_anew(waits) -> None:
    waits.slow()
    waits.skipped()
    waits.good(14)
    waits.slow()
    assert waits.skipped() == 4
    waits.good(14)
    waits.slow()
    assert waits.skipped() == 8


def test_a_waiter_recovers_from_the_worst(waits) -> None:
    for _ in range(15):
        waits.slow()
        waits.skipped()
    waits.good(16 * 13)
    waits.slow()
    assert waits.skipped() == 2


def test_a_slow_yield_is_slow_though_it_came_meanwhile(waits) -> None:
    assert waits.wait(1, cost=SLOW_S) == 1
    assert waits.waiter.sleeps == 0  # it is there
    assert waits.skipped() == 2


def test_eco_never_yields(fake) -> None:
    waits = Waits(fake)
    waits.waiter = Waiter(waits.bell, "eco")
    assert waits.wait(None) == 0


def test_a_place_where_two_waits_were_long_sleeps_at_once_and_others_do_not(waits) -> None:
    here, there = Site(), Site()
    yields = [waits.wait(None, site=here, asleep=0.01) for _ in range(4)]
    assert [count > 0 for count in yields] == [True, True, False, False]
    assert waits.wait(5, site=there) == 5


def test_a_place_yields_again_after_short_waits(waits) -> None:
    here = Site()
    for _ in range(5):
        waits.wait(None, site=here, asleep=0.01)
    yields = [waits.wait(5, site=here) for _ in range(3)]
    assert yields == [0, 0, 5]


def test_one_long_wait_among_short_ones_changes_nothing(waits) -> None:
    here = Site()
    for _ in range(5):
        assert waits.wait(5, site=here) == 5
        assert waits.wait(None, site=here, asleep=0.01) > 0


def test_a_calm_place_never_yields(waits) -> None:
    assert waits.wait(5, site=Site(calm=True)) == 0
    assert waits.wait(5) == 5


def test_who_does_not_sleep_yields_as_others_do_and_leaves_the_counting_to_them(waits) -> None:
    waiter, fake, site = waits.waiter, waits.fake, Site()
    assert waiter.soon([1], 0, 0, site)
    assert fake.yields == 0
    words = [0]
    fake.costs = [1e-6, 1e-6]
    fake.on_yield = lambda: words.__setitem__(0, int(fake.yields == 2))
    assert waiter.soon(words, 0, 0, site)
    assert fake.yields == 2
    fake.on_yield = None
    assert not waiter.soon([0], 0, 0, site)
    assert fake.yields == pytest.approx(202, abs=1)
    before = fake.yields
    fake.costs = [SLOW_S]
    assert not waiter.soon([0], 0, 0, site)  # slow: from here on nobody yields
    assert not waiter.soon([0], 0, 0, site)
    assert fake.yields == before + 1
    assert waits.skipped() == 2  # the second `soon` is not counted
    assert not waiter.soon([0], 0, 0, Site(calm=True))
    assert waiter.sleeps == 2


@pytest.mark.parametrize("mode", ["latency", "balanced", "eco"])
def test_the_environment_sets_the_mode(monkeypatch, mode) -> None:
    monkeypatch.setenv("COMPILED_DAG_WAIT_MODE", mode)
    assert mode_from_environment() == mode


def test_the_mode_is_balanced_unless_set(monkeypatch) -> None:
    monkeypatch.delenv("COMPILED_DAG_WAIT_MODE", raising=False)
    assert mode_from_environment() == "balanced"


def test_an_unknown_mode_is_refused_with_the_known_ones(monkeypatch, board) -> None:
    monkeypatch.setenv("COMPILED_DAG_WAIT_MODE", "fast")
    with pytest.raises(ValueError, match=r"COMPILED_DAG_WAIT_MODE='fast' is none of latency, bal"):
        Waiter(Doorbell(board, 1))


@pytest.mark.parametrize("how", ["word", "either", "any_of"])
def test_waiting_for_words_learns_as_waiting_for_a_condition_does(fake, how) -> None:
    bell, site = FakeBell(), Site()
    waiter = Waiter(bell)
    words = [0]
    bell.rung = lambda: words.__setitem__(0, words[0] + 1)
    fake.costs = [SLOW_S]
    yields = []
    for _ in range(4):
        before = fake.yields
        source, still = (words, 0, words[0]), ([7], 0, 7)
        if how == "word":
            assert waiter.word(*source, fine)
        elif how == "either":
            assert waiter.either(still, source, fine, site)
        else:
            assert waiter.any_of(still, source, still, fine, site)
        yields.append(fake.yields - before)
    assert yields[:-1] == [1, 0, 0]
    assert yields[-1] > 1


def test_a_waiter_tells_whether_it_yields(board) -> None:
    waiter, site = Waiter(Doorbell(board, 1), "balanced"), Site()
    assert waiter.yields(site)
    site.length = 2  # waits there have been long
    assert not waiter.yields(site)
    assert not waiter.yields(Site(calm=True))
    assert not Waiter(Doorbell(board, 1), "eco").yields(Site())


def test_after_a_slow_yield_a_waiter_does_not_yield_for_a_while(waits) -> None:
    waits.slow()
    assert not waits.waiter.yields(Site())
    waits.skipped()
    assert waits.waiter.yields(Site())


def test_what_rings_no_doorbell_is_waited_for_by_yields_alone(fake, board) -> None:
    waiter, site = Waiter(Doorbell(board, 1), "balanced"), Site()
    assert waiter.until_soon(lambda: True, site)
    assert fake.yields == 0
    assert waiter.until_soon(lambda: fake.yields == 3, site)
    assert not waiter.until_soon(lambda: False, site)  # it takes longer than yielding does
    assert fake.yields == pytest.approx(203, abs=1)
    before = fake.yields
    assert not waiter.until_soon(lambda: False, Site(calm=True))
    assert fake.yields == before
    assert waiter.sleeps == 0


def test_what_does_not_end_soon_twice_is_not_yielded_for_until_it_does(board) -> None:
    waiter, site = Waiter(Doorbell(board, 1), "balanced"), Site()
    long_ago = time.monotonic() - 300e-6  # more than the yields, less than what is long elsewhere
    for _ in range(2):
        waiter.learn(site, long_ago, soon=True)
    assert not waiter.yields(site)
    waiter.learn(site, time.monotonic() + 1, soon=True)
    assert waiter.yields(site)


def test_a_slow_yield_ends_the_wait_for_what_rings_no_doorbell(fake, board) -> None:
    waiter, done = Waiter(Doorbell(board, 1), "balanced"), [False, True]
    fake.costs = [SLOW_S]
    assert waiter.until_soon(lambda: done.pop(0), Site())  # it came meanwhile
    assert not waiter.yields(Site())
