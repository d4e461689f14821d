"""How the values of one channel travel, and what they must be. Decided at compile; data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from compiled_dag.ir import CommunicatorId, DeviceName

Mechanism: TypeAlias = Literal[
    "host", "fake", "cuda_ipc", "nccl", "gloo", "pinned", "staged", "communicator"
]
"""What moves the tensors. ``host``: shared memory. An accelerator edge is ``fake`` where the GPUs
are (then it is host memory too); ``cuda_ipc`` where tensors stay on GPUs, in a ring that writer and
readers share; ``nccl`` where GPUs share no memory and a process group sends from one to the other
(``gloo`` where that is what devices have); ``pinned`` where two of them are one, and the ring has
to be in pinned host memory; ``staged`` where not even that can be had, and torch copies to and from
host memory; or the send and recv of a user's ``communicator``. Everything but tensors is always in
host memory.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """One channel's way, and why."""

    mechanism: Mechanism = "host"
    reason: str = "no hint"
    device: DeviceName = "default"
    """Where tensors land."""
    static_shape: bool = False
    direct_return: bool = False
    communicator: CommunicatorId | None = None
    host_ordered: bool = False
    """Of a ring: whether hosts wait for GPUs, because these cannot share events."""
    views: bool = False
    """Of a ring: whether readers get tensors that are in it, not copies."""
    copying: tuple[int, ...] = ()
    """Of host memory: the participants that pin it, and have their GPUs copy from it or to it."""
    node: str = field(default="", compare=False)
    """Whose values these are, as messages call it."""
    writer: str = field(default="", compare=False)
    """Label of the actor that writes them."""
    fakes: tuple[str, ...] = field(default=(), compare=False)
    """Labels of its ends whose GPUs are fake."""

    @property
    def on_accelerator(self) -> bool:
        """Whether only dense tensors can travel."""
        return self.mechanism != "host"

    @property
    def is_checked(self) -> bool:
        """Whether the writer has to look at every value."""
        return self.on_accelerator or self.static_shape or self.direct_return

    @property
    def has_ring(self) -> bool:
        """Whether GPUs copy tensors to and from a ring (`compiled_dag.cuda.ring`)."""
        return self.mechanism in {"cuda_ipc", "pinned"}

    def is_for_gpu(self, reader: int) -> bool:
        """Tell whether a reader's tensors come to its GPU on a stream of its choice."""
        return self.has_ring or self.mechanism == "nccl" or reader in self.copying

    @property
    def has_group(self) -> bool:
        """Whether a process group of its writer and readers carries tensors."""
        return self.mechanism in {"nccl", "gloo"}

    @property
    def joins(self) -> bool:
        """Whether values of one call may travel in one message: none of them is promised anything.

        Where ends have to meet it is one meeting, and one operation of the group. In host memory it
        would spare next to nothing, and one value that is kept would keep the others' memory.
        """
        return self.has_group and not (self.static_shape or self.direct_return)

    @property
    def is_rendezvous(self) -> bool:
        """Whether writer and readers have to meet for a value to travel."""
        return self.mechanism == "communicator" or self.has_group


UNHINTED = Transport()
