from __future__ import annotations

import os

import pytest

from runtime import mapped
from runtime.mapped import Mappings

PAGE = 4096


@pytest.fixture
def mappings():
    mappings = Mappings()
    yield mappings
    mappings.clear()


@pytest.fixture
def segment():
    """Makes memory of so many bytes; closes it after the test."""
    made = []

    def make(size=PAGE) -> int:
        made.append(os.memfd_create("test"))
        os.ftruncate(made[-1], size)
        return made[-1]

    yield make
    for fd in made:
        os.close(fd)


def test_a_segment_is_mapped_once_whatever_its_descriptor(mappings, segment) -> None:
    fd = segment()
    again = os.dup(fd)
    assert mappings.of(fd, 1) is mappings.of(again, 1)
    os.close(again)


def test_two_segments_have_two_mappings(mappings, segment) -> None:
    first, second = mappings.of(segment(), 1), mappings.of(segment(), 1)
    first.view()[0] = 1
    assert second.view()[0] == 0


def test_a_descriptor_of_another_segment_gets_that_ones_mapping(mappings) -> None:
    seen = set()
    for number in range(1, 50):
        fd = os.memfd_create("test")
        os.ftruncate(fd, PAGE)
        seen.add(fd)
        view = mappings.of(fd, 1).view()
        assert view[0] == 0
        view[0] = number
        os.close(fd)
    assert len(seen) == 1  # the kernel gives the same one again and again


def test_the_last_few_are_kept(mappings, segment) -> None:
    fds = [segment() for _ in range(2 * mapped._MOST)]
    for fd in fds:
        mappings.of(fd, 1)
    assert len(mappings) == mapped._MOST
    kept = mappings.of(fds[-1], 1)
    assert mappings.of(fds[-1], 1) is kept


def test_not_too_much_is_kept(mappings, segment, monkeypatch) -> None:
    monkeypatch.setattr(mapped, "_MOST_BYTES", 4 * PAGE)
    for _ in range(10):
        mappings.of(segment(PAGE), 1)
    assert len(mappings) == 4


def test_a_large_one_is_not_kept(mappings, segment) -> None:
    fd = segment(mapped.MOST_EACH_BYTES + PAGE)
    assert mappings.of(fd, 1) is not mappings.of(fd, 1)
    assert len(mappings) == 0


def test_what_is_forgotten_is_mapped_anew(mappings, segment) -> None:
    fd = segment()
    first = mappings.of(fd, 1)
    mappings.forget(os.fstat(fd).st_ino)
    assert mappings.of(fd, 1) is not first


def test_a_view_keeps_what_it_was_given(mappings, segment) -> None:
    class Keeper:
        gone = False

        def __del__(self) -> None:
            Keeper.gone = True

    view = mappings.of(segment(), 1).view(Keeper())[5:9]
    assert not Keeper.gone
    view.release()
    del view
    assert Keeper.gone
    assert len(mappings) == 1
