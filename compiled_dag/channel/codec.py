"""Python values to bytes and back: one head and any number of raw buffers.

Exact types take short cuts (bytes, contiguous numpy arrays, torch tensors); everything else is
pickle protocol 5 with out-of-band buffers, and cloudpickle for what pickle refuses or would refer
to by a ``__main__`` that is another module in the receiving process.

A buffer is *shared* or *private*. The receiver maps shared ones read-only (arrays of numpy);
private ones are for tensors, which users may change, so the receiver must own them.
"""

from __future__ import annotations

import io
import pickle
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from compiled_dag.channel import array as arrays
from compiled_dag.channel import tensor as tensors
from compiled_dag.channel.pickling import Apart, Buffer, ToBytes, pickled
from compiled_dag.outcome import Error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Land: TypeAlias = Callable[[tensors.Header, Buffer], Any]
    """Makes a tensor of header and bytes."""

dumps, loads = pickle.dumps, pickle.loads


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
    DEVICE = 9
    """What one tensor looks like, which is in a device ring (`compiled_dag.cuda`)."""
    DEVICE_APART = 10
    """As APART, with the tensors in a device ring."""


_PICKLE, _NUMPY, _BYTES, _TENSOR = map(int, (Kind.PICKLE, Kind.NUMPY, Kind.BYTES, Kind.TENSOR))


class Encoded(NamedTuple):
    """One value on its way out. Views into the value: copy before the caller changes it."""

    kind: Kind
    head: bytes
    buffers: list[Buffer]
    private: tuple[int, ...]
    """Indices of the private buffers."""
    lent: Sequence[Any] = ()
    """Objects that receivers find by what is in the bytes: to be kept alive until they have."""


# Pickled (dtype, shape) and tensor headers repeat for ever in a graph: they are unpickled once.
_CACHE_LIMIT = 512
_heads: dict[bytes, Any] = {}

_FIRST_PRIVATE = (0,)
_PLAIN = frozenset({str, bool, int, float, complex, type(None)})


def encode(value: Any, met: list[Any] | None = None, to_bytes: ToBytes | None = None) -> Encoded:
    """Turn `value` into a head and buffers.

    Args:
        value: Anything that can be pickled.
        met: Where to note every tensor inside, in the order they are met.
        to_bytes: What makes header and buffer of dense tensors; None: `tensor.to_bytes`.

    Raises:
        TypeError: Part of the value cannot be pickled; the message names the path to it.
    """
    kind = value.__class__
    if kind in _PLAIN:
        return Encoded(Kind.PICKLE, dumps(value, 5), [], ())
    if kind is bytes:
        return Encoded(Kind.BYTES, value, [], ())
    if arrays.is_array(kind):
        if value.flags.c_contiguous and not value.dtype.hasobject:
            return Encoded(Kind.NUMPY, arrays.head_of(value), [arrays.bytes_of(value)], ())
    elif kind is Error:
        if value.references:
            return Encoded(Kind.ERROR, *pickled(value, met))
        return Encoded(Kind.ERROR, dumps(value, 5), [], ())
    elif tensors.is_tensor(kind) and (found := _of_tensor(value, to_bytes)) is not None:
        if met is not None:
            met.append(value)
        return found
    return Encoded(Kind.PICKLE, *pickled(value, met, to_bytes=to_bytes))


def _of_tensor(tensor: Any, to_bytes: ToBytes | None) -> Encoded | None:
    """Encode a tensor; None: only its own pickling can."""
    if to_bytes is None and (found := tensors.in_place(tensor)) is not None:
        plan, data = found
        return Encoded(Kind.TENSOR, plan.head, [data], _FIRST_PRIVATE)
    if not tensors.is_plain(tensor):
        return None
    header, data = (to_bytes or tensors.to_bytes)(tensor)
    return Encoded(Kind.TENSOR, dumps(header, 5), [data], _FIRST_PRIVATE)


def copied(encoded: Encoded) -> Encoded:
    """Return the same with buffers of its own."""
    return encoded._replace(buffers=[bytes(memoryview(buffer)) for buffer in encoded.buffers])


def decode(kind: int, head: bytes, buffers: Sequence[Buffer]) -> Any:
    """Rebuild a value; numpy arrays and tensors live on the `buffers` given.

    Raises:
        Exception: Whatever unpickling the user's value raises.
    """
    if kind == _PICKLE:  # plain numbers: comparing an enum's member costs three times as much
        return loads(head, buffers=buffers)
    if kind == _NUMPY:
        return arrays.from_buffer(parsed(head), buffers[0])
    if kind == _BYTES:
        return head
    if kind == _TENSOR:
        return tensors.from_buffer(parsed(head), buffers[0])
    return loads(head, buffers=buffers)


def encode_apart(
    value: Any, met: list[Any], belongs: Callable[[Any], bool] = tensors.is_plain
) -> tuple[Encoded, list[Any]]:
    """Turn `value` into a head and buffers without its tensors.

    Args:
        value: Anything that can be pickled.
        met: Where to note every tensor inside, in the order they are met.
        belongs: Tells which tensors are to be taken out; dense ones only.

    Returns:
        What is left, and the tensors (and parameters) to be given to `decode_apart`; if there are
        none, what `encode` returns. Tensors of other classes stay in the value.

    Raises:
        TypeError: Part of the value cannot be pickled; the message names the path to it.
    """
    apart: list[Any] = []
    encoded = Encoded(Kind.PICKLE, *pickled(value, met, Apart(apart, belongs)))
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
    return decode_by(partial(tensors.from_buffer, device=device), kind, head, buffers)


def decode_by(land: Land, kind: int, head: bytes, buffers: Sequence[Buffer]) -> Any:
    """Rebuild a value as `decode` does, its tensors by what `land` makes of header and bytes."""
    if kind == Kind.TENSOR:
        return land(parsed(head), buffers[0])
    if kind == Kind.PICKLE:
        return _Lander(land, head, buffers).load()
    return decode(kind, head, buffers)


class _Lander(pickle.Unpickler):
    """Rebuilds tensors in a way of its own."""

    def __init__(self, land: Land, head: bytes, buffers: Sequence[Buffer]) -> None:
        super().__init__(io.BytesIO(head), buffers=buffers)
        self._land = land

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if found is tensors.from_buffer:
            return self._land
        if found is tensors.parameter_from_buffer:
            return partial(_landed_parameter, self._land)
        return found


def _landed_parameter(land: Land, header: Any, buffer: Any, *, requires_grad: bool) -> Any:
    return tensors.parameter_of(land(header, buffer), requires_grad)


def parsed(head: bytes) -> Any:
    """Return what a head says that is likely to come again."""
    found = _heads.get(head)
    if found is None:
        if len(_heads) >= _CACHE_LIMIT:
            _heads.clear()
        found = _heads[head] = loads(head)
    return found
