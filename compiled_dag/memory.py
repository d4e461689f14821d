"""How much memory a graph's channels take, and who holds it: plain data."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from compiled_dag.channel import layout as at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.channel.layout import ChannelSpec
    from compiled_dag.channel.usage import Usage

    Taken: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
    """Participants of a group, and how much each has taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A value that somebody has read and keeps: its slot cannot be used again."""

    channel: int
    execution: int
    holder: str
    """Label of the actor, or ``driver``."""
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelMemory:
    """The memory of one channel."""

    channel: int
    name: str
    """The node whose values it carries: ``Worker.add#3``."""
    writer: str
    readers: tuple[str, ...]
    inline_bytes: int
    """Descriptors with room for small values; taken at compile, of a fixed size."""
    slot_bytes: int
    """Capacity of a payload slot now; 0 before the first value that needs one."""
    slots: int
    """Payload slots that can be used now; only those that were filled take memory."""
    reserved_bytes: int
    """Payload slots that were ever filled, and so take memory."""
    used_bytes: int
    """Of those, what somebody still has to read, or holds."""
    unread: int
    """Executions whose value was written and that some reader has not read."""
    ring_bytes: int = 0
    """What there is for GPUs to copy tensors to: its ring, on the writer's GPU or pinned; or two
    buffers that NCCL sends from, with ``_overlap_gpu_communication``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMemory:
    """GPU memory that the ranks of a collective group have taken for each other to read."""

    actors: tuple[str, ...]
    """By rank."""
    gpu_bytes: tuple[int, ...]
    """By rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphMemory:
    """The memory of a graph at one moment; `str` is a table."""

    channels: tuple[ChannelMemory, ...]
    pins: tuple[Pin, ...]
    """Values that are kept, oldest first."""
    cap_bytes: int | None
    """What `reserved_bytes` and `ring_bytes` together may not exceed (``_max_memory_bytes``)."""
    groups: tuple[GroupMemory, ...] = ()
    """Those of collectives whose ranks share a GPU (``"cuda_ipc"``); what NCCL takes is unknown."""

    @property
    def inline_bytes(self) -> int:
        """Of all channels."""
        return sum(channel.inline_bytes for channel in self.channels)

    @property
    def reserved_bytes(self) -> int:
        """Of all channels."""
        return sum(channel.reserved_bytes for channel in self.channels)

    @property
    def used_bytes(self) -> int:
        """Of all channels."""
        return sum(channel.used_bytes for channel in self.channels)

    @property
    def ring_bytes(self) -> int:
        """Of all channels."""
        return sum(channel.ring_bytes for channel in self.channels)

    @property
    def group_bytes(self) -> int:
        """GPU memory of all groups."""
        return sum(sum(group.gpu_bytes) for group in self.groups)

    @classmethod
    def of(
        cls,
        channels: Sequence[ChannelSpec],
        figures: Sequence[Usage],
        groups: Sequence[Taken],
        participants: tuple[str, ...],
        cap_bytes: int | None,
    ) -> GraphMemory:
        """Return the figures of `channels`, and of groups, with names in place of numbers."""
        found = list(zip(channels, figures, strict=True))
        pins = [
            Pin(
                channel=spec.index,
                execution=held.execution,
                holder=participants[held.reader],
                size_bytes=held.size_bytes,
            )
            for spec, used in found
            for held in used.held
        ]
        return cls(
            channels=tuple(_channel(spec, used, participants) for spec, used in found),
            pins=tuple(sorted(pins, key=lambda pin: (pin.execution, pin.channel))),
            cap_bytes=cap_bytes,
            groups=tuple(
                GroupMemory(actors=tuple(participants[one] for one in members), gpu_bytes=taken)
                for members, taken in groups
            ),
        )

    def __str__(self) -> str:
        cap = "no cap" if self.cap_bytes is None else f"cap {_size(self.cap_bytes)}"
        rows = [("channel", "from", "to", "slots", "reserved", "used", "unread")]
        for channel in self.channels:
            slots = f"{channel.slots} x {_size(channel.slot_bytes)}" if channel.slots else "-"
            used = (_size(channel.reserved_bytes), _size(channel.used_bytes), str(channel.unread))
            ends = (channel.writer, ", ".join(channel.readers))
            rows.append((f"{channel.channel} {channel.name}", *ends, slots, *used))
        total = (_size(self.reserved_bytes), _size(self.used_bytes), "")
        rows.append((f"total ({cap})", "", "", "", *total))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        lines += [
            f"for GPUs: channel {channel.channel}, {_size(channel.ring_bytes)}"
            for channel in self.channels
            if channel.ring_bytes
        ]
        lines += [
            f"on the GPU for collectives: {', '.join(group.actors)}, "
            f"{' + '.join(map(_size, group.gpu_bytes))}"
            for group in self.groups
        ]
        lines += _pinned(self.pins)
        return "\n".join(lines)


def _pinned(pins: Sequence[Pin]) -> list[str]:
    """Say who holds what: a line for each channel and holder, which may hold thousands."""
    held: dict[tuple[int, str], list[Pin]] = defaultdict(list)
    for pin in pins:
        held[pin.channel, pin.holder].append(pin)
    lines = []
    for (channel, holder), theirs in held.items():
        size = _size(sum(pin.size_bytes for pin in theirs))
        executions = [pin.execution for pin in theirs]
        which = f"execution {executions[0]}"
        if len(theirs) > 1:
            which = f"{len(theirs)} values of executions {min(executions)} to {max(executions)}"
        lines.append(f"pinned: channel {channel}, {which}, {size} held by {holder}")
    return lines


def _channel(spec: ChannelSpec, used: Usage, participants: tuple[str, ...]) -> ChannelMemory:
    return ChannelMemory(
        channel=spec.index,
        name=spec.label,
        writer=participants[spec.writer],
        readers=tuple(participants[reader] for reader in spec.readers),
        inline_bytes=spec.depth * at.SLOT,
        slot_bytes=used.slot_bytes,
        slots=used.slots,
        reserved_bytes=used.reserved_bytes,
        used_bytes=used.used_bytes,
        unread=used.unread,
        ring_bytes=used.ring_bytes,
    )


def _size(nbytes: int) -> str:
    """Return `nbytes` as people read it."""
    value = float(nbytes)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:  # noqa: PLR2004  the next unit
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} GiB"
