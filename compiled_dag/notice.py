"""Warnings that point at the user's line, however deep in this project they are given."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

_OURS: Final = ("runtime.", "compiled_dag.", "collective.")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn the user, as if their own line that led here did."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  the documented way to the caller
    level = 2
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_OURS):
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level)
