"""A real GPU that refuses what some machines do: what ``COMPILED_DAG_CUDA`` names in tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from compiled_dag.cuda.cupy_driver import CupyDriver
from compiled_dag.cuda.device import TorchDevice

if TYPE_CHECKING:
    from compiled_dag.cuda.driver import Event, Pointer

NOT_SUPPORTED = 801


class _WithoutMemory(CupyDriver):
    def export_memory(self, pointer: Pointer) -> bytes:
        raise self.error_type(NOT_SUPPORTED)


class _WithoutEvents(CupyDriver):
    def export_event(self, event: Event) -> bytes:
        raise self.error_type(NOT_SUPPORTED)


class _WithoutBoth(_WithoutMemory, _WithoutEvents):
    pass


def _device(kind: type[CupyDriver]) -> TorchDevice:
    assert torch.cuda.is_available()
    return TorchDevice(kind())


def without_memory() -> TorchDevice:
    return _device(_WithoutMemory)


def without_events() -> TorchDevice:
    return _device(_WithoutEvents)


def without_both() -> TorchDevice:
    return _device(_WithoutBoth)
