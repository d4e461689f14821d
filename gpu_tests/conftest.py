"""Skip everything here, with the reason, where no GPU is at hand."""

from __future__ import annotations

import os

import pytest

from tests.conftest import incubator, no_leaks, session  # noqa: F401  fixtures


def _why_not() -> str | None:
    if os.environ.get("GPU_TESTS_DEVICE", "cuda") != "cuda":
        return None  # see gpu_tests.crew
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    if not torch.cuda.is_available():
        return "torch.cuda.is_available() is False: no NVIDIA GPU, driver or CUDA build of torch"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    why = _why_not()
    if why is not None:
        for item in items:
            if "gpu_tests" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason=why))
