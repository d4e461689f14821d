"""Which GPUs an actor is given, and what it sees. Pure, but for one function that looks.

A logical GPU is a unit of ``num_gpus``; logical GPU i stands for physical device i mod P, where P
devices are physical. With P = 0 the GPUs are fake: actors are placed by count and see no device.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Visibility: TypeAlias = Literal["assigned_first", "assigned_only", "none", "inherit"]
GpuId: TypeAlias = int | str

VISIBILITIES: Final = ("assigned_first", "assigned_only", "none", "inherit")
VARIABLE: Final = "CUDA_VISIBLE_DEVICES"
_UNITS: Final = 10_000
"""Shares of a GPU are counted in 1/10000, so that ten tenths make one."""


def physical_devices(environment: Mapping[str, str], num_found: int) -> tuple[str, ...]:
    """Return the devices the driver may use, as they stand in the variable."""
    listed = environment.get(VARIABLE)
    if listed is None:
        return tuple(str(index) for index in range(num_found))
    devices = []
    for device in (name.strip() for name in listed.split(",")):
        if not device or device == "-1" or _is_beyond(device, num_found):
            break  # CUDA, too, ignores what comes after an invalid entry
        devices.append(device)
    return tuple(devices) if num_found else ()


def _is_beyond(device: str, num_found: int) -> bool:
    return device.isdigit() and int(device) >= num_found


def unknown_device(environment: Mapping[str, str], num_found: int) -> str:
    """Return what is to be said of an index in the variable that no device has, or nothing."""
    listed = environment.get(VARIABLE, "")
    odd = [name for name in map(str.strip, listed.split(",")) if _is_beyond(name, num_found)]
    if not odd or not num_found:
        return ""
    return (
        f"{VARIABLE}={listed!r}: there is no GPU {odd[0]}, the machine has {num_found}, 0 to "
        f"{num_found - 1}. CUDA ignores it, and what is listed after it"
    )


def count_devices(root: str = "/") -> int:
    """Return how many NVIDIA devices this machine shows, without loading CUDA.

    Args:
        root: The folder that has `proc` and `dev`.
    """
    found = os.path.join(root, "proc/driver/nvidia/gpus")
    if os.path.isdir(found):
        return len(os.listdir(found))
    devices = os.path.join(root, "dev")
    shown = sum(re.fullmatch(r"nvidia[0-9].*", name) is not None for name in os.listdir(devices))
    if shown or not os.path.exists(os.path.join(devices, "dxg")):
        return shown
    from runtime import nvml  # noqa: PLC0415  only under WSL 2

    return nvml.count()


def session_visibility(given: str | None) -> tuple[Visibility, Visibility]:
    """Return `parse_visibility` of what `init` was given, else of ``COMPILED_DAG_GPU_VISIBILITY``.

    Raises:
        ValueError: As that; names the variable if it is the one that is wrong.
    """
    from compiled_dag import environment  # noqa: PLC0415  options are checked without it

    variable = None if given is not None else environment.lookup("GPU_VISIBILITY")
    if variable is None:
        return parse_visibility(given)
    try:
        return parse_visibility(variable.text)
    except ValueError as error:
        raise ValueError(f"environment variable {variable.name}: {error}") from error


def parse_visibility(text: str | None) -> tuple[Visibility, Visibility]:
    """Return the visibility for actors with GPUs and for those without.

    Args:
        text: The argument of `init`: one of the four names, or one of each kind with a comma.

    Raises:
        ValueError: Another name, or two of one kind.
    """
    if text is not None and not isinstance(text, str):
        check_visibility(text)
    with_gpus: list[Visibility] = []
    without: list[Visibility] = []
    for name in [] if text is None else [part.strip() for part in text.split(",")]:
        checked = check_visibility(name)
        (with_gpus if checked.startswith("assigned") else without).append(checked)
    if len(with_gpus) > 1 or len(without) > 1:
        raise ValueError(
            f"gpu_visibility={text!r} names two of one kind: give at most one of 'assigned_first', "
            "'assigned_only' (actors with GPUs) and one of 'none', 'inherit' (actors without)"
        )
    return (with_gpus or ["assigned_first"])[0], (without or ["none"])[0]


def check_visibility(name: object) -> Visibility:
    """Return `name` if it is one of the four.

    Raises:
        ValueError: It is not.
    """
    for known in VISIBILITIES:
        if name == known:
            return known
    raise ValueError(f"gpu_visibility={name!r}: choose one of {', '.join(map(repr, VISIBILITIES))}")


def visible_devices(
    visibility: Visibility, assigned: Sequence[int], physical: Sequence[str]
) -> str | None:
    """Return the value of ``CUDA_VISIBLE_DEVICES`` for an actor; None leaves it as it is."""
    if visibility == "inherit":
        return None
    if visibility == "none" or not physical:
        return ""
    first = devices_of(assigned, physical)
    if visibility == "assigned_only":
        return ",".join(first)
    return ",".join([*first, *(device for device in physical if device not in first)])


def devices_of(assigned: Sequence[int], physical: Sequence[str]) -> tuple[str, ...]:
    """Return the physical devices behind logical ones, each once; none where they are fake."""
    if not physical:
        return ()
    return tuple(dict.fromkeys(physical[index % len(physical)] for index in assigned))


def public_ids(assigned: Sequence[int], physical: Sequence[str]) -> tuple[GpuId, ...]:
    """Return what `get_gpu_ids` shows: numbers, or names where the driver's variable has names."""
    if all(device.isdigit() for device in physical):
        return tuple(assigned)
    return tuple(physical[index % len(physical)] for index in assigned)


class GpuPool:
    """Free shares of the session's logical GPUs."""

    def __init__(self, total: float) -> None:
        self.total = total
        self._free = [_UNITS] * int(total)
        if total % 1:
            self._free.append(round(total % 1 * _UNITS))

    @property
    def available(self) -> float:
        """GPUs, and shares of them, that are free."""
        return sum(self._free) / _UNITS

    def fits_ever(self, num_gpus: float) -> bool:
        """Tell whether the session could have room for `num_gpus`, were it empty."""
        return num_gpus <= self.total if num_gpus <= 1 else num_gpus <= int(self.total)

    def take(self, num_gpus: float) -> tuple[int, ...] | None:
        """Assign GPUs: whole free ones, or a share of the fullest one with room.

        Returns:
            The logical ids; None if there is no room now.
        """
        if num_gpus < 1:
            return self._take_share(round(num_gpus * _UNITS))
        free = [index for index, units in enumerate(self._free) if units == _UNITS]
        count = int(num_gpus)
        if len(free) < count:
            return None
        for index in free[:count]:
            self._free[index] = 0
        return tuple(free[:count])

    def _take_share(self, units: int) -> tuple[int, ...] | None:
        if not units:
            return ()
        fits = [(free, index) for index, free in enumerate(self._free) if free >= units]
        if not fits:
            return None
        _, index = min(fits)
        self._free[index] -= units
        return (index,)

    def give_back(self, assigned: Sequence[int], num_gpus: float) -> None:
        """Return what `take` gave."""
        units = _UNITS if num_gpus >= 1 else round(num_gpus * _UNITS)
        for index in assigned:
            self._free[index] += units
