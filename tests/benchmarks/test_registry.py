"""Check registration and how the command line changes a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import registry
from benchmarks.registry import Case, Config, Peer, Plan, Row, case, peer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from benchmarks.rounds import Side

FULL = Plan(actors=(1, 2), rounds=20, trips=1000)
QUICK = Plan(actors=(1,), rounds=2, trips=10)


@pytest.fixture(autouse=True)
def _empty_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CASES", {})
    monkeypatch.setattr(registry, "PEERS", {})


def registered() -> Case:
    """Register a case and return it."""

    @case(full=FULL, quick=QUICK, limit_s=7.0)
    def hop(config: Config) -> Iterator[Row]:
        """One hop.

        More about it.
        """
        yield {"actors": config.actors}

    return registry.CASES["hop"]


def test_a_case_is_named_and_described_by_its_function() -> None:
    hop = registered()
    assert (hop.name, hop.help, hop.limit_s) == ("hop", "One hop.", 7.0)


def test_a_name_is_taken_once() -> None:
    registered()
    with pytest.raises(ValueError, match="already a case 'hop'"):
        registered()


def test_a_plan_has_one_configuration_per_actor_count() -> None:
    plan = registered().plan(quick=False, actors=None, rounds=None, peer=None)
    assert list(plan.configs()) == [
        Config(actors=1, rounds=20, trips=1000),
        Config(actors=2, rounds=20, trips=1000),
    ]


def test_a_plan_combines_its_parts_sizes_and_actor_counts() -> None:
    plan = Plan(actors=(1, 2), rounds=3, whats=("in", "out"), sizes=(4, 8))
    combined = [(config.what, config.nbytes, config.actors) for config in plan.configs()]
    assert combined[:3] == [("in", 4, 1), ("in", 4, 2), ("in", 8, 1)]
    assert len(combined) == 8


def test_the_command_line_wins_over_the_quick_plan() -> None:
    plan = registered().plan(quick=True, actors=(8,), rounds=3, peer=None)
    assert plan == Plan(actors=(8,), rounds=3, trips=10, quick=True)


def test_a_peer_reaches_every_configuration() -> None:
    def start(_name: str, _what: str, _config: Config) -> AbstractContextManager[Side]:
        raise NotImplementedError

    other = peer(Peer(name="other", help="another system", open=start))
    plan = registered().plan(quick=True, actors=None, rounds=None, peer=other)
    assert [config.peer for config in plan.configs()] == [other]
    with pytest.raises(ValueError, match="already a peer 'other'"):
        peer(other)
