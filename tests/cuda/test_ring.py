from __future__ import annotations

import faulthandler
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from compiled_dag.channel import ring_area
from compiled_dag.cuda.reader import CudaReader
from compiled_dag.cuda.receiving import ReceivingRing
from compiled_dag.cuda.sending import SendingRing
from compiled_dag.cuda.views import ViewReader
from tests.cuda.fake import VIOLATION
from tests.cuda.late import CURRENT, RECEIVE, Late
from tests.cuda.rig import (
    WRITER,
    WRONG,
    End,
    Plan,
    WrongValuesError,
    play,
    receive_all,
    send_all,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.proc, pytest.mark.timeout(100)]


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 1},
        {"depth": 2, "readers": 2},
        {"depth": 8, "readers": 3, "slow": (3,)},
        {"depth": 8, "grows": True},
        {"depth": 8, "grows": True, "readers": 2, "slow": (2,)},
        {"depth": 8, "grows": True, "readers": 2, "mechanism": "pinned"},
        {"depth": 8, "grows": True, "readers": 2, "host_ordered": True},
        {"depth": 8, "grows": True, "mechanism": "pinned", "host_ordered": True},
        {"depth": 8, "grows": True, "readers": 2, "slow": (2,), "overlaps": True},
        {"depth": 8, "mechanism": "pinned", "host_ordered": True, "overlaps": True},
        {"depth": 1, "views": True},
        {"depth": 8, "grows": True, "readers": 3, "slow": (2,), "views": True},
        {"depth": 8, "grows": True, "readers": 2, "views": True, "overlaps": True},
        {"depth": 8, "grows": True, "views": True, "host_ordered": True},
        {"depth": 8, "grows": True, "readers": 2, "elsewhere": 1},
        {"depth": 8, "grows": True, "views": True, "elsewhere": 1},
    ],
    ids=str,
)
def test_what_arrives_is_what_was_sent(options) -> None:
    codes = play(Plan(laps=150, **options))
    assert set(codes.values()) == {0}


POINTS = ["import_memory", "import_event", "wait", "copy", "record"]


@pytest.mark.parametrize("point", [*POINTS[1:], "publish"])
@pytest.mark.parametrize("number", [1, 7])
def test_a_writer_that_dies_leaves_readers_that_end_in_order(point, number) -> None:
    codes = play(Plan(laps=60, readers=2, depth=8, die=(WRITER, point, number)))
    assert codes == {WRITER: -9, 2: 0, 3: 0}


@pytest.mark.parametrize("point", [*POINTS, "acknowledge"])
@pytest.mark.parametrize("number", [1, 4])
def test_a_reader_that_dies_leaves_others_that_end_in_order(point, number) -> None:
    plan = Plan(laps=60, readers=2, depth=8, grows=True, most=3000, die=(2, point, number))
    codes = play(plan)
    assert codes == {WRITER: 0, 2: -9, 3: 0}


@pytest.mark.parametrize(
    ("victim", "point", "number"),
    [
        *[(WRITER, point, 7) for point in ("import_event", "copy", "record", "publish")],
        *[(2, point, 4) for point in ("import_memory", "wait", "acknowledge", "use", "record")],
    ],
)
def test_a_death_ends_the_others_while_they_have_views(victim, point, number) -> None:
    plan = Plan(laps=60, readers=2, depth=8, grows=True, most=3000, views=True)
    plan.die = victim, point, number
    assert play(plan) == {WRITER: 0, 2: 0, 3: 0} | {victim: -9}


# --- views that are kept ------------------------------------------------------------------------


def keep_some(end: End, part: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Keep a part of every seventh tensor, and look at all of these at the end."""
    reader, device = end.reader(), end.device
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    for value in end.messages(reader, end.plan.laps):
        lap = reader.sequence - 1
        one = value if isinstance(value, torch.Tensor) else None
        del value
        if one is not None and lap % 7 == 3:
            device.synchronize()
            kept.append((part(one), one.clone()))
        del one
    device.synchronize()
    assert len(kept) > 5
    if not all(torch.equal(found, part(expected)) for found, expected in kept):
        raise WrongValuesError("wrong values in what is kept")


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def row(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[-1:]


def keep_wholes(end: End) -> None:
    keep_some(end, whole)


def keep_rows(end: End) -> None:
    keep_some(end, row)


@pytest.mark.filterwarnings("ignore:.*keeps a view of what Worker.f")
@pytest.mark.parametrize("receive", [keep_wholes, keep_rows])
@pytest.mark.parametrize("overlaps", [False, True])
def test_a_view_that_is_kept_stays_as_it_is(receive, overlaps) -> None:
    plan = Plan(laps=120, readers=2, depth=8, grows=True, views=True, overlaps=overlaps)
    assert set(play(plan, receive=receive).values()) == {0}


def send_when_they_have_left(end: End) -> None:
    """Have the GPU come to the last message, which nobody takes, when the reader has ended."""
    writer, ended = end.writer(), end.seat.area.reader(0) // 8 + ring_area.READER_ENDED
    for lap in range(end.plan.laps):
        if lap == end.plan.laps - 1:
            end.device.launch(lambda: outlast(end.graph.words, ended))
        end.await_window(lap)
        writer.write(end.device.new(("uint8", (64,))))


def outlast(words: memoryview, ended: int) -> None:
    """Be a kernel that takes a moment longer than the reader's end."""
    while not words[ended]:
        time.sleep(1e-4)
    time.sleep(0.2)


def leave_the_last(end: End) -> None:
    reader = end.reader()
    for value in end.messages(reader, end.plan.laps - 1):
        del value
    end.waiter.word(end.graph.words, reader.sequence_word, reader.sequence, end.graph.guard)


def test_an_event_lives_until_no_stream_of_another_process_waits_for_it() -> None:
    assert play(Plan(laps=20), send_when_they_have_left, leave_the_last) == {WRITER: 0, 2: 0}


# --- what is wrong is noticed -------------------------------------------------------------------


def forget_ready(end: End) -> None:
    """Read without waiting for the writer's copies."""
    end.device.driver.wait = lambda stream, event: None
    receive_all(end)


def forget_free(end: End) -> None:
    """Write without waiting for the readers' copies."""
    end.device.driver.wait = lambda stream, event: None
    send_all(end)


def announce_too_early(end: End) -> None:
    """Give slots back on the host before the GPU is asked to say that it is done."""
    end.device.driver.record = lambda event, stream: None
    receive_all(end)


def forget_arrival(end: End) -> None:
    """Use what another stream copies, as if it were there."""
    CudaReader.arrive = lambda reader: None
    receive_all(end)


def take_back_too_early(end: End) -> None:
    """Give slots back before what uses the views is enqueued."""
    faulthandler.disable()  # an outgrown ring may be unmapped by then
    ReceivingRing._note_kept = lambda ring, watch: False
    peek = ViewReader.peek

    def peek_and_take_back(reader: ViewReader) -> object:
        value = peek(reader)
        reader.take_back()
        return value

    ViewReader.peek = peek_and_take_back
    receive_all(end)


def overlook_what_is_kept(end: End) -> None:
    """Give slots back that user code has views of."""
    faulthandler.disable()  # memory that is unmapped by then ends the process, as it should
    ReceivingRing._note_kept = lambda ring, watch: False
    keep_wholes(end)


def forget_lending(end: End) -> None:
    """Use on one stream what another one may give to the next tensor."""
    end.device.lend = lambda tensor: None
    receive_all(end)


def free_too_early(end: End) -> None:
    """Free an outgrown ring although readers may have it open."""
    end.rings = []
    SendingRing._free_retired = lambda ring: [
        ring._free_memory(ring._retired.pop()) for _ in list(ring._retired)
    ]
    send_all(end)


def at_worst(late: Late | None, **options) -> Plan:
    """Return a plan of which every message is in the ring, where one stream is late."""
    plan = Plan(laps=60, depth=8, grows=True, most=6000, counts=(1, 1, 3), settings="pause_us=0")
    return replace(plan, late=late, **options)


SLOTS = ring_area.ring_slots(8)
COPYING_IN = Late(stream=(WRITER, CURRENT), point="copy", behind=(2, CURRENT))
"""The writer: its readers' GPUs are there first."""
COPYING_OUT = Late(stream=(2, CURRENT), point="copy", behind=(WRITER, CURRENT), ahead=SLOTS)
"""A reader: the writer's GPU comes to the next use of the slot first."""
USING_VIEWS = replace(COPYING_OUT, point="use")
ARRIVING = Late(stream=(2, RECEIVE), point="copy", behind=(2, CURRENT))
"""Copies out on their own stream: methods are there first."""
USING_COPIES = Late(stream=(2, CURRENT), point="use", behind=(2, RECEIVE))
"""Methods: their tensors' stream comes to the end of these first."""


@pytest.mark.parametrize(
    ("plan", "send", "receive", "exit_codes"),
    [
        (at_worst(COPYING_IN), send_all, forget_ready, {WRONG}),
        (at_worst(COPYING_OUT), forget_free, receive_all, {WRONG}),
        (at_worst(COPYING_OUT), send_all, announce_too_early, {WRONG, VIOLATION}),
        (at_worst(COPYING_OUT), free_too_early, receive_all, {VIOLATION}),
        (at_worst(ARRIVING, overlaps=True), send_all, forget_arrival, {WRONG}),
        (at_worst(USING_COPIES, overlaps=True), send_all, forget_lending, {WRONG, VIOLATION}),
        (at_worst(USING_VIEWS, views=True), send_all, take_back_too_early, {WRONG, VIOLATION, -11}),
        # No stream has to be late: the reader looks when it has all, so the writer's GPU has used
        # the slots again, or what they were in is unmapped.
        (at_worst(None, views=True, counts=(1,)), send_all, overlook_what_is_kept, {WRONG, -11}),
    ],
)
def test_this_gpu_shows_what_breaks_the_protocol(plan, send, receive, exit_codes) -> None:
    assert exit_codes & set(play(plan, send, receive).values())


@pytest.mark.parametrize(
    "plan",
    [
        at_worst(COPYING_IN),
        at_worst(COPYING_OUT),
        at_worst(ARRIVING, overlaps=True),
        at_worst(USING_COPIES, overlaps=True),
        at_worst(COPYING_IN, views=True),
        at_worst(USING_VIEWS, views=True),
    ],
)
def test_the_worst_order_changes_nothing_in_what_arrives(plan) -> None:
    assert set(play(plan).values()) == {0}


@pytest.mark.parametrize("victim", [WRITER, 2])
@pytest.mark.parametrize("options", [{"mechanism": "pinned"}, {"host_ordered": True}], ids=str)
def test_a_death_ends_the_others_whatever_the_ring_is_in(victim, options) -> None:
    plan = Plan(laps=60, readers=2, depth=8, grows=True, die=(victim, "copy", 9), **options)
    codes = play(plan)
    assert codes == {WRITER: 0, 2: 0, 3: 0} | {victim: -9}


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize("readers", [1, 2])
def test_a_hundred_thousand_laps(readers, views) -> None:
    plan = Plan(laps=100_000, readers=readers, depth=8, most=300, settings="pause_us=0")
    plan.views = views
    assert set(play(plan).values()) == {0}
