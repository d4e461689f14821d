"""The ends of channels, as the hint on their value wants them; most are the plain ones."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast

from compiled_dag.channel import codec
from compiled_dag.channel.checked import CheckedWriter
from compiled_dag.channel.reader import Reader
from compiled_dag.channel.rendezvous import Peers, RendezvousReader, RendezvousWriter
from compiled_dag.channel.writer import Writer
from compiled_dag.outcome import Place

if TYPE_CHECKING:
    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.channel.layout import ChannelSpec
    from compiled_dag.cuda.group import Line
    from compiled_dag.cuda.ring import Seat

    Means: TypeAlias = Peers | Line | Seat
    """What carries a channel's tensors, if that is not host memory."""


def open_writer(
    graph: GraphSegment,
    spec: ChannelSpec,
    place: Place | None = None,
    *,
    means: Means | None = None,
    slot_bytes: int,
    cap_bytes: int | None = None,
) -> Writer:
    """Open the writing end of a channel, with the checks its hint asks for.

    Args:
        graph: The graph's segment.
        spec: The channel.
        place: Where its values are made: what errors are of.
        means: For a channel whose tensors a communicator carries, stay on the GPU, or come from it.
        slot_bytes: First capacity of a payload slot.
        cap_bytes: Cap on the payload memory of the whole graph, or None.

    Raises:
        MemoryCapError: There is no GPU memory for a device ring.
        DeviceError: GPU memory cannot be shared.
    """
    if means is None and not spec.transport.is_checked:
        return Writer(graph, spec, slot_bytes=slot_bytes, cap_bytes=cap_bytes)
    place = place or Place(method=spec.label, actor=spec.transport.writer)
    if means is None:
        return CheckedWriter(graph, spec, place, slot_bytes=slot_bytes, cap_bytes=cap_bytes)
    if isinstance(means, Peers):
        return RendezvousWriter(
            graph, spec, place, means, slot_bytes=slot_bytes, cap_bytes=cap_bytes
        )
    if spec.transport.has_group:
        from compiled_dag.cuda.group import GroupWriter  # noqa: PLC0415  few graphs have one

        line = cast("Line", means)
        return GroupWriter(graph, spec, place, line, slot_bytes=slot_bytes, cap_bytes=cap_bytes)
    seat = cast("Seat", means)
    if not spec.transport.has_ring:
        from compiled_dag.cuda.staging import StagingWriter  # noqa: PLC0415  few graphs have one

        return StagingWriter(seat, place, slot_bytes=slot_bytes, cap_bytes=cap_bytes)
    from compiled_dag.cuda.writer import CudaWriter  # noqa: PLC0415  few graphs have one

    return CudaWriter(seat, place, slot_bytes=slot_bytes, cap_bytes=cap_bytes)


def open_reader(
    graph: GraphSegment,
    spec: ChannelSpec,
    participant: int,
    label: str = "the driver",
    means: Means | None = None,
) -> Reader:
    """Open a reading end, which lands tensors where the hint says.

    Raises:
        DeviceError: GPU events cannot be shared.
    """
    if means is None:
        reader = Reader(graph, spec, participant, label)
        if spec.transport.device != "default":
            reader.rebuild = partial(codec.decode_onto, spec.transport.device)
        return reader
    if isinstance(means, Peers):
        return RendezvousReader(graph, spec, participant, label, means)
    if spec.transport.has_group:
        from compiled_dag.cuda.group import GroupReader  # noqa: PLC0415  few graphs have one

        return GroupReader(graph, spec, participant, label, cast("Line", means))
    if not spec.transport.has_ring:
        from compiled_dag.cuda.landing import LandingReader  # noqa: PLC0415  few graphs have one

        return LandingReader(cast("Seat", means), participant, label)
    if spec.transport.views:
        from compiled_dag.cuda.views import ViewReader  # noqa: PLC0415  few graphs have one

        return ViewReader(cast("Seat", means), participant, label)
    from compiled_dag.cuda.reader import CudaReader  # noqa: PLC0415  few graphs have one

    return CudaReader(cast("Seat", means), participant, label)
