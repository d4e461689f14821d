"""What tests of whole graphs on GPUs in host memory start with."""

from __future__ import annotations

import pytest

import runtime
from runtime import gpus
from tests.cuda.crew import Stage
from tests.cuda.fake import SETTINGS


@pytest.fixture
def start(no_leaks, monkeypatch):
    """Starts a session on a machine with so many GPUs, and actors in it."""
    monkeypatch.setenv("COMPILED_DAG_CUDA", "tests.cuda.fake:open_device")

    def start(count, num_gpus=1, settings=""):
        monkeypatch.setenv(SETTINGS, settings)
        monkeypatch.setattr(gpus, "count_devices", lambda: num_gpus)
        runtime.init(num_gpus=max(count, num_gpus))
        stage = runtime.remote(Stage).options(num_gpus=1)
        return [stage.remote() for _ in range(count)]

    yield start
    runtime.shutdown()
