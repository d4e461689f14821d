"""One channel in host memory, with ends whose GPU (`fake`) copies from it or to it."""

from __future__ import annotations

import pytest

from compiled_dag.cuda.pins import Pins
from compiled_dag.cuda.staging import StagingWriter
from compiled_dag.errors import MemoryCapError
from compiled_dag.shm.segment import PAGE
from tests.cuda.fake import VIOLATION
from tests.cuda.late import CURRENT, RECEIVE, Late
from tests.cuda.rig import WRITER, WRONG, End, Plan, fill, is_right, play, receive_all, send_all

pytestmark = [pytest.mark.proc, pytest.mark.timeout(100)]

TO_GPUS = {"copying": (2, 3), "device": "cuda"}
TO_HOSTS = {"copying": (1,), "device": "cpu"}
BETWEEN_GPUS = {"copying": (1, 2, 3), "device": "default"}
WAYS = [TO_GPUS, TO_HOSTS, BETWEEN_GPUS]


def plan(way, **options) -> Plan:
    """Return a plan whose tensors are of all sizes up to 800 KB, and growing."""
    settings = {"laps": 100, "readers": 2, "depth": 4, "most": 20_000, "grows": True} | options
    return Plan(mechanism="host", **way, **settings)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"depth": 1},
        {"slow": (3,)},
        {"readers": 1},
        {"overlaps": True},
        {"settings": "pause_us=0"},
        {"elsewhere": 1},
    ],
    ids=str,
)
def test_what_arrives_is_what_was_sent(way, options) -> None:
    options = dict(options)
    if options.get("readers") == 1:
        way = way | {"copying": tuple(one for one in way["copying"] if one < 3)}
    codes = play(plan(way, **options))
    assert set(codes.values()) == {0}


@pytest.mark.parametrize(
    ("way", "point", "number"),
    [
        (TO_HOSTS, "copy", 5),
        (TO_HOSTS, "record", 5),
        (TO_HOSTS, "publish", 7),
        (BETWEEN_GPUS, "copy", 5),
        (BETWEEN_GPUS, "publish", 7),
        (TO_GPUS, "publish", 7),
    ],
    ids=str,
)
def test_a_writer_that_dies_leaves_readers_that_end_in_order(way, point, number) -> None:
    assert play(plan(way, laps=40, die=(WRITER, point, number))) == {WRITER: -9, 2: 0, 3: 0}


@pytest.mark.parametrize("way", [TO_GPUS, BETWEEN_GPUS], ids=str)
@pytest.mark.parametrize("point", ["copy", "record", "acknowledge"])
def test_a_reader_that_dies_leaves_the_others(way, point) -> None:
    assert play(plan(way, laps=40, die=(2, point, 4))) == {WRITER: 0, 2: -9, 3: 0}


# --- what is wrong is noticed -------------------------------------------------------------------


def forget_what_is_copied_from(end: End) -> None:
    """Give slots back before the GPU has copied from them."""
    note = Pins.note
    Pins.note = lambda pins, stream, kept: note(pins, stream, None)
    receive_all(end)


def forget_to_pin(end: End) -> None:
    """Have the GPU copy from memory that is not pinned."""
    Pins.pin = lambda pins, mapping, offset, nbytes: None
    receive_all(end)


def forget_the_lap_before(end: End) -> None:
    """Use on one stream what another one copies, as if it were there."""
    end.seat.device.driver.wait = lambda stream, event: None
    receive_all(end)


def publish_too_early(end: End) -> None:
    """Publish what the GPU has not copied yet."""
    end.seat.device.driver.is_done = lambda event: True
    send_all(end)


def at_worst(way, late: Late | None, **options) -> Plan:
    """Return a plan of which every message has tensors, where one stream is late."""
    return plan(way, laps=40, counts=(1, 1, 3), settings="pause_us=0", late=late, **options)


COPYING_OUT = at_worst(
    TO_GPUS,
    Late(stream=(2, CURRENT), point="copy", behind=(WRITER, CURRENT), ahead=1),
    depth=1,  # what is released last is used first: the next lap is in the same slot
)
"""A reader's GPU, which the writer is a lap ahead of."""
ARRIVING = at_worst(
    TO_GPUS, Late(stream=(2, RECEIVE), point="copy", behind=(2, CURRENT)), overlaps=True
)
"""Copies out on their own stream: methods are there first."""
COPYING_IN = at_worst(TO_HOSTS, Late(stream=(WRITER, CURRENT), point="copy", behind=(2, CURRENT)))
"""The writer's GPU: readers are there first, who have none. Its host is to wait for it."""


@pytest.mark.parametrize(
    ("plan", "send", "receive", "exit_codes"),
    [
        (COPYING_OUT, send_all, forget_what_is_copied_from, {WRONG, VIOLATION}),
        (at_worst(TO_GPUS, None), send_all, forget_to_pin, {VIOLATION}),
        (ARRIVING, send_all, forget_the_lap_before, {WRONG}),
        (COPYING_IN, publish_too_early, receive_all, {WRONG}),
    ],
)
def test_this_gpu_shows_what_breaks_it(plan, send, receive, exit_codes) -> None:
    assert exit_codes & set(play(plan, send, receive).values())


@pytest.mark.parametrize("plan", [COPYING_OUT, ARRIVING])
def test_the_worst_order_changes_nothing_in_what_arrives(plan) -> None:
    assert set(play(plan).values()) == {0}


# --- pins -----------------------------------------------------------------------------------------


def count_pins(end: End) -> None:
    """Send as always; what is outgrown must not stay pinned."""
    send_all(end)
    (writer,) = (ring for ring in end.rings if isinstance(ring, Pins))
    assert 1 <= len({one.address for one in writer._pinned.values()}) <= 2
    assert all(not address % PAGE for address in writer._pinned)
    assert not writer._copies
    assert len(writer._spare) == 1


def test_what_is_outgrown_is_unpinned() -> None:
    assert set(play(plan(TO_HOSTS), send=count_pins).values()) == {0}


def keep_nothing(end: End) -> None:
    """Receive as always; the reader, which lives on, keeps no tensor."""
    reader = end.reader()
    end.reader = lambda: reader
    receive_all(end)
    assert not end.device.blocks


@pytest.mark.parametrize("overlaps", [False, True])
def test_what_was_read_is_the_users_alone(overlaps) -> None:
    codes = play(plan(TO_GPUS, laps=19, overlaps=overlaps), receive=keep_nothing)
    assert set(codes.values()) == {0}


def refuse_to_pin(end: End) -> None:
    """Be a GPU that can pin nothing any more, once."""
    register, refused = end.device.driver.register, []

    def refuse(address: int, nbytes: int) -> None:
        if not refused:
            refused.append(address)
            raise end.device.driver.error_type(2)
        register(address, nbytes)

    end.device.driver.register = refuse
    writer = end.writer()
    assert isinstance(writer, StagingWriter)
    tensor = end.device.new(("int32", (30_000,)))
    end.device.launch(lambda tensor: fill(tensor, 5), tensor)
    with pytest.raises(MemoryCapError, match="writing Worker.f#1: the GPU has no memory left"):
        writer.write(tensor)
    writer.write(tensor)
    assert len(writer._pool._uses) == 1  # slots


def receive_one(end: End) -> None:
    (found,) = end.messages(end.reader(), 1)
    assert is_right(found, 5)


def test_memory_that_cannot_be_pinned_is_an_error_of_its_value() -> None:
    assert set(play(plan(TO_HOSTS), refuse_to_pin, receive_one).values()) == {0}


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_hundred_thousand_laps(way) -> None:
    long = plan(way, laps=100_000, depth=8, most=9000, grows=False, settings="pause_us=0")
    assert set(play(long).values()) == {0}
