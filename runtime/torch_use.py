"""Whether a session uses torch: seen as early as possible, because importing it takes a second.

A session uses torch once this process has imported it or begins to (before `init` or any time
after), or once a class or function that is sent to other processes refers to it. Then a zygote
imports torch too (`runtime.zygote`), and every actor or worker that starts from then on has it from
the first moment, as those with GPUs have anyway. One that was started before, and needs it all the
same, imports it for itself.

The beginning of an import is seen by a finder in front of all others that finds nothing. It stays
there for good: removing it could make another thread, which is in the middle of the list, skip
the finder behind it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.parcel import Parcel

_TRACES: Final = (b"\x8c\x05torch", b"torch.")
"""What is in the pickle of code that refers to torch: the name as it is pickled, or a submodule."""


class _Finder:
    """In `sys.meta_path`: finds nothing, but sees what is looked for."""

    begun: Callable[[], None] | None = None

    @classmethod
    def find_spec(cls, name: str, _path: Any = None, _target: Any = None) -> None:
        """See `importlib.abc.MetaPathFinder`."""
        if name == "torch" and cls.begun is not None:
            cls.begun()


def watch(begun: Callable[[], None] | None) -> None:
    """Call `begun`, in whichever thread that is, once torch is imported; None: no longer."""
    _Finder.begun = begun
    if begun is None:
        return
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
    if is_imported():
        begun()


def is_imported() -> bool:
    """Tell whether this process has imported torch, or is about to have."""
    return sys.modules.get("torch") is not None  # None: somebody has forbidden it


def is_in(code: Parcel) -> bool:
    """Tell whether a class or function that was encoded refers to torch itself."""
    head = code.head()
    return any(trace in head for trace in _TRACES)
