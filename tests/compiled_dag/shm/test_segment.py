from __future__ import annotations

import contextlib
import fcntl
import gc
import itertools
import os
import resource
import sys
from pathlib import Path

import pytest

from compiled_dag import MemoryCapError
from compiled_dag.shm import segment as segments
from compiled_dag.shm.segment import (
    HUGE,
    PAGE,
    Mapping,
    Segment,
    available_bytes,
    require_memory,
    round_up,
)


@pytest.fixture
def segment(no_leaks):
    made = Segment.create("compiled-dag-test", 8 * PAGE)
    yield made
    made.close()


def memory_of(segment: Segment) -> int:
    """Return the bytes that the segment really takes."""
    return os.fstat(segment.fd).st_blocks * 512


@pytest.mark.parametrize(
    ("nbytes", "rounded"), [(0, 0), (1, PAGE), (PAGE, PAGE), (PAGE + 1, 2 * PAGE)]
)
def test_sizes_are_rounded_up_to_pages(nbytes, rounded) -> None:
    assert round_up(nbytes) == rounded


def test_rounding_takes_any_unit() -> None:
    assert round_up(65, 64) == 128


def test_two_mappings_show_one_memory(segment) -> None:
    first, second = segment.map(0, 2 * PAGE).view(), segment.map(PAGE, PAGE).view()
    first[PAGE + 3] = 7
    assert second[3] == 7


def test_a_view_keeps_its_mapping_after_the_segment_is_closed(segment) -> None:
    view = segment.map(0, PAGE).view()
    segment.close()
    gc.collect()
    view[0] = 1
    assert view.cast("Q")[0] == 1


def test_a_mapping_ends_with_its_last_view(segment) -> None:
    mapping = segment.map(0, PAGE)
    view = mapping.view()
    address, maps = f"{mapping.address:x}-", Path("/proc/self/maps")
    del mapping
    assert address in maps.read_text()
    del view
    assert address not in maps.read_text()


def test_a_segment_cannot_be_resized(segment) -> None:
    for size in (PAGE, 16 * PAGE):
        with pytest.raises(PermissionError):
            os.ftruncate(segment.fd, size)


def test_seals_cannot_be_added_or_removed(segment) -> None:
    with pytest.raises(PermissionError):
        fcntl.fcntl(segment.fd, 1033, 8)  # F_ADD_SEALS, F_SEAL_WRITE


def test_a_segment_costs_nothing_until_it_is_touched(segment) -> None:
    assert memory_of(segment) == 0
    segment.map(0, 8 * PAGE).view()[0] = 1
    assert memory_of(segment) == PAGE


def test_populate_faults_pages_in(segment) -> None:
    segment.map(0, 8 * PAGE).populate(PAGE + 5, PAGE)
    assert memory_of(segment) in (0, 2 * PAGE)  # 0: a kernel older than 5.14


@pytest.fixture
def large_segment(no_leaks):
    made = Segment.create("compiled-dag-test", 64 * HUGE)
    yield made
    made.close()


@pytest.mark.parametrize("offset", [0, PAGE, 3 * HUGE, 5 * HUGE - PAGE])
def test_a_large_mapping_lies_so_that_it_may_have_huge_pages(large_segment, offset) -> None:
    mapping = large_segment.map(offset, 3 * HUGE)
    assert (mapping.address - offset) % HUGE == 0
    view = mapping.view()
    view[0], view[-1] = 1, 2
    assert large_segment.map(offset, PAGE).view()[0] == 1
    assert large_segment.map(offset + 3 * HUGE - PAGE, PAGE).view()[-1] == 2


def test_a_large_mapping_gives_all_its_addresses_back(large_segment) -> None:
    def reserved() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0])

    large_segment.map(0, 8 * HUGE)
    before = reserved()
    for _ in range(50):
        large_segment.map(0, 8 * HUGE)
    assert reserved() - before < 8 * HUGE // PAGE


def test_collapse_takes_memory_for_whole_huge_pages_and_nothing_else(large_segment) -> None:
    large_segment.map(0, 8 * HUGE).collapse(HUGE + PAGE, 3 * HUGE)
    # Where the kernel cannot, the page that was touched in each of the two.
    assert memory_of(large_segment) in (2 * HUGE, 2 * PAGE)
    large_segment.map(PAGE, 8 * HUGE).collapse(0, HUGE - 2 * PAGE)
    assert memory_of(large_segment) in (2 * HUGE, 2 * PAGE)


def test_what_one_mapping_writes_to_huge_pages_others_see(large_segment) -> None:
    one, other = large_segment.map(0, 4 * HUGE), large_segment.map(HUGE, 2 * HUGE)
    one.collapse(0, 4 * HUGE)
    one.view()[HUGE] = 7
    assert other.view()[0] == 7
    other.collapse(0, HUGE)
    assert one.view()[HUGE] == 7


def test_what_is_there_stays_when_it_is_collapsed(large_segment) -> None:
    mapping = large_segment.map(0, 4 * HUGE)
    view = mapping.view()
    view[HUGE], view[2 * HUGE + 9] = 1, 2
    mapping.collapse(0, 4 * HUGE)
    assert (view[HUGE], view[2 * HUGE + 9], sum(view[: HUGE // 8])) == (1, 2, 0)


def test_where_the_kernel_cannot_make_huge_pages_there_is_memory_all_the_same(
    large_segment, monkeypatch
) -> None:
    monkeypatch.setattr(segments, "_MADV_COLLAPSE", 12345)  # as kernels that do not know it
    mapping = large_segment.map(0, 2 * HUGE)
    mapping.collapse(0, 2 * HUGE)
    mapping.view()[HUGE] = 3
    assert large_segment.map(HUGE, PAGE).view()[0] == 3


def test_punch_returns_memory_and_leaves_zeros(segment) -> None:
    view = segment.map(0, 8 * PAGE).view()
    view[:] = b"x" * len(view)
    segment.punch(PAGE, 6 * PAGE)
    assert memory_of(segment) == 2 * PAGE
    assert bytes(view[: 2 * PAGE]) == b"x" * PAGE + b"\0" * PAGE


def test_closing_twice_closes_once(segment) -> None:
    segment.close()
    segment.close()
    assert segment.fd == -1


def test_a_descriptor_is_not_inherited_by_programs_that_are_started(segment) -> None:
    assert not os.get_inheritable(segment.fd)


def test_a_mapping_that_the_kernel_refuses_says_so(segment) -> None:
    with pytest.raises(OSError, match=f"mapping {PAGE} bytes of shared memory failed: "):
        Mapping(segment.fd, 1, PAGE)  # not a multiple of the page size


def test_a_file_size_limit_is_told_with_the_remedy(no_leaks) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE, limits[1]))
    try:
        with pytest.raises(MemoryCapError, match=r"1099511627776 bytes .*\(ulimit -f unlim"):
            Segment.create("compiled-dag-test", 1 << 40)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_ctrl_c_after_any_call_of_making_a_segment_leaves_nothing(no_leaks) -> None:
    for call in itertools.count(1):
        try:
            with interrupted_after_call(call):
                made = Segment.create("compiled-dag-test", PAGE)
        except KeyboardInterrupt:
            continue
        break
    made.close()
    assert call > 2


@contextlib.contextmanager
def interrupted_after_call(number):
    """Raise KeyboardInterrupt when the given call of C code by `segment` is over, if there is one.

    The caller has not got what it returns then.
    """
    left = number

    def count(frame, event, _function):
        nonlocal left
        left -= event == "c_return" and frame.f_code.co_filename == segments.__file__
        if left == 0:
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)


# --- how much there is ----------------------------------------------------------------------------


def test_memory_that_is_there_is_granted(monkeypatch) -> None:
    monkeypatch.setattr(segments, "available_bytes", lambda: 1000)
    require_memory(1000, "a thing")


def test_memory_that_is_not_there_is_refused_with_both_figures_and_the_remedy(monkeypatch) -> None:
    monkeypatch.setattr(segments, "available_bytes", lambda: 1000)
    with pytest.raises(MemoryCapError) as raised:
        require_memory(1001, "a thing")
    assert str(raised.value).startswith(
        "a thing needs 1001 bytes of shared memory and 1000 are available"
    )
    assert "_buffer_size_bytes" in str(raised.value)


def test_the_smaller_of_machine_and_cgroup_counts(monkeypatch) -> None:
    monkeypatch.setattr(segments, "_machine_available", lambda: 500)
    monkeypatch.setattr(segments, "_cgroup_available", lambda: 300)
    assert available_bytes() == 300


def test_this_machine_has_some_memory() -> None:
    assert available_bytes() > 0
