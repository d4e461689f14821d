from __future__ import annotations

from collections import deque

import pytest

from compiled_dag.loop import Loop
from compiled_dag.shm.board import Board, Doorbell
from compiled_dag.shm.waiter import Waiter


class Actor:
    """A loop with its mailbox; everything it does is written down."""

    def __init__(self) -> None:
        segment = Board.create()
        self.board = Board(segment.fd)
        segment.close()
        self.inbox: deque = deque()
        self.sent = 0
        self.done: list[str] = []
        self.waiter = Waiter(Doorbell(self.board, 1))
        self.loop = Loop(self.board, 1, self.waiter, self.serve)

    def send(self, name: str, work=lambda: None) -> None:
        self.inbox.append((name, work))
        self.sent += 1
        self.board.post(1, self.sent)

    def serve(self) -> bool:
        if not self.inbox:
            return False
        name, work = self.inbox.popleft()
        self.done.append(name)
        work()
        return True


class Program:
    """A resident program with a given number of executions ready."""

    def __init__(self, actor: Actor, number: int, executions: int, *, then=None, last=True) -> None:
        self.actor = actor
        self.number = number
        self.left = executions
        self.then = then
        self.last = last

    def ready(self) -> bool:
        return self.left > 0

    def sources(self):
        return ()

    def leave(self) -> bool:
        return True

    def run(self) -> bool:
        self.actor.done.append(f"run {self.number}")
        self.left -= 1
        if self.left == 0 and self.then:
            self.then()
        return self.left > 0 or self.last


class PassingOn(Program):
    """Several programs as one: a look may pass the turns on, and then another look counts."""

    def __init__(self, actor: Actor) -> None:
        super().__init__(actor, 7, 1)
        self.looks = 0
        self.ready = self.before

    def before(self) -> bool:
        assert self.looks < 3, "the look of a program that has no turn any more"
        self.looks += 1
        if self.looks == 3:
            self.ready = self.after
        return False

    def after(self) -> bool:
        self.looks += 1
        return self.looks > 9

    def run(self) -> bool:
        self.actor.loop.stop()
        return super().run()


@pytest.fixture
def actor():
    return Actor()


def test_messages_are_served_in_order(actor) -> None:
    for name in "abc":
        actor.send(name)
    actor.send("stop", actor.loop.stop)
    actor.loop.run()
    assert actor.done == ["a", "b", "c", "stop"]


def test_programs_that_are_ready_take_turns(actor) -> None:
    def stop() -> None:
        actor.send("stop", actor.loop.stop)

    for number in (1, 2, 3):
        actor.loop.add(Program(actor, number, 2, then=stop if number == 1 else None))
    actor.loop.run()
    assert actor.done == ["run 2", "run 3", "run 1", "run 2", "run 3", "run 1", "stop"]


def test_a_message_waits_for_at_most_one_execution(actor) -> None:
    actor.loop.add(Program(actor, 1, 100))
    for name in "abc":
        actor.send(name)
    actor.send("stop", actor.loop.stop)
    actor.loop.run()
    assert actor.done == ["a", "run 1", "b", "run 1", "c", "run 1", "stop", "run 1"]


def test_a_program_is_served_although_messages_keep_coming(actor) -> None:
    def again() -> None:
        actor.send("again", again)

    actor.loop.add(Program(actor, 1, 5, then=lambda: actor.send("stop", actor.loop.stop)))
    again()
    actor.loop.run()
    assert actor.done.count("run 1") == 5


def test_a_program_may_be_added_and_removed_by_messages(actor) -> None:
    actor.send("add", lambda: actor.loop.add(Program(actor, 7, 100)))
    actor.send("nothing")
    actor.send("remove", lambda: actor.loop.remove(7))
    actor.send("stop", actor.loop.stop)
    actor.loop.run()
    assert actor.done == ["add", "run 7", "nothing", "run 7", "remove", "stop"]


def test_removing_what_is_not_there_is_fine(actor) -> None:
    actor.loop.remove(7)
    actor.send("stop", actor.loop.stop)
    actor.loop.run()


def test_a_program_that_has_ended_gets_no_turn_any_more(actor) -> None:
    ended = Program(actor, 1, 1, last=False)
    actor.loop.add(ended)
    actor.loop.add(Program(actor, 2, 3, then=lambda: actor.send("stop", actor.loop.stop)))
    ended.ready = lambda: True
    actor.loop.run()
    assert actor.done.count("run 1") == 1
    assert actor.done.count("run 2") == 3


def test_an_idle_loop_sleeps_until_a_message_comes(actor, monkeypatch) -> None:
    # The message is sent by whatever the loop does last before it sleeps: ask its doorbell.
    bell = actor.waiter._doorbell
    arm = bell.arm

    def arm_and_send() -> int:
        token = arm()
        actor.send("stop", actor.loop.stop)
        return token

    monkeypatch.setattr(bell, "arm", arm_and_send)
    actor.loop.run()
    assert actor.done == ["stop"]


def test_a_loop_that_is_told_so_looks_into_its_mailbox_again(actor) -> None:
    def look() -> bool:
        found = actor.serve()
        if not found:
            actor.done.append("empty")
        return found

    actor.loop = Loop(actor.board, 1, actor.waiter, look)
    actor.loop.add(Program(actor, 1, 1, then=actor.loop.look_again))
    actor.loop.add(Program(actor, 2, 3, then=lambda: actor.send("stop", actor.loop.stop)))
    actor.loop.run()
    assert actor.done == ["run 2", "run 1", "empty", "run 2", "run 2", "stop"]


def test_a_look_that_passes_the_turns_on_while_the_loop_waits_is_replaced(actor) -> None:
    actor.loop.add(PassingOn(actor))
    actor.loop.run()
    assert actor.done == ["run 7"]
