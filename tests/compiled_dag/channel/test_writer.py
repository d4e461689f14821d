from __future__ import annotations

import itertools
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compiled_dag.channel.writer
from compiled_dag import MemoryCapError
from compiled_dag.channel import layout as at
from compiled_dag.channel.lease import LEASE_BYTES
from compiled_dag.lending import lend_by
from compiled_dag.shm.segment import PAGE
from tests.compiled_dag.channel.test_codec import nested
from tests.compiled_dag.channel.wires import SLOT, Wire
from tests.gates import Interrupt

EDGES = [0, 1, -1, 2**62, 2**63 - 1, -(2**63) + 1, 2**63, -(2**63), 2**64, -(2**100)]


@pytest.mark.parametrize("value", EDGES)
def test_an_integer_of_any_size_arrives(wire, value) -> None:
    assert wire().send(value) == value


@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, float("inf"), float("-inf"), 5e-324])
def test_a_float_arrives_to_the_bit(wire, value) -> None:
    assert np.float64(wire().send(value)).tobytes() == np.float64(value).tobytes()


def test_not_a_number_arrives(wire) -> None:
    assert np.isnan(wire().send(float("nan")))


@pytest.mark.parametrize("value", [None, True, False, "", b"", (), {}, 0, 0.0])
def test_a_small_value_keeps_its_type(wire, value) -> None:
    arrived = wire().send(value)
    assert arrived == value
    assert type(arrived) is type(value)


def test_values_of_all_kinds_follow_each_other(wire) -> None:
    one = wire(depth=2)
    values = [1, None, 2.5, "text", b"x" * 5000, [1, {"a": b"y" * 300_000}], -7, None]
    assert [one.send(value) for value in values] == values


@settings(max_examples=100)
@given(st.lists(nested, min_size=1, max_size=5))
def test_any_values_arrive_in_order(values) -> None:
    one = Wire(readers=2, slot_bytes=PAGE)
    try:
        assert [one.send(value) for value in values] == values
    finally:
        one.close()


@settings(max_examples=60)
@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=4))
def test_bytes_of_any_sizes_arrive_whether_inline_or_not(sizes) -> None:
    one = Wire(slot_bytes=PAGE)
    value = [np.full(size, size % 251, np.uint8) for size in sizes]
    try:
        arrived = one.send(value)
    finally:
        one.close()
    assert [part.tobytes() for part in arrived] == [part.tobytes() for part in value]


@pytest.mark.parametrize("around", [at.INLINE, at.INLINE - 8, LEASE_BYTES, SLOT])
def test_sizes_around_a_limit_arrive(wire, around) -> None:
    one = wire()
    for size in range(around - 70, around + 3):
        value = bytes([size % 251]) * size
        assert one.send(value) == value


def test_small_values_take_no_payload_memory(wire) -> None:
    one = wire()
    for size in range(0, 3900, 100):
        one.send(b"x" * size)
    assert one.reserved() == 0


def test_one_write_serves_all_readers(wire) -> None:
    one = wire(readers=3)
    one.writer.write(np.arange(SLOT // 16))
    values = [reader.read() for reader in one.readers]
    assert one.reserved() == SLOT
    assert [value.sum() for value in values] == [np.arange(SLOT // 16).sum()] * 3


def test_a_staged_value_is_unseen_until_it_is_published(wire) -> None:
    one = wire()
    one.writer.stage("text")
    assert not one.readers[0].ready()
    one.writer.publish()
    assert one.readers[0].ready()
    assert one.readers[0].read() == "text"
    assert not one.readers[0].ready()


@pytest.mark.parametrize("value", [5, "text", b"x" * 5000, np.zeros(SLOT // 2, np.uint8)])
def test_an_abandoned_value_is_never_seen_and_holds_no_memory(wire, value) -> None:
    one = wire()
    for _ in range(20):
        one.writer.stage(value)
        one.writer.abandon()
    assert one.used() == 0
    assert not one.readers[0].ready()
    assert one.send("next") == "next"
    assert one.reserved() <= SLOT


def test_abandoning_nothing_is_fine(wire) -> None:
    one = wire()
    one.writer.abandon()
    one.send(b"x" * 5000)
    one.writer.abandon()
    assert one.send(b"y" * 5000) == b"y" * 5000


def test_a_value_that_cannot_be_sent_leaves_the_channel_as_it_was(wire) -> None:
    one = wire()
    with pytest.raises(TypeError, match=r"cannot send value\[1\] of type _thread.lock"):
        one.writer.write([np.zeros(10_000), threading.Lock()])
    assert not one.readers[0].ready()
    assert one.send(3) == 3


def test_a_writer_rings_only_readers_that_sleep(wire) -> None:
    one = wire(readers=2)
    bells, board = one.board.bells, one.board
    bells[board.bell_index(2)] = 5
    one.send(1)
    assert bells[board.bell_index(2)] == 0


def test_a_cap_refuses_the_value_and_leaves_the_channel_usable(wire) -> None:
    one = wire(cap=2 * SLOT)
    with pytest.raises(MemoryCapError) as raised:
        one.writer.write(b"x" * 3 * SLOT)
    text = str(raised.value)
    assert f"channel Worker.f#1 wants {3 * SLOT} more bytes" in text
    assert f"_max_memory_bytes={2 * SLOT}" in text
    assert not one.readers[0].ready()
    assert one.send(b"y" * SLOT)[:1] == b"y"


def test_a_cap_counts_values_that_are_held(wire) -> None:
    one = wire(cap=3 * SLOT)
    value = np.zeros(SLOT // 2, np.uint8)
    held = [one.send(value) for _ in range(3)]
    text = r"Worker\.f#1: 786432\. Reader\(2\) holds 3 values of Worker\.f#1 since execution 0\. "
    with pytest.raises(MemoryCapError, match=text + ".*let go of results still"):
        one.writer.write(value)
    del held[0]
    held.append(one.send(value))
    assert one.reserved() == 3 * SLOT


def test_a_cap_counts_values_that_nobody_has_read_yet(wire) -> None:
    one = wire(cap=3 * SLOT, readers=2, depth=4)
    value = np.zeros(SLOT // 2, np.uint8)
    held = [one.send(value)]
    one.writer.write(value)
    one.readers[0].read()
    one.writer.write(value)
    with pytest.raises(MemoryCapError) as raised:
        one.writer.write(value)
    for said in (
        "Reader(2) holds 1 value of Worker.f#1 since execution 0",
        "Reader(2) has not read 1 value of Worker.f#1, from execution 2 on",
        "Reader(3) has not read 2 values of Worker.f#1, from execution 1 on",
    ):
        assert said in str(raised.value)
    del held


def test_what_fits_under_the_cap_once_idle_slots_are_given_back_is_sent(wire) -> None:
    one = wire(cap=4 * SLOT)
    small, large = np.zeros(SLOT // 2, np.uint8), np.zeros(3 * SLOT, np.uint8)
    one.send(small)
    one.send(small)
    assert one.send(large).size == large.size


def test_memory_that_the_machine_lacks_is_refused_and_the_channel_stays_usable(
    wire, monkeypatch
) -> None:
    from compiled_dag.shm import segment as segments

    one = wire()
    monkeypatch.setattr(segments, "available_bytes", lambda: 1000)
    with pytest.raises(MemoryCapError, match=r"a slot of channel Worker\.f#1 needs"):
        one.writer.write(b"x" * 5000)
    assert one.send(5) == 5
    monkeypatch.undo()
    assert one.send(b"x" * 5000) == b"x" * 5000


# --- what is lent ---------------------------------------------------------------------------------


class Token:
    """Known by its number elsewhere, as references are."""


lend_by(Token, lambda _token: (int, (7,)))


def lent_with(writer, make=lambda token: [token]) -> weakref.ref:
    token = Token()
    writer.write(make(token))
    return weakref.ref(token)


def test_what_is_lent_is_kept_until_all_readers_have_it_and_more_is_sent(wire) -> None:
    one = wire(readers=2, depth=4)
    first = lent_with(one.writer)
    assert one.readers[0].read() == [7]
    second = lent_with(one.writer, lambda token: {"deep": (lambda: 0, token)})
    one.writer.write(1)
    assert first() is not None
    assert one.readers[1].read() == [7]
    one.readers[1].read()
    one.writer.write(2)
    assert first() is None
    assert second() is not None
    assert not one.writer.may_take_back
    one.readers[0].skip()
    assert one.writer.may_take_back
    one.writer.take_back()
    assert second() is None


def test_what_is_lent_with_a_message_that_is_not_sent_is_let_go_of(wire) -> None:
    one = wire()
    token = Token()
    one.writer.stage([token])
    alive = weakref.ref(token)
    del token
    assert alive() is not None
    one.writer.abandon()
    assert alive() is None
    assert one.writer.may_take_back
    with pytest.raises(TypeError):
        one.writer.stage([Token(), threading.Lock()])
    assert one.writer.may_take_back


def test_lending_is_told_and_all_is_taken_back_when_nobody_reads_any_more(wire) -> None:
    one, told = wire(), []
    one.writer.on_lent = lambda: told.append(one.writer.may_take_back)
    one.writer.stage_captured(one.writer.capture([Token()]))
    one.writer.publish()
    one.send(1)
    alive = lent_with(one.writer)
    one.writer.take_all_back()
    assert (told, alive()) == ([False, False], None)


# --- interrupts -----------------------------------------------------------------------------------


def test_after_an_interrupt_on_any_line_messages_arrive_and_wake_who_sleeps(wire) -> None:
    one = wire()
    (reader,), bell = one.readers, one.board.bell_index(1)
    for place in itertools.count(1):
        with Interrupt((compiled_dag.channel.writer,), place) as interrupt:
            one.writer.write(place)
        if reader.ready():
            assert reader.read() == place
        for value in (-place, [place]):
            one.board.bells[bell] = place
            assert one.send(value) == value
            assert one.board.bells[bell] == 0
        if not interrupt.raised:
            break
    assert place > 5
