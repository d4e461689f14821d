"""What is lent rather than copied: it stays where it is and is known by a number elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LENDERS: Final[dict[type, Callable[[Any], Any]]] = {}
"""How objects of exactly this type are pickled (as ``__reduce__`` says it)."""


def lend_by(kind: type, reduce: Callable[[Any], Any]) -> None:
    """Have objects of exactly `kind` pickled by `reduce`, and noted as lent.

    For references to objects, say.
    """
    LENDERS[kind] = reduce
