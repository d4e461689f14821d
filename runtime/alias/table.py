"""Every name of Ray's that the alias knows, by module: the one table of the alias."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runtime.alias.core_rows import CORE
from runtime.alias.graph_rows import GRAPHS

if TYPE_CHECKING:
    from runtime.alias.entries import Rows

MODULES: Final[dict[str, Rows]] = {**CORE, **GRAPHS}
"""Module -> name -> where it is here, or why it is not. Modules are attributes of their parents."""
