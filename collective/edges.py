"""Groups for the edges of graphs: their ranks send tensors to each other, and reduce nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from collective.group import DriverGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from collective.process_group import PairGroup, ProcessGroup
    from compiled_dag.host import Actor, ActorContext, Host
    from compiled_dag.operation import Backend


@dataclass(frozen=True, slots=True)
class RankedEdges:
    """See `compiled_dag.operation.EdgeGroups`."""

    def new_group(self, host: Host, actors: Sequence[Actor], backend: Backend) -> DriverGroup:
        """Return a group of `actors`, in which each has sent to each once it is open."""
        return DriverGroup(host, actors, backend, pairs=True)

    def bind_rank(self, context: ActorContext, group_id: int) -> RankEdges:
        """Return this rank's end, in its actor's process."""
        return RankEdges(context.resources[f"group {group_id}"].process_group)


class RankEdges:
    """See `compiled_dag.operation.EdgeEnd`."""

    def __init__(self, group: PairGroup) -> None:
        self._group = group
        self.in_host_memory = group.in_host_memory

    def exchange(
        self,
        sends: Sequence[tuple[torch.Tensor, int]],
        receives: Sequence[tuple[torch.Tensor, int]],
    ) -> None:
        """Send and receive the bytes of contiguous tensors, whatever their dtype."""
        self._group.exchange(_bytes(sends), _bytes(receives))


def _bytes(pairs: Sequence[tuple[torch.Tensor, int]]) -> list[tuple[torch.Tensor, int]]:
    import torch  # noqa: PLC0415  there are tensors

    return [(one.as_strided((one.numel(),), (1,)).view(torch.uint8), rank) for one, rank in pairs]


def connect(process_group: ProcessGroup, rank: int, world_size: int) -> None:
    """Have each rank send to each: a backend connects two of them when they first do so.

    Raises:
        RuntimeError: The backend failed, or brought something else than was sent.
        ChannelClosedError: The driver has given the group up.
    """
    group = cast("PairGroup", process_group)
    others = [other for other in range(world_size) if other != rank]
    sends: list[tuple[Any, int]] = [(group.marks([rank]), other) for other in others]
    receives: list[tuple[Any, int]] = [(group.marks([rank]), other) for other in others]
    group.exchange(sends, receives)
    group.settle()
    found = [int(mark) for mark, _ in receives]
    if found != others:
        msg = f"rank {rank} received {found} from ranks {others}, which sent their numbers"
        raise RuntimeError(msg)
