"""Checks of single values that users give: each returns the value or says what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, Final

STREAM: Final = 0xFFFF
"""Number of returns that stands for a stream of them."""
_SMALLEST: Final = 0.0001
"""Of a resource: shares are counted in these."""

Check = Callable[[str, Any], Any]
"""Takes the name of an argument or option, and its value."""


def check_amount(name: str, value: object) -> float:
    """Return `value` if it is a possible amount of a resource.

    Raises:
        TypeError: It is not a number.
        ValueError: It is negative, or too small a share.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__} ({value!r})")
    if not value >= 0 or 0 < value < _SMALLEST or value == float("inf"):
        raise ValueError(f"{name}={value!r}: give 0 or at least {_SMALLEST}")
    return value


def check_seconds(name: str, value: object) -> float:
    """Return `value` if it is a possible timeout.

    Raises:
        TypeError: It is not a number.
        ValueError: It is negative, or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {type(value).__name__} ({value!r})")
    seconds = float(value)
    if not seconds >= 0:
        raise ValueError(f"{name}={value!r}: give seconds, or None to wait for ever")
    return seconds


def check_count(name: str, value: object) -> int:
    """Return `value` if it is an integer.

    Raises:
        TypeError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__} ({value!r})")
    return int(value)


def check_bytes(name: str, value: object) -> int | None:
    """Return `value` if it is a possible size in bytes, or None.

    Raises:
        TypeError: It is no integer.
        ValueError: It is not positive.
    """
    return None if value is None else int(integer(1)(name, value))


def check_resources(name: str, resources: object) -> dict[str, float]:
    """Return the custom resources of an option.

    Raises:
        TypeError: It is no mapping of names to numbers.
        ValueError: An amount is out of range, or a name has an option of its own.
    """
    if resources is None:
        return {}
    if not isinstance(resources, Mapping):
        raise TypeError(f"{name} must be a dict, not {type(resources).__name__} ({resources!r})")
    for key, amount in resources.items():
        if not isinstance(key, str):
            raise TypeError(f"{name}: a name must be a str, not {key!r}")
        if key in _OWN_OPTIONS:
            raise ValueError(f"{name}: {key!r} is no custom resource, use {_OWN_OPTIONS[key]}")
        check_amount(f"{name}[{key!r}]", amount)
    return dict(resources)


_OWN_OPTIONS: Final = {"CPU": "num_cpus", "GPU": "num_gpus"}


def check_num_returns(name: str, value: object) -> int | None:
    """Return `value` if a call can have so many return values.

    Raises:
        TypeError: It is no integer.
        ValueError: It is negative.
    """
    if value is None or value in ("streaming", "dynamic"):
        return None if value is None else STREAM
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(
            f"{name} must be an integer or 'streaming', not {type(value).__name__} ({value!r})"
        )
    count = int(value)
    if not 0 <= count < STREAM:
        raise ValueError(f"{name}={count}: give 0 to {STREAM - 1}")
    return count


def none_or(check: Check) -> Check:
    """Return a check that lets None pass too."""
    return lambda name, value: None if value is None else check(name, value)


def integer(least: int) -> Check:
    """Return a check for an integer of at least `least`."""

    def check(name: str, value: object) -> int:
        count = check_count(name, value)
        if count < least:
            raise ValueError(f"{name}={value}: give {least} or more")
        return count

    return check


def check_text(name: str, value: object) -> str:
    """Return `value` if it is a text that is not empty."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__} ({value!r})")
    if not value:
        raise ValueError(f"{name} is empty: give a name, or leave it out")
    return value


def check_flag(name: str, value: object) -> bool:
    """Return `value` if it is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def check_lifetime(name: str, value: object) -> str:
    """Return `value` if it is a lifetime of an actor."""
    if value not in ("detached", "non_detached"):
        raise ValueError(f"{name}={value!r}: give 'detached', 'non_detached' or None")
    return str(value)


def check_retry_exceptions(name: str, value: object) -> bool | tuple[type[BaseException], ...]:
    """Return which exceptions are worth another attempt."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be True, False or a list of exceptions, not {value!r}")
    for kind in value:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{name}: {kind!r} is no exception class")
    return tuple(value)


def check_groups(name: str, value: object) -> dict[str, int]:
    """Return the concurrency groups of an actor: their limits, by name."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of names to numbers, not {value!r}")
    for key, size in value.items():
        check_text(f"{name}: the name of a group", key)
        integer(1)(f"{name}[{key!r}]", size)
    return dict(value)
