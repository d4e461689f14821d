"""Every operation x dtype x shape x form equals numpy's, on every backend.

All operations and forms are drawn into one graph for a backend; an execution is one dtype and one
shape. A new backend is one more line in `BACKENDS`; "cuda_ipc" takes processes, and so has a test
of its own (`tests.cuda.test_shared_oracle`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.collective.everything import THOROUGH, Everything, Rank, W
from tests.collective.oracle import DTYPES
from tests.communicators import Threads
from tests.fakes import ThreadHost

BACKENDS: dict[str, Callable[[list[Any]], Any]] = {
    "gloo": lambda _: "gloo",
    "shm": lambda _: "shm",
    "threads": Threads,
}


@pytest.fixture(scope="module", params=BACKENDS)
def everything(request: pytest.FixtureRequest) -> Iterator[Everything]:
    host = ThreadHost()
    actors = [host.actor(Rank(rank)) for rank in range(W)]
    made = Everything(request.param, BACKENDS[request.param](actors), actors)
    yield made
    made.graph.teardown()
    host.close()


@THOROUGH
@pytest.mark.parametrize("dtype", DTYPES)
def test_everything_equals_numpy(everything: Everything, dtype: str, step: int) -> None:
    everything.check_all(dtype, step)
