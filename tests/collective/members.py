"""Ranks of eager groups on threads of this process, with the driver's side and a real backend."""

from __future__ import annotations

import os
import pickle
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from collective import join
from collective.groups import Groups
from compiled_dag.errors import ActorDiedError
from compiled_dag.shm.board import Board, Doorbell
from compiled_dag.shm.waiter import Waiter
from tests.collective.parts import at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collective.member import Member

_here = threading.local()
"""The rank that a thread is."""


class Reply:
    """What a thread returns or raises, in the end."""

    def __init__(self, work: Callable[[], bytes], earlier: Reply | None = None) -> None:
        """Start it, to work once an earlier one has."""
        self._work = work
        self._earlier = earlier
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            if self._earlier is not None:
                self._earlier._thread.join()
                self._earlier = None
            self._work()
        except BaseException as error:
            self._error = error

    def result(self, _deadline: float | None) -> bytes:
        self._thread.join(120)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        return b""


class FakeHost:
    """What `Groups` asks of a session; actor n is on line n."""

    process = 0

    def __init__(self, board: Board) -> None:
        self.board = board
        self.homes: dict[int, ThreadHome] = {}
        self.deaths: dict[int, ActorDiedError] = {}
        self._replies: dict[int, Reply] = {}
        """The last one of each actor, which does one thing after the other."""
        self._watchers: list[Any] = []

    def line(self, actor_id, _deadline) -> int:
        return int(actor_id)

    def watch(self, callback) -> Callable[[], None]:
        self._watchers.append(callback)
        return lambda: None

    def at_shutdown(self, _callback) -> Callable[[], None]:
        return lambda: None

    def activities(self, actor_ids, deadline, *, stacks) -> dict:
        """Say that all run."""
        del actor_ids, deadline, stacks
        return {}

    def death(self, actor_id) -> ActorDiedError | None:
        return self.deaths.get(actor_id)

    def die(self, actor_id) -> None:
        """Let the driver hear of a death."""
        error = self.deaths[actor_id] = ActorDiedError(f"actor Worker({actor_id}) died")
        for callback in self._watchers:
            callback(actor_id, error)

    def submit(self, actor_id, function, payload, fds=()) -> Reply:
        home = self.homes[actor_id]
        own = [os.dup(fd) for fd in fds]
        work: Callable[[], bytes] = home.close
        if function is join.join_member:
            work = lambda: home.take(join.make_member(home, pickle.loads(payload), own))  # noqa: E731
        reply = self._replies[actor_id] = Reply(work, self._replies.get(actor_id))
        return reply


class ThreadHome:
    """One actor's way to the groups."""

    def __init__(self, host: FakeHost, groups: Groups, actor_id: int) -> None:
        self.actor_id = actor_id
        self.label = f"Worker({actor_id})"
        self.board = host.board
        self.resources: dict[str, Any] = {}
        self.members: dict[str, Member] = {}
        self.main_waiter = Waiter(Doorbell(host.board, actor_id))
        self._groups = groups
        self._local = threading.local()

    @property
    def waiter(self) -> Waiter:
        if not hasattr(self._local, "waiter"):
            self._local.waiter = self.main_waiter.twin()
        return self._local.waiter

    def ask(self, what, *args) -> Any:
        return getattr(self._groups, what)(*args)

    ask_with_fds = tell = ask

    def note_wait(self, group_id) -> None:
        pass

    def arm_reports(self) -> None:
        pass

    def take(self, member: Member) -> bytes:
        self.members[member.name] = member
        return b""

    def close(self) -> bytes:
        for member in self.members.values():
            member.close()
            self._groups.leave(member.group_id, member.rank)
        self.members.clear()
        return b""


class Members:
    """A session of `count` actors on threads."""

    def __init__(self, count: int) -> None:
        segment = Board.create()
        board = Board(segment.fd)
        segment.close()
        self.host = FakeHost(board)
        self.groups = Groups(self.host, self._actor)
        self.released: set[Any] = set()
        """Actors of whom nobody has a handle any more."""
        self.homes = [self.home(number + 1) for number in range(count)]

    def home(self, actor_id: Any) -> ThreadHome:
        """Make an actor."""
        made = self.host.homes[actor_id] = ThreadHome(self.host, self.groups, actor_id)
        return made

    def _actor(self, actor_id) -> Any:
        return SimpleNamespace(
            actor_id=actor_id,
            label=f"Worker({actor_id})",
            physical_gpus=(),
            num_gpus=0,
            can_be_found=actor_id not in self.released,
        )

    def create(self, name: str = "default", backend: str = "gloo", timeout_s: float = 30.0) -> Any:
        """Make a group of all, from outside."""
        ids = [home.actor_id for home in self.homes]
        return self.groups.create(ids, backend, None, name, timeout_s)

    def run(self, *works: Callable[[], Any]) -> list[Any]:
        """Run a work on each rank's thread; return what they return or raise."""

        def on(home: ThreadHome, work: Callable[[], Any]) -> Any:
            _here.home = home
            return work()

        pairs = zip(self.homes, works, strict=False)
        return at_once(*(lambda home=home, work=work: on(home, work) for home, work in pairs))

    def run_all(self, work: Callable[[int], Any]) -> list[Any]:
        """Run a work on every rank's thread; what it is called with is the rank."""
        ranks = range(len(self.homes))
        return self.run(*(lambda rank=rank: work(rank) for rank in ranks))

    def close(self) -> None:
        for home in self.homes:
            home.close()
        self.groups.close()


def find_member(name: str) -> Member | None:
    """Return the end of the rank that this thread is: in place of `collective.join`'s."""
    found = _here.home.members.get(name)
    return None if found is None or found.is_over else found


@pytest.fixture
def members(monkeypatch):
    """Makes actors on threads; leaves their groups after the test."""
    monkeypatch.setattr(join, "find_member", find_member)
    made: list[Members] = []

    def make(count: int, **options: Any) -> Members:
        made.append(Members(count))
        made[-1].create(**options)
        return made[-1]

    yield make
    for one in made:
        one.close()


def until(condition: Callable[[], object]) -> None:
    """Wait for something nobody announces."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.002)


def raised(results: Sequence[Any]) -> Sequence[BaseException]:
    """Return what all have raised."""
    assert all(isinstance(one, BaseException) for one in results), results
    return results
