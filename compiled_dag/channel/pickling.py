"""Pickling: values to one head and raw buffers beside it.

Pickle protocol 5 with out-of-band buffers, and cloudpickle for what pickle refuses or would refer
to by a ``__main__`` that is another module in the receiving process. `codec` calls it for what has
no short cut of its own, and says what shared and private buffers are.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from functools import partial
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import cloudpickle

from compiled_dag.channel import array as arrays
from compiled_dag.channel import tensor as tensors
from compiled_dag.lending import LENDERS

if TYPE_CHECKING:
    from collections.abc import Sequence

Buffer = Any  # anything with the buffer protocol, one-dimensional bytes
ToBytes: TypeAlias = Callable[[Any], tuple[tensors.Header, Buffer]]

_NO_FILE: Final = "<dynamic-code>"
_raw: Final = pickle.PickleBuffer.raw


class Pickled(NamedTuple):
    """A pickle, and what belongs to it."""

    head: bytes
    buffers: list[Buffer]
    """Not in the pickle. Views into the value."""
    private: tuple[int, ...]
    """Indices of the private buffers."""
    lent: Sequence[Any]
    """Objects that receivers find by what is in the bytes: to be kept alive until they have."""


class Apart(NamedTuple):
    """Tensors that are left out of a pickle."""

    found: list[Any]
    """Where to put them."""
    belongs: Callable[[Any], bool]
    """Tells which they are."""


def pickled(
    value: Any,
    met: list[Any] | None = None,
    apart: Apart | None = None,
    to_bytes: ToBytes | None = None,
) -> Pickled:
    """Pickle `value`.

    Args:
        value: Anything that can be pickled.
        met: Where to note every tensor inside, in the order they are met.
        apart: Which tensors inside to leave out; None: none, all go into buffers.
        to_bytes: What makes header and buffer of dense tensors; None: `tensor.to_bytes`.

    Raises:
        TypeError: Part of the value cannot be pickled; the message names the path to it.
    """
    lent: list[Any] = []
    try:
        pickler = _Pickler if apart is None else partial(_ApartPickler, apart)
        done = _pickle_with(pickler, to_bytes, value, lent, met)
        if b"__main__" not in done.head:
            return done
    except Exception:  # noqa: BLE001, S110  pickle raises many types; cloudpickle decides below
        pass
    for found in (lent, met, None if apart is None else apart.found):
        if found is not None:
            found.clear()
    try:
        cloud_pickler = _CloudPickler if apart is None else partial(_ApartCloudPickler, apart)
        return _pickle_with(cloud_pickler, to_bytes, value, lent, met)
    except Exception as error:
        path = _path_to_culprit(value)
        msg = f"cannot send {path}: it cannot be pickled ({type(error).__name__}: {error})"
        raise TypeError(msg) from error


def _pickle_with(
    pickler: Callable[..., Any],
    to_bytes: ToBytes | None,
    value: Any,
    lent: list[Any],
    met: list[Any] | None,
) -> Pickled:
    file = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    private: list[int] = []
    made = pickler(file, 5, buffer_callback=buffers.append)
    made.buffers, made.private, made.lent = buffers, private, lent
    made.to_bytes = to_bytes or tensors.to_bytes
    if met is not None:
        made.met = met
    made.dump(value)
    if not buffers:
        return Pickled(file.getvalue(), [], (), lent)
    # raw() refuses what is not contiguous in memory; of numpy's arrays none comes here.
    return Pickled(file.getvalue(), list(map(_raw, buffers)), tuple(private), lent)


def _reduce(pickler: _Pickler | _CloudPickler, value: Any) -> Any:
    """Return how to pickle a tensor, parameter or array, or NotImplemented for anything else."""
    kind = type(value)
    if arrays.is_array(kind):
        return arrays.reduced(value)
    lend = LENDERS.get(kind)
    if lend is not None:
        pickler.lent.append(value)
        return lend(value)
    if pickler.met is not None and tensors.is_any_tensor(value):
        pickler.met.append(value)
    parameter = tensors.is_parameter(kind)
    if not (parameter or tensors.is_tensor(kind)) or not tensors.is_plain(value):
        return NotImplemented
    header, data = pickler.to_bytes(value)
    pickler.private.append(len(pickler.buffers))
    arguments = (header, pickle.PickleBuffer(data))
    if not parameter:
        return tensors.from_buffer, arguments
    rebuild = partial(tensors.parameter_from_buffer, requires_grad=value.requires_grad)
    return rebuild, arguments


class _Pickler(pickle.Pickler):
    to_bytes: ToBytes
    buffers: list[pickle.PickleBuffer]
    private: list[int]
    lent: list[Any]
    met: list[Any] | None = None

    def reducer_override(self, value: Any) -> Any:
        return arrays.reduced(value) if arrays.is_array(type(value)) else _reduce(self, value)


class _CloudPickler(cloudpickle.Pickler):  # type: ignore[misc]  # it comes without types
    to_bytes: ToBytes
    buffers: list[pickle.PickleBuffer]
    private: list[int]
    lent: list[Any]
    met: list[Any] | None = None

    def reducer_override(self, value: Any) -> Any:
        if value.__class__ is CodeType:
            return _reduce_code(value)
        reduced = _reduce(self, value)
        return super().reducer_override(value) if reduced is NotImplemented else reduced


def _reduce_code(code: CodeType) -> Any:
    """Return how to pickle code: under its file's name, which cloudpickle 3.1.3 leaves out."""
    kind, arguments = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return kind, tuple([code.co_filename if arg == _NO_FILE else arg for arg in arguments])


class _ApartPickler(_Pickler):
    """Leaves tensors out."""

    def __init__(self, apart: Apart, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._leave_out = _LeaveOut(self, apart)

    def persistent_id(self, value: Any) -> Any:
        return self._leave_out(value)


class _ApartCloudPickler(_CloudPickler):
    """Leaves tensors out."""

    def __init__(self, apart: Apart, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._leave_out = _LeaveOut(self, apart)

    def persistent_id(self, value: Any) -> Any:
        return self._leave_out(value)


class _LeaveOut:
    """Says what stands for an object: for a tensor its number, and what it is."""

    def __init__(self, pickler: _Pickler | _CloudPickler, apart: Apart) -> None:
        self._pickler = pickler
        self._apart, self._belongs = apart
        self._numbers: dict[int, int] = {}

    def __call__(self, value: Any) -> tuple[int, bool | None] | None:
        kind = type(value)
        parameter = tensors.is_parameter(kind)
        if not (parameter or tensors.is_tensor(kind)) or not self._belongs(value):
            return None
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._apart)
            self._apart.append(value)
            if self._pickler.met is not None:
                self._pickler.met.append(value)
        return number, value.requires_grad if parameter else None


def _path_to_culprit(value: Any) -> str:
    """Name the innermost member of `value` that cannot be pickled."""
    path, culprit = _descend("value", value, depth=0)
    return f"{path} of type {type(culprit).__module__}.{type(culprit).__qualname__}"


def _descend(path: str, value: Any, depth: int) -> tuple[str, Any]:
    if depth < 10:  # noqa: PLR2004  deep enough to point at it, and cycles end
        for name, member in _members(value):
            try:
                dumps_by_value(member)
            except Exception:  # noqa: BLE001  pickle raises many types; cloudpickle decides below
                return _descend(path + name, member, depth + 1)
    return path, value


def _members(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"[{key!r}]", member) for key, member in value.items()]
    if isinstance(value, (list, tuple)):
        return [(f"[{index}]", member) for index, member in enumerate(value)]
    if isinstance(type(value).__reduce__, FunctionType):
        return []  # it is not pickled by its attributes
    return [(f".{name}", member) for name, member in getattr(value, "__dict__", {}).items()]


class _WholePickler(cloudpickle.Pickler):  # type: ignore[misc]  # it comes without types
    lent: list[Any]

    def reducer_override(self, value: Any) -> Any:
        lend = LENDERS.get(type(value))
        if lend is not None:
            self.lent.append(value)
            return lend(value)
        return super().reducer_override(value)


def dumps_by_value(value: Any) -> tuple[bytes, Sequence[Any]]:
    """Pickle anything into one piece, with cloudpickle (classes of ``__main__`` by value).

    Returns:
        The piece, and what is lent with it: to be kept alive until it was unpickled.
    """
    file = io.BytesIO()
    pickler = _WholePickler(file, 5)
    pickler.lent = []
    pickler.dump(value)
    return file.getvalue(), pickler.lent
