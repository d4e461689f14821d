from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from compiled_dag.channel.body import ALIGN, body_in, body_of

lengths = st.lists(st.integers(0, 300), max_size=5).map(tuple)


@st.composite
def messages(draw):
    """Length of the head, of the buffers, and which of these are private."""
    found = draw(lengths)
    chosen = draw(st.sets(st.sampled_from(range(len(found))))) if found else set()
    return draw(st.integers(0, 200)), found, tuple(sorted(chosen))


@given(messages())
def test_a_body_has_its_table_its_head_and_every_buffer_at_a_multiple_of_64(message) -> None:
    head_bytes, buffers, private = message
    made = body_of(*message)
    assert len(made.table) == 8 * len(buffers)
    assert (made.head.start, made.head.stop) == (len(made.table), len(made.table) + head_bytes)
    end = made.head.stop
    for place, length in zip(made.buffers, buffers, strict=True):
        assert place.start == -(-end // ALIGN) * ALIGN
        end = place.stop
        assert end - place.start == length
    assert made.size == end
    assert made.private == private


@given(messages())
def test_readers_find_the_parts_where_writers_put_them(message) -> None:
    made = body_of(*message)
    assert body_in(message[0], made.table) == made


def test_messages_that_differ_in_what_is_private_alone_are_kept_apart() -> None:
    assert body_of(10, (64, 64), (0,)).table != body_of(10, (64, 64), (1,)).table
