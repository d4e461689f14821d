"""Calls of functions and methods, and collectives: what may give several values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final

from compiled_dag.node import DAGNode

if TYPE_CHECKING:
    from collections.abc import Iterator

IS_CLASS_METHOD_OUTPUT_KEY: Final = "is_class_method_output"


class CallNode(DAGNode, ABC):
    """A call. With ``num_returns=2``, ``first, second = node`` draws each of its values.

    The node itself then stands for the list of both.
    """

    @property
    @abstractmethod
    def _num_returns(self) -> int:
        """How many values it returns; over 1, each is a node of its own in a compiled graph."""

    def _elements(self) -> tuple[ElementNode, ...]:
        """Return the nodes of its several values; the same ones each time."""
        drawn = self._drawn_elements()
        return tuple(
            drawn[index] if index in drawn else self._element(index)
            for index in range(self._num_returns)
        )

    def _element(self, index: int) -> ElementNode:
        """Return a new node for one of its several values."""
        return ElementNode(self, index)

    def _drawn_elements(self) -> dict[int, ElementNode]:
        """Return those that were asked for, by index."""
        return {node._index: node for node in self._downstream if isinstance(node, ElementNode)}

    def __iter__(self) -> Iterator[ElementNode]:
        self._check_several()
        return iter(self._elements())

    def __getitem__(self, index: int) -> ElementNode:
        self._check_several()
        return self._elements()[index]

    def _check_several(self) -> None:
        if self._num_returns == 1:
            msg = (
                f"{self!r} is one value, which is not known before the graph runs: take it apart "
                f"in another method, or say .options(num_returns=2) if it is always two"
            )
            raise TypeError(msg)


class ElementNode(DAGNode):
    """One of the values of a call with several returns, or of a collective of several tensors."""

    _num_returns: ClassVar = 1
    """Those of methods are looked at as calls are."""

    def __init__(self, call: CallNode, index: int) -> None:
        others = {IS_CLASS_METHOD_OUTPUT_KEY: True}
        super().__init__((call, index), others=others)

    @property
    def _call(self) -> CallNode:
        call: CallNode = self._bound_args[0]
        return call

    @property
    def _index(self) -> int:
        index: int = self._bound_args[1]
        return index

    @property
    def _label(self) -> str:
        return element_label(self._call, self._index)


def element_label(call: CallNode, index: int) -> str:
    """Return what messages call one of the values of a call."""
    return f"{call._label}[{index}]"
