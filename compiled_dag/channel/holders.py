"""Who keeps a graph's payload slots from being used again: told where there is no room for more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compiled_dag.channel import layout as at
from compiled_dag.channel.usage import usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.channel.layout import ChannelSpec

_TOLD: Final = 4


def holders(graph: GraphSegment) -> str:
    """Say who holds which values since which execution, and who has yet to read some.

    The largest first, the rest counted; empty if nobody does. For the moment of an error: it looks
    at every slot.

    Raises:
        OSError: The kernel refused to map a channel's words.
    """
    found = sorted(
        (item for spec in graph.channels for item in _of_channel(graph, spec)),
        key=lambda item: -item[0],
    )
    told = [text for _, text in found[:_TOLD]]
    if len(found) > _TOLD:
        told.append(f"and {len(found) - _TOLD} more")
    return "; ".join(told)


def _of_channel(graph: GraphSegment, spec: ChannelSpec) -> Iterator[tuple[int, str]]:
    """Yield bytes and text for everybody who keeps values of one channel."""
    seen = usage(graph, spec.index)
    if not seen.used_bytes:
        return
    place = graph.layout.channels[spec.index]
    written = graph.words[place.control // 8 + at.SEQUENCE]
    for position, reader in enumerate(spec.readers):
        label = graph.labels[reader]
        held = [one for one in seen.held if one.reader == reader]
        if held:
            since = min(one.execution for one in held)
            text = f"{label} holds {_values(len(held))} of {spec.label} since execution {since}"
            yield sum(one.size_bytes for one in held), text
        read = graph.words[place.reader(position) // 8]
        if read < written:
            text = (
                f"{label} has not read {_values(written - read)} of {spec.label}, "
                f"from execution {read} on"
            )
            yield (written - read) * seen.slot_bytes, text


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count} values"
