"""Scheduling strategies by Ray's names: with one machine there is one place to run."""

from __future__ import annotations

from dataclasses import dataclass

from runtime import ids


@dataclass(frozen=True, slots=True)
class NodeAffinitySchedulingStrategy:
    """Run on a certain machine: without effect, because there is one.

    Args:
        node_id: As ``runtime.get_runtime_context().get_node_id()`` returns it.
        soft: Whether another machine will do.

    Raises:
        ValueError: `node_id` is not this machine's, and no other will do.
    """

    node_id: str
    soft: bool

    def __post_init__(self) -> None:
        if not self.soft and self.node_id != ids.NODE:
            raise ValueError(
                f"node_id={self.node_id!r}: there is one machine, {ids.NODE!r}, and soft=False "
                "rules it out. Leave scheduling_strategy away"
            )
