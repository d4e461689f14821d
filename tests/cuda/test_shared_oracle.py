"""Every operation x dtype x shape x form equals numpy's for ranks that share a GPU, too.

As `tests.collective.test_oracle`, by processes, on a GPU in host memory (`fake`).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import runtime
from tests.collective.everything import THOROUGH, Everything
from tests.collective.oracle import DTYPES
from tests.cuda.ranks import begin

pytestmark = [pytest.mark.proc, pytest.mark.filterwarnings("ignore:num_gpus=")]


@pytest.fixture(scope="module")
def everything() -> Iterator[Everything]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = Everything("cuda_ipc", "cuda_ipc", begin(monkeypatch, settings="pause_us=50"))
        yield made
        made.graph.teardown()
        runtime.shutdown()


@THOROUGH
@pytest.mark.parametrize("dtype", DTYPES)
def test_everything_equals_numpy(everything: Everything, dtype: str, step: int) -> None:
    everything.check_all(dtype, step)
