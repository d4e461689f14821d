"""What the session keeps beside the outcomes of calls: functions, and references pickled by users.

Objects themselves are kept by their references: a value lives as long as any process has one.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any

from compiled_dag.errors import ObjectStoreFullError
from runtime.parcel import Parcel, StoredParcel


@dataclass(frozen=True, slots=True)
class Function:
    """What the session keeps of a remote function."""

    number: int
    name: str
    parcel: Any


class Store:
    """Functions and stray references of a session, and the limit of what its objects take.

    Any thread may use it.
    """

    def __init__(self, cap_bytes: int | None) -> None:
        """Make an empty store.

        Args:
            cap_bytes: What large objects may take together; None: any amount.
        """
        self.cap_bytes = cap_bytes
        self._used_bytes = 0
        self._freed: deque[int] = deque()
        """Sizes of bodies that are gone: finalizers take no locks."""
        self._lock = threading.Lock()
        self._functions: dict[int, Function] = {}
        self._pinned: dict[int, Any] = {}
        self._lent: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    @property
    def used_bytes(self) -> int:
        """Bytes of objects in memory of their own (the small ones do not count)."""
        with self._lock:
            while self._freed:
                self._used_bytes -= self._freed.popleft()
            return self._used_bytes

    def admit(self, parcel: StoredParcel) -> ObjectStoreFullError | None:
        """Count a value's memory; returns the error if there is no room for it."""
        used, cap = self.used_bytes, self.cap_bytes
        if cap is not None and used + parcel.size > cap:
            gc.collect()  # cycles may hold references
            used = self.used_bytes
        if cap is not None and used + parcel.size > cap:
            return ObjectStoreFullError(
                f"a value of {parcel.size} bytes does not fit: {used} of object_store_memory="
                f"{cap} bytes are in use. Drop references that are not needed, or pass "
                "more to runtime.init()"
            )
        with self._lock:
            self._used_bytes += parcel.size
        parcel.on_free = self._free
        return None

    def _free(self, parcel: StoredParcel) -> None:
        """Count a value no more."""
        self._freed.append(parcel.size)

    def export(self, number: int, name: str, function: Any) -> Parcel:
        """Keep a function for tasks; returns it encoded.

        Raises:
            TypeError: It cannot be pickled.
        """
        parcel = Parcel.of(function)
        self.keep(number, name, parcel)
        return parcel

    def keep(self, number: int, name: str, parcel: Parcel) -> None:
        """Keep an encoded function."""
        self._functions[number] = Function(number, name, parcel)

    def function(self, number: int) -> Function:
        """Return a function that was exported."""
        return self._functions[number]

    def functions(self) -> list[Function]:
        """Return all of them."""
        return list(self._functions.values())

    def pin(self, reference: Any) -> None:
        """Keep a reference that users have pickled as long as the session lives."""
        self._pinned[reference.number] = reference

    def lend(self, reference: Any) -> None:
        """Let others find a reference by its number while it lives."""
        self._lent[reference.number] = reference

    def find_stray(self, number: int) -> Any:
        """Return a reference that was pinned or lent.

        Raises:
            RuntimeError: There is none of that number.
        """
        found = self._pinned.get(number)
        if found is None:
            found = self._lent.get(number)
        if found is None:
            raise RuntimeError(
                f"reference {number} does not belong to this session, or nobody has kept it"
            )
        return found

    def clear(self) -> None:
        """Let go of everything: the session is over."""
        self._functions.clear()
        self._pinned.clear()
        self._lent.clear()
