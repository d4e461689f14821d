"""Measure the floor of payloads: the same values by `benchmarks.floor`, one copy a hop.

Numpy arrays go by pickle's out-of-band buffers and arrive as views of the slot; bytes must be
copied out of it, as nothing else is a `bytes`. A tensor's floor is the numpy array of its size.
"""

from __future__ import annotations

from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import floor
from benchmarks.floor import Stage
from benchmarks.rounds import Side, timed
from benchmarks.values import make

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_HEADROOM = 1 << 16


def payload(kind: str, way: str, nbytes: int) -> AbstractContextManager[Side]:
    """Send a payload in, out, in and out, or from one process to another."""
    value = _sent(kind, nbytes)
    take, forward = (_some_bytes, _echo_bytes) if kind == "bytes" else (_some, floor.echo)

    def give(_asked: object) -> Any:
        return value

    stages = {
        "in": (Stage((0,), 1, take),),
        "echo": (Stage((0,), 1, forward),),
        "out": (Stage((0,), 1, give),),
        "between": (Stage((0,), 1, give), Stage((1,), 2, take)),
    }[way]
    whole = way in {"out", "echo"}
    is_right = (_some_bytes if kind == "bytes" else _some) if whole else _is_one
    sent = value if way in {"in", "echo"} else 1
    return floor.running(stages, sent, is_right, nbytes + _HEADROOM)


def readers(kind: str, count: int, nbytes: int) -> AbstractContextManager[Side]:
    """Send one payload to several processes: one copy in, as all read the same slot."""
    take = _some_bytes if kind == "bytes" else _some
    stages = floor.fan_out(count, take)
    return floor.running(stages, _sent(kind, nbytes), _is_one, nbytes + _HEADROOM)


def nested(nbytes: int) -> AbstractContextManager[Side]:
    """Send dictionaries of arrays in and out."""
    return floor.running(floor.chain(1), make("nested", nbytes), _some, nbytes + _HEADROOM)


def memcpy(nbytes: int) -> Side:
    """Copy so many bytes into memory that is there already."""
    source, target = np.ones(nbytes, np.uint8), np.zeros(nbytes, np.uint8)

    def copy() -> None:
        target[:] = source

    return Side(name="memcpy", block=timed(copy, warm_trips=3))


def _sent(kind: str, nbytes: int) -> Any:
    if kind == "bytes":
        return PickleBuffer(make(kind, nbytes))
    return make("numpy" if kind == "torch" else kind, nbytes)


def _is_one(answer: object) -> bool:
    return answer is True


def _some(value: Any) -> bool:
    return len(value) > 0


def _some_bytes(view: Any) -> bool:
    return len(bytes(view)) > 0


def _echo_bytes(view: Any) -> Any:
    return PickleBuffer(bytes(view))
