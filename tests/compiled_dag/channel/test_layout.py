from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from compiled_dag.channel import layout as at
from compiled_dag.channel.layout import ChannelSpec, Layout
from compiled_dag.shm.segment import HUGE, PAGE


@st.composite
def channel_lists(draw):
    shapes = draw(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 40)), max_size=12))
    return tuple(
        ChannelSpec(
            index=index, writer=0, readers=tuple(range(1, readers + 1)), depth=depth, label="c"
        )
        for index, (readers, depth) in enumerate(shapes)
    )


def areas(layout: Layout, num_participants: int, channels) -> list[tuple[int, int]]:
    """Return start and end of everything in the control part."""
    found = [(0, PAGE)]
    found += [
        (layout.participant(i), layout.participant(i) + at.LINE) for i in range(num_participants)
    ]
    traces = [layout.trace(i) for i in range(1, num_participants)]
    found += [(trace, trace + at.TRACE_BYTES) for trace in traces]
    for spec, place in zip(channels, layout.channels, strict=True):
        found.append((place.control, place.control + at.LINE))
        table = place.control + at.EXTENT_TABLE
        found.append((table, table + at.MAX_EXTENTS * at.EXTENT_WORDS * 8))
        lines = [place.reader(position) for position in range(len(spec.readers))]
        found += [(line, line + at.LINE) for line in lines]
        found += [
            (place.ring + slot * at.SLOT, place.ring + (slot + 1) * at.SLOT)
            for slot in range(spec.depth)
        ]
    return found


@given(st.integers(1, 40), channel_lists())
def test_nothing_overlaps_and_everything_is_in_the_control_part(num_participants, channels) -> None:
    layout = Layout.of(num_participants, channels)
    found = sorted(areas(layout, num_participants, channels))
    assert all(end <= start for (_, end), (start, _) in pairwise(found))
    assert found[-1][1] <= layout.control_bytes


@given(st.integers(1, 40), channel_lists())
def test_payload_regions_are_apart_and_in_the_file(num_participants, channels) -> None:
    layout = Layout.of(num_participants, channels)
    starts = [place.region for place in layout.channels]
    assert all(start % at.REGION == 0 for start in starts)
    assert len(set(starts)) == len(starts)
    assert layout.control_bytes <= min(starts, default=at.REGION)
    assert max(starts, default=0) + at.REGION == layout.size


@given(st.integers(1, 40), channel_lists())
def test_what_is_mapped_begins_at_a_page_and_words_are_aligned(num_participants, channels) -> None:
    layout = Layout.of(num_participants, channels)
    assert layout.control_bytes % PAGE == 0
    for place in layout.channels:
        assert place.ring % PAGE == 0
        assert place.control % at.LINE == 0


def test_two_participants_that_agree_on_the_channels_agree_on_every_place() -> None:
    channels = (
        ChannelSpec(index=0, writer=0, readers=(1, 2), depth=3, label="a"),
        ChannelSpec(index=1, writer=1, readers=(0,), depth=3, label="b"),
    )
    assert Layout.of(3, channels) == Layout.of(3, channels)


def test_lines_of_two_writers_are_in_different_cache_lines() -> None:
    assert at.LINE >= 128


@given(st.integers(1, 20 * HUGE))
def test_slots_hold_their_messages_and_waste_at_most_half_a_huge_page(nbytes) -> None:
    capacity = at.slot_capacity(nbytes)
    assert nbytes <= capacity < nbytes + max(PAGE, HUGE // 2 + 1)
    assert at.slot_capacity(capacity) == capacity
    assert capacity % HUGE == 0 or capacity % HUGE < HUGE // 2
    assert capacity % PAGE == 0


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5 * HUGE))
def test_large_slots_are_where_huge_pages_can_be(readers, slots, nbytes) -> None:
    capacity = at.slot_capacity(nbytes)
    head, stride = at.extent_head(readers, slots, capacity), at.stride(capacity)
    assert head >= at.words_bytes(readers, slots) >= (readers + 1) * slots * 8
    assert stride >= capacity
    if capacity >= HUGE:
        assert head % HUGE == stride % HUGE == 0
    else:
        assert stride == capacity
