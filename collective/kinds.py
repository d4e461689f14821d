"""The operations' rules, as data: which ranks bring and get what, in which shape. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Shape: TypeAlias = tuple[int, ...]

DEFAULT_GROUP: Final = "default"
"""Name of an eager group that is given none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One operation among `world_size` ranks."""

    name: str
    result: Literal["same", "joined", "part"]
    """The result's shape: the input's; all ranks' one after the other; one part of it."""
    reduces: bool = False
    """Or only moves: then any dtype will do, as bytes."""
    root: Literal["", "src_rank", "dst_rank"] = ""
    """What its one special rank is called: who alone brings something, or gets something."""
    divides: bool = False
    """Whether the first dimension is divided among the ranks."""
    in_place: bool = False
    """Whether the backend works on one buffer, input and result."""

    @property
    def from_all(self) -> bool:
        """Whether a result consists of parts, one from each rank."""
        return self.result == "joined" or (self.divides and self.result == "same")

    @property
    def may_be_uneven(self) -> bool:
        """Whether it can do with first dimensions that differ, or do not divide."""
        return not self.reduces and (self.from_all or self.divides)

    def why_not(self, shape: Shape, world_size: int, *, uneven: bool = False) -> str | None:
        """Return why tensors of this shape cannot take part, or None."""
        if not shape and (self.result != "same" or self.divides):
            return "a tensor without dimensions has no first one to join or divide"
        if self.divides and shape[0] % world_size and not uneven:
            also = ", unless with uneven=True" if self.may_be_uneven else ""
            return (
                f"the first dimension of shape {shape} cannot be divided among {world_size} ranks"
                f"{also}"
            )
        return None

    def part(self, shape: Shape, world_size: int, receiver: int) -> Shape:
        """Return the shape of what of a tensor goes to a rank.

        Where it does not divide, the first ranks get one row more, as with `numpy.array_split`.
        """
        if not self.divides:
            return shape
        rows, more = divmod(shape[0], world_size)
        return (rows + (receiver < more), *shape[1:])

    def brings(self, rank: int, root: int) -> bool:
        """Tell whether the rank's input is more than a sign that it is there."""
        return self.root != "src_rank" or rank == root

    def gets(self, rank: int, root: int) -> bool:
        """Tell whether the rank has a result."""
        return self.root != "dst_rank" or rank == root


ALLREDUCE: Final = Kind(name="allreduce", result="same", reduces=True, in_place=True)
ALLGATHER: Final = Kind(name="allgather", result="joined")
REDUCESCATTER: Final = Kind(name="reducescatter", result="part", reduces=True, divides=True)
BROADCAST: Final = Kind(name="broadcast", result="same", root="src_rank", in_place=True)
REDUCE: Final = Kind(name="reduce", result="same", reduces=True, root="dst_rank", in_place=True)
GATHER: Final = Kind(name="gather", result="joined", root="dst_rank")
SCATTER: Final = Kind(name="scatter", result="part", root="src_rank", divides=True)
ALL_TO_ALL: Final = Kind(name="all_to_all", result="same", divides=True)
BARRIER: Final = Kind(name="barrier", result="same")
"""Values pass unchanged, of whatever type."""

_KINDS: Final = (
    ALLREDUCE, ALLGATHER, REDUCESCATTER, BROADCAST, REDUCE, GATHER, SCATTER, ALL_TO_ALL, BARRIER,
)  # fmt: skip
DRAWN: Final = frozenset(kind.name for kind in _KINDS)
"""Names of the operations that graphs have."""


def size(shape: Shape) -> int:
    """Return how many elements a tensor has."""
    return math.prod(shape)
