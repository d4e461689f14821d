"""The doorbell's protocol. A lost wake-up here costs PATIENCE_S, which no test could miss."""

from __future__ import annotations

import os
import threading
import time

import pytest

from compiled_dag.shm.board import CAPACITY, Board, Doorbell
from compiled_dag.shm.futex import Timespec

PATIENCE_S = 60.0
PATIENCE = Timespec.of(PATIENCE_S)
ROUNDS = 10_000


@pytest.fixture
def board():
    return new_board()


def new_board() -> Board:
    segment = Board.create()
    board = Board(segment.fd)
    segment.close()
    return board


def sleep_until(bell: Doorbell, ready) -> None:
    """Sleep as the protocol says; fail if a wake-up does not come."""
    while not ready():
        token = bell.arm()
        try:
            if ready():
                return
            start = time.monotonic()
            bell.sleep(token, PATIENCE)
            assert time.monotonic() - start < PATIENCE_S, "a wake-up was lost"
        finally:
            bell.disarm()


def play(board: Board, me: int, you: int, rounds: int) -> None:
    """Answer every move of the other one, `rounds` times, asleep in between."""
    bell, words = Doorbell(board, me), board.words
    mine, theirs = board.mailbox_index(me), board.mailbox_index(you)
    for move in range(1, rounds + 1):
        if me < you:
            board.post(you, move)
            sleep_until(bell, lambda move=move: words[mine] == move)
        else:
            sleep_until(bell, lambda move=move: words[mine] == move)
            board.post(you, move)
    assert words[theirs] == rounds


def in_threads(*works) -> None:
    """Run all works at once; raise what any of them raised."""
    errors: list[BaseException] = []

    def guarded(work) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def test_lines_of_processes_do_not_overlap(board) -> None:
    board.bells[board.bell_index(3)] = 7
    board.words[board.mailbox_index(3)] = 9
    others = (0, 2, 4, CAPACITY - 1)
    assert all(board.bells[board.bell_index(other)] == 0 for other in others)
    assert all(board.words[board.mailbox_index(other)] == 0 for other in others)


def test_two_mappings_show_one_board() -> None:
    segment = Board.create()
    first, second = Board(segment.fd), Board(segment.fd)
    segment.close()
    first.post(5, 12)
    assert second.words[second.mailbox_index(5)] == 12


def test_a_bell_is_set_while_its_owner_may_sleep(board) -> None:
    bell, index = Doorbell(board, 1), board.bell_index(1)
    bell.arm()
    assert board.bells[index] != 0
    bell.disarm()
    assert board.bells[index] == 0


def test_ringing_clears_the_bell(board) -> None:
    Doorbell(board, 1).arm()
    board.ring(1)
    assert board.bells[board.bell_index(1)] == 0


def test_a_ring_between_arming_and_sleeping_is_not_lost(board) -> None:
    bell = Doorbell(board, 1)
    token = bell.arm()
    board.ring(1)
    start = time.monotonic()
    bell.sleep(token, PATIENCE)
    assert time.monotonic() - start < PATIENCE_S
    bell.disarm()


def test_ringing_somebody_else_wakes_nobody(board) -> None:
    bell = Doorbell(board, 1)
    token = bell.arm()
    board.ring(2)
    assert board.bells[board.bell_index(1)] == token


def test_the_bell_stays_set_until_the_last_thread_is_awake(board) -> None:
    bell, index = Doorbell(board, 1), board.bell_index(1)
    bell.arm()
    bell.arm()
    bell.disarm()
    assert board.bells[index] != 0
    bell.disarm()
    assert board.bells[index] == 0


def test_every_thread_has_its_own_token_and_none_is_zero(board) -> None:
    bell = Doorbell(board, 1)
    tokens = [bell.arm() for _ in range(100)]
    assert len({0, *tokens}) == 101


def test_no_wake_up_is_lost_between_two_threads(board) -> None:
    in_threads(
        lambda: play(board, 1, 2, ROUNDS),
        lambda: play(board, 2, 1, ROUNDS),
    )


def test_no_wake_up_is_lost_between_threads_that_share_a_bell(board) -> None:
    bell = Doorbell(board, 1)
    words = [board.mailbox_index(line) for line in (10, 11, 12)]
    answers = [board.mailbox_index(line) for line in (20, 21, 22)]
    rounds = 1000

    def sleeper(number: int) -> None:
        for move in range(1, rounds + 1):
            sleep_until(bell, lambda move=move: board.words[words[number]] >= move)
            board.words[answers[number]] = move
            board.ring(2)

    def ringer() -> None:
        own = Doorbell(board, 2)
        for move in range(1, rounds + 1):
            for word in words:
                board.words[word] = move
                board.ring(1)
            sleep_until(own, lambda move=move: all(board.words[a] >= move for a in answers))

    in_threads(ringer, *(lambda number=number: sleeper(number) for number in range(3)))


@pytest.mark.proc
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_no_wake_up_is_lost_between_two_processes() -> None:
    board = new_board()
    child = os.fork()
    if not child:
        status = 1
        try:
            play(board, 2, 1, ROUNDS)
            status = 0
        finally:
            os._exit(status)
    play(board, 1, 2, ROUNDS)
    _, status = os.waitpid(child, 0)
    assert status == 0
