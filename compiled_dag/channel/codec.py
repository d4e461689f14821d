"""Python values to bytes and back: one head and any number of raw buffers.

Exact types take short cuts (bytes, contiguous numpy arrays, torch tensors); everything else is
pickle protocol 5 with out-of-band buffers, and cloudpickle for what pickle refuses or would refer
to by a ``__main__`` that is another module in the receiving process.

A buffer is *shared* or *private*. The receiver maps shared ones read-only (numpy arrays, bytes);
private ones are for tensors, which users may change, so the receiver must own them.
"""

from __future__ import annotations

import io
import pickle
from enum import IntEnum
from functools import partial
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cloudpickle
import numpy as np

from compiled_dag.channel import tensor as tensors
from compiled_dag.outcome import Error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Buffer = Any  # anything with the buffer protocol, one-dimensional bytes

dumps, loads = pickle.dumps, pickle.loads
_NO_FILE: Final = "<dynamic-code>"


class Kind(IntEnum):
    """How a message is encoded; what the receiver's `decode` switches on."""

    PICKLE = 0
    NUMPY = 1
    TENSOR = 2
    BYTES = 3
    ERROR = 4
    INT = 5
    """A signed 64-bit integer in the descriptor itself (channels only)."""
    NONE = 6
    """None (channels only)."""
    FLOAT = 7
    """A double in the descriptor itself (channels only)."""
    APART = 8
    """Two pickles: what the tensors look like, and a value without them (channels only)."""


class Encoded(NamedTuple):
    """One value on its way out. Views into the value: copy before the caller changes it."""

    kind: Kind
    head: bytes
    buffers: list[Buffer]
    private: tuple[int, ...]
    """Indices of the private buffers."""


# Pickled (dtype, shape) and tensor headers repeat for ever in a graph: both directions are cached.
_CACHE_LIMIT = 512
_numpy_heads: dict[tuple[Any, Any], bytes] = {}
_heads: dict[bytes, Any] = {}

_FIRST_PRIVATE = (0,)
_PLAIN = frozenset({str, bool, int, float, complex, type(None)})


def encode(value: Any, met: list[Any] | None = None) -> Encoded:
    """Turn `value` into a head and buffers.

    Args:
        value: Anything that can be pickled.
        met: Where to note every tensor inside, in the order they are met.

    Raises:
        TypeError: Part of the value cannot be pickled; the message names the path to it.
    """
    kind = value.__class__
    if kind is np.ndarray:
        if value.flags.c_contiguous and not value.dtype.hasobject:
            return Encoded(Kind.NUMPY, _numpy_head(value), [_array_bytes(value)], ())
    elif kind is bytes:
        return Encoded(Kind.BYTES, b"", [value], ())
    elif kind in _PLAIN:
        return Encoded(Kind.PICKLE, dumps(value, 5), [], ())
    elif kind is Error:
        return Encoded(Kind.ERROR, dumps(value, 5), [], ())
    elif tensors.is_tensor(kind) and tensors.is_plain(value):
        if met is not None:
            met.append(value)
        header, data = tensors.to_bytes(value)
        return Encoded(Kind.TENSOR, dumps(header, 5), [data], _FIRST_PRIVATE)
    return _pickle(value, met)


def copied(encoded: Encoded) -> Encoded:
    """Return the same with buffers of its own."""
    return encoded._replace(buffers=[bytes(memoryview(buffer)) for buffer in encoded.buffers])


def decode(kind: int, head: bytes, buffers: Sequence[Buffer]) -> Any:
    """Rebuild a value; numpy arrays and tensors live on the `buffers` given.

    Raises:
        Exception: Whatever unpickling the user's value raises.
    """
    if kind == Kind.NUMPY:
        dtype, shape = _parsed(head)
        return np.ndarray(shape, dtype, buffers[0])
    if kind == Kind.TENSOR:
        return tensors.from_buffer(_parsed(head), buffers[0])
    if kind == Kind.BYTES:
        data = buffers[0]
        return data if data.__class__ is bytes else bytes(data)
    return loads(head, buffers=buffers)


def encode_apart(value: Any, met: list[Any]) -> tuple[Encoded, list[Any]]:
    """Turn `value` into a head and buffers without its tensors.

    Args:
        value: Anything that can be pickled.
        met: Where to note every tensor inside, in the order they are met.

    Returns:
        What is left, and the tensors (and parameters) to be given to `decode_apart`; if there are
        none, what `encode` returns. Tensors of other classes stay in the value.

    Raises:
        TypeError: Part of the value cannot be pickled; the message names the path to it.
    """
    apart: list[Any] = []
    encoded = _pickle(value, met, apart)
    if not apart:
        return encoded, []
    looks = dumps(tuple(map(tensors.look, apart)), 5)
    return encoded._replace(kind=Kind.APART, head=looks + encoded.head), apart


def split_apart(head: bytes) -> tuple[Sequence[tensors.Look], io.BytesIO]:
    """Return what the tensors of a value look like, and the rest of its head."""
    stream = io.BytesIO(head)
    return pickle.load(stream), stream


def decode_apart(stream: io.BytesIO, buffers: Sequence[Buffer], apart: Sequence[Any]) -> Any:
    """Rebuild a value around its tensors.

    Raises:
        Exception: Whatever unpickling the user's value raises.
    """
    return _Joiner(stream, buffers, apart).load()


class _Joiner(pickle.Unpickler):
    """Puts tensors back where they were."""

    def __init__(self, stream: io.BytesIO, buffers: Sequence[Buffer], apart: Sequence[Any]) -> None:
        super().__init__(stream, buffers=buffers)
        self._apart = apart

    def persistent_load(self, pid: tuple[int, bool | None]) -> Any:
        index, requires_grad = pid
        found = self._apart[index]
        return found if requires_grad is None else tensors.parameter_of(found, requires_grad)


def decode_onto(device: str, kind: int, head: bytes, buffers: Sequence[Buffer]) -> Any:
    """Rebuild a value as `decode` does, its tensors on `device` (see `tensor.from_buffer`)."""
    if kind == Kind.TENSOR:
        return tensors.from_buffer(_parsed(head), buffers[0], device)
    if kind == Kind.PICKLE:
        return _Lander(device, head, buffers).load()
    return decode(kind, head, buffers)


class _Lander(pickle.Unpickler):
    """Rebuilds tensors on one device."""

    def __init__(self, device: str, head: bytes, buffers: Sequence[Buffer]) -> None:
        super().__init__(io.BytesIO(head), buffers=buffers)
        self._device = device

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if found is tensors.from_buffer or found is tensors.parameter_from_buffer:
            return partial(_landed, found, self._device)
        return found


def _landed(rebuild: Any, device: str, header: Any, buffer: Any, **named: Any) -> Any:
    return rebuild(header, buffer, device, **named)


def _parsed(head: bytes) -> Any:
    found = _heads.get(head)
    if found is None:
        if len(_heads) >= _CACHE_LIMIT:
            _heads.clear()
        found = _heads[head] = loads(head)
    return found


def _numpy_head(array: np.ndarray[Any, Any]) -> bytes:
    key = (array.dtype, array.shape)
    found = _numpy_heads.get(key)
    if found is None:
        if len(_numpy_heads) >= _CACHE_LIMIT:
            _numpy_heads.clear()
        found = _numpy_heads[key] = dumps(key, 5)
    return found


def _array_bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return array.reshape(-1).view(np.uint8)


# --- pickle ---------------------------------------------------------------------------------------


def _pickle(value: Any, met: list[Any] | None = None, apart: list[Any] | None = None) -> Encoded:
    buffers: list[Buffer] = []
    private: list[int] = []
    try:
        pickler = _Pickler if apart is None else partial(_ApartPickler, apart)
        head = _pickle_with(pickler, value, buffers, private, met)
        if b"__main__" not in head:
            return Encoded(Kind.PICKLE, head, buffers, tuple(private))
    except Exception:  # noqa: BLE001, S110  pickle raises many types; cloudpickle decides below
        pass
    buffers.clear()
    private.clear()
    for tensors_found in (met, apart):
        if tensors_found is not None:
            tensors_found.clear()
    try:
        cloud_pickler = _CloudPickler if apart is None else partial(_ApartCloudPickler, apart)
        head = _pickle_with(cloud_pickler, value, buffers, private, met)
    except Exception as error:
        path = _path_to_culprit(value)
        msg = f"cannot send {path}: it cannot be pickled ({type(error).__name__}: {error})"
        raise TypeError(msg) from error
    return Encoded(Kind.PICKLE, head, buffers, tuple(private))


def _pickle_with(
    pickler: Callable[..., Any],
    value: Any,
    buffers: list[Buffer],
    private: list[int],
    met: list[Any] | None,
) -> bytes:
    def keep(buffer: pickle.PickleBuffer) -> None:
        # raw() refuses what is not contiguous in memory; numpy never hands such a buffer out.
        buffers.append(buffer.raw())

    file = io.BytesIO()
    made = pickler(file, 5, buffer_callback=keep)
    made.note_private = lambda: private.append(len(buffers))
    if met is not None:
        made.met = met
    made.dump(value)
    return file.getvalue()


def _reduce(pickler: _Pickler | _CloudPickler, value: Any) -> Any:
    """Return how to pickle a tensor, parameter or array, or NotImplemented for anything else."""
    kind = type(value)
    if kind is np.ndarray:
        return _reduce_array(value)
    if pickler.met is not None and tensors.is_any_tensor(value):
        pickler.met.append(value)
    parameter = tensors.is_parameter(kind)
    if not (parameter or tensors.is_tensor(kind)) or not tensors.is_plain(value):
        return NotImplemented
    header, data = tensors.to_bytes(value)
    pickler.note_private()
    arguments = (header, pickle.PickleBuffer(data.data))
    if not parameter:
        return tensors.from_buffer, arguments
    rebuild = partial(tensors.parameter_from_buffer, requires_grad=value.requires_grad)
    return rebuild, arguments


def _reduce_array(array: np.ndarray[Any, Any]) -> Any:
    """Return how to pickle an array with gaps: numpy would put it, writable, into the pickle."""
    flags = array.flags
    if flags.c_contiguous or flags.f_contiguous or array.dtype.hasobject:
        return NotImplemented
    return np.ascontiguousarray(array).__reduce_ex__(5)


class _Pickler(pickle.Pickler):
    note_private: Any = None
    met: list[Any] | None = None

    def reducer_override(self, value: Any) -> Any:
        return _reduce(self, value)


class _CloudPickler(cloudpickle.Pickler):  # type: ignore[misc]  # it comes without types
    note_private: Any = None
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

    def __init__(self, apart: list[Any], *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._leave_out = _LeaveOut(self, apart)

    def persistent_id(self, value: Any) -> Any:
        return self._leave_out(value)


class _ApartCloudPickler(_CloudPickler):
    """Leaves tensors out."""

    def __init__(self, apart: list[Any], *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._leave_out = _LeaveOut(self, apart)

    def persistent_id(self, value: Any) -> Any:
        return self._leave_out(value)


class _LeaveOut:
    """Says what stands for an object: for a dense tensor its number, and what it is."""

    def __init__(self, pickler: _Pickler | _CloudPickler, apart: list[Any]) -> None:
        self._pickler = pickler
        self._apart = apart
        self._numbers: dict[int, int] = {}

    def __call__(self, value: Any) -> tuple[int, bool | None] | None:
        kind = type(value)
        parameter = tensors.is_parameter(kind)
        if not (parameter or tensors.is_tensor(kind)) or not tensors.is_plain(value):
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
                cloudpickle.dumps(member)
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


def dumps_by_value(value: Any) -> bytes:
    """Pickle anything into one piece, with cloudpickle (classes of ``__main__`` by value)."""
    data: bytes = cloudpickle.dumps(value, protocol=5)
    return data
