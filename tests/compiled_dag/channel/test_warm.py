from __future__ import annotations

import numpy as np
import pytest

from compiled_dag.channel.warm import LARGE_BYTES, WarmBytes


def place_of(array) -> int:
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize(
    "over",
    [
        lambda loan: loan[5:],
        lambda loan: np.ndarray((7,), "f4", loan),
        lambda loan: loan.view("u1", np.ndarray).reshape(-1, 2),
        memoryview,
        lambda loan: np.asarray(loan)[3:],
    ],
)
def test_bytes_come_back_when_the_last_view_of_any_kind_is_gone(over) -> None:
    warm = WarmBytes()
    loan = warm.lend(LARGE_BYTES, LARGE_BYTES)
    place = place_of(loan)
    assert place % 64 == 0
    view = over(loan)
    del loan
    assert len(warm) == 0
    assert place_of(warm.lend(LARGE_BYTES, LARGE_BYTES)) != place
    warm.clear()
    del view
    assert len(warm) == 1
    assert place_of(warm.lend(LARGE_BYTES, LARGE_BYTES)) == place


def test_only_so_many_bytes_are_kept() -> None:
    warm = WarmBytes()
    loans = [warm.lend(100, 1000) for _ in range(5)]
    del loans
    assert len(warm) == 5
    other = warm.lend(50, 200)
    assert len(warm) == 2
    assert len(other) == 50
