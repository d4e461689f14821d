"""What the passes hand to each other between graph and program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from compiled_dag.channel.layout import ChannelSpec
    from compiled_dag.ir import NodeId

DRIVER_PARTICIPANT: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """The channels of a graph."""

    specs: tuple[ChannelSpec, ...]
    of_value: dict[NodeId, int]
    """Channel that carries a node's value, where one does."""
    trigger: int | None
    """Channel that starts the actors whose first node waits for nobody."""
