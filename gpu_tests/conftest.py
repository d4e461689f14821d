"""Skip everything here, with the reason, where no GPU is at hand."""

from __future__ import annotations

import os

import pytest

import runtime
from gpu_tests.crew import Stage
from tests.conftest import (  # noqa: F401  fixtures and hooks: what they do is done here too
    _frozen,
    _no_leaks_if_proc,
    incubator,
    no_leaks,
    pytest_configure,
    pytest_runtest_makereport,
    session,
)


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


@pytest.fixture
def start(incubator, no_leaks, monkeypatch):  # noqa: F811  fixtures
    """Starts a session with more logical GPUs than there are, so that actors share one."""

    def start(count, *, environment=(), kind=Stage, arguments=(), **options):
        for name, value in dict(environment).items():
            monkeypatch.setenv(name, value)
        runtime.init(num_gpus=count + 1)
        actor = runtime.remote(kind).options(num_gpus=1, **options)
        return [actor.remote(*arguments) for _ in range(count)]

    yield start
    runtime.shutdown()
