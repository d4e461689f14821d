from __future__ import annotations

import dataclasses
import pickle
import time

import numpy as np
import pytest

from compiled_dag import GraphMemory, InputNode, MultiOutputNode
from compiled_dag.channel import layout as at
from compiled_dag.channel.usage import usage
from tests.compiled_dag.channel.wires import SLOT, Wire
from tests.graphs import Keeper

LEASED = 100_000
"""Bytes: a value of this size stays where it was written while somebody holds it."""
SLOT_BYTES = 131_072


def kept(host, **options):
    """Compile a graph whose actor keeps what it gets and whose output is a large array."""
    keeper = Keeper()
    maker, actor = host.actor(Keeper()), host.actor(keeper)
    with InputNode() as inp:
        made = maker.make.bind(inp)
        output = MultiOutputNode([made, actor.keep.bind(made)])
    options = {"_buffer_size_bytes": SLOT_BYTES, "_max_inflight_executions": 4, **options}
    return keeper, output.experimental_compile(**options)


def channel(memory, end):
    (found,) = [one for one in memory.channels if one.name.endswith(end)]
    return found


def settle(graph):
    """Wait until the steps of all executions are done: a value is let go of after the last one."""
    for actor in graph.actors:  # an ordinary call comes after them
        actor.echo.remote(0).result(time.monotonic() + 120)


def test_a_graph_that_carried_nothing_takes_only_its_descriptors(host) -> None:
    _, graph = kept(host)
    with graph:
        memory = graph.memory()
    assert [(one.name, one.writer, one.readers) for one in memory.channels] == [
        ("input", "driver", ("Keeper(1)",)),
        ("Keeper.make#1", "Keeper(1)", ("driver", "Keeper(2)")),
        ("Keeper.keep#2", "Keeper(2)", ("driver",)),
    ]
    assert memory.inline_bytes == 3 * 4 * at.SLOT
    assert (memory.reserved_bytes, memory.used_bytes, memory.pins) == (0, 0, ())
    assert memory.cap_bytes is None


def test_what_is_held_is_used_and_named_with_its_execution_and_holder(host) -> None:
    keeper, graph = kept(host, _max_memory_bytes=10_000_000)
    with graph:
        results = [[ref.get(30) for ref in graph.execute(number)] for number in range(3)]
        memory = graph.memory()
        assert memory.cap_bytes == 10_000_000
        made = channel(memory, "#1")
        assert (made.slot_bytes, made.slots, made.unread) == (SLOT_BYTES, 5, 0)
        assert made.reserved_bytes == made.used_bytes == memory.used_bytes == 3 * SLOT_BYTES
        assert {(pin.execution, pin.holder, pin.size_bytes) for pin in memory.pins} == {
            (number, holder, SLOT_BYTES)
            for number in range(3)
            for holder in ("driver", "Keeper(2)")
        }
        assert [pin.execution for pin in memory.pins] == [0, 0, 1, 1, 2, 2]
        del results[:2]
        settle(graph)
        del keeper.kept[1:]
        memory = graph.memory()
        assert {(pin.execution, pin.holder) for pin in memory.pins} == {
            (0, "Keeper(2)"),
            (2, "driver"),
        }
        assert memory.used_bytes == 2 * SLOT_BYTES
        assert memory.reserved_bytes == 3 * SLOT_BYTES


def test_what_nobody_got_yet_is_unread_and_used_but_not_pinned(host) -> None:
    keeper, graph = kept(host)
    with graph:
        refs = [graph.execute(number) for number in range(2)]
        for _, count in refs:
            count.get(30)
        settle(graph)
        keeper.kept.clear()
        memory = graph.memory()
        made = channel(memory, "#1")
        assert (made.unread, made.used_bytes) == (2, 2 * SLOT_BYTES)
        assert memory.pins == ()


def test_the_last_figures_stay_readable_after_the_end(host) -> None:
    keeper, graph = kept(host)
    with graph:
        result, _ = (ref.get(30) for ref in graph.execute(1))
        settle(graph)
        keeper.kept.clear()
        before = graph.memory()
    assert graph.memory() == before
    assert [(pin.execution, pin.holder) for pin in before.pins] == [(0, "driver")]
    assert result[0] == 1


def test_memory_is_plain_data_and_a_table(host) -> None:
    keeper, graph = kept(host, _max_memory_bytes=1 << 20)
    with graph:
        result, _ = (ref.get(30) for ref in graph.execute(1))
        settle(graph)
        keeper.kept.clear()
        memory = graph.memory()
    assert isinstance(memory, GraphMemory)
    assert pickle.loads(pickle.dumps(memory)) == memory
    with pytest.raises(dataclasses.FrozenInstanceError):
        memory.cap_bytes = 1
    assert [" ".join(line.split()) for line in str(memory).splitlines()] == [
        "channel from to slots reserved used unread",
        "0 input driver Keeper(1) - 0 B 0 B 0",
        "1 Keeper.make#1 Keeper(1) driver, Keeper(2) 5 x 128 KiB 128 KiB 128 KiB 0",
        "2 Keeper.keep#2 Keeper(2) driver - 0 B 0 B 0",
        "total (cap 1 MiB) 128 KiB 128 KiB",
        "pinned: channel 1, execution 0, 128 KiB held by driver",
    ]
    assert result[0] == 1


def test_what_one_holds_of_a_channel_is_one_line(host) -> None:
    _, graph = kept(host)
    with graph:
        held = []
        for _ in range(3):
            made, count = graph.execute(1)
            held.append(made.get(30))
            count.get(30)  # until it has come, the keeper may not have read its value
        lines = [line for line in str(graph.memory()).splitlines() if line.startswith("pinned")]
    theirs = "pinned: channel 1, 3 values of executions 0 to 2, 384 KiB held by"
    assert sorted(lines) == [f"{theirs} Keeper(2)", f"{theirs} driver"]
    assert len(held) == 3


# --- one channel ----------------------------------------------------------------------------------


@pytest.fixture
def wire():
    wires = []

    def make(**options):
        wires.append(Wire(**options))
        return wires[-1]

    yield make
    for one in wires:
        one.close()


def test_a_channel_that_grew_counts_its_new_slots_and_what_is_held_in_old_ones(wire) -> None:
    one = wire(depth=2)
    old = one.send(np.zeros(SLOT - 4096, np.uint8))
    large = one.send(np.zeros(3 * SLOT, np.uint8))
    seen = usage(one.graph, 0)
    assert (seen.slot_bytes, seen.slots) == (3 * SLOT + 4096, 3)
    assert seen.used_bytes == SLOT + seen.slot_bytes
    assert [(held.execution, held.size_bytes) for held in seen.held] == [
        (0, SLOT),
        (1, seen.slot_bytes),
    ]
    del old, large
    assert usage(one.graph, 0).held == ()


def test_a_value_that_could_not_be_published_is_not_used(wire) -> None:
    one = wire()
    for _ in range(3):
        one.writer.stage(np.zeros(SLOT - 4096, np.uint8))
        one.writer.abandon()
        assert usage(one.graph, 0).used_bytes == 0
    assert one.send(np.ones(SLOT - 4096, np.uint8)).all()
    assert one.reserved() == SLOT
