"""`ChannelInterface`: what the two kinds of ends of a channel have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.channel.layout import ChannelSpec


class ChannelInterface:
    """An end of a channel. Compiling a graph makes them: users only annotate with it.

    Raises:
        TypeError: A subclass is defined elsewhere than in this package.
    """

    spec: ChannelSpec
    """The channel."""
    graph: GraphSegment
    """Where it is."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.partition(".")[0] != __name__.partition(".")[0]:
            msg = (
                f"{cls.__qualname__}: graphs cannot use channels of your own. To carry tensors in "
                "a way of your own, subclass Communicator"
            )
            raise TypeError(msg)
