"""Check that a peer costs its own figures at most."""

from __future__ import annotations

import sys

import pytest

from benchmarks import catalog, peers, served, works
from benchmarks.registry import Config
from benchmarks.rounds import Side, SideFailedError, compare, interleave, started

CONFIG = Config(actors=1, rounds=2, trips=5)


@pytest.fixture
def here(monkeypatch):
    """Take this interpreter for the peer's, and ourselves for the peer."""
    monkeypatch.setenv(peers.PYTHON_VARIABLE, sys.executable)


@pytest.mark.proc
def test_a_peer_is_measured_in_a_process_of_its_own(here):
    with peers.serving("ours", "actor call", CONFIG) as side:
        other = Side(name="ray", block=side.block)
        measured = interleave([Side(name="ours", block=lambda _: [1000]), other], 2, 5)
    assert [block.n for block in measured.blocks["ray"]] == [5, 5]
    assert compare(measured)["ray_ratio"] > 0


@pytest.mark.proc
def test_a_work_that_fails_there_says_why(here):
    with started(peers.serving("ours", "no such work", CONFIG)) as other:
        assert other.side is None
        assert "KeyError" in other.failure["peer_error"]


@pytest.mark.proc
def test_a_peer_that_hangs_is_given_up(here, monkeypatch):
    monkeypatch.setattr(served, "START_LIMIT_S", 0.0)
    with started(peers.serving("ours", "put and get, int", CONFIG)) as other:
        assert other.failure == {"peer_error": "timed out after 0 s"}


def test_without_an_environment_it_says_how_to_make_one(monkeypatch, tmp_path):
    monkeypatch.setenv(peers.PYTHON_VARIABLE, str(tmp_path / "python"))
    with pytest.raises(FileNotFoundError, match="`make bench` makes one"):
        peers.python()


def test_a_side_that_fails_is_left_out_and_said():
    def fail(_trips):
        raise SideFailedError("gone")

    sides = [Side(name="ours", block=lambda _: [2000]), Side(name="ray", block=fail), None]
    row = compare(interleave(sides, 3, 1))
    assert row["ray_error"] == "gone"
    assert row["ours_us"] == 2.0
    assert "ray_us" not in row


def test_works_are_found_by_name():
    assert set(works.core_works(10)) >= {"actor call", "task, 30 at once"}
    assert catalog.find("task", 10)
    assert catalog.find("chain 4", 10)
    assert catalog.find("payload numpy in 1024", 10)
    with pytest.raises(KeyError):
        catalog.find("nothing", 10)
