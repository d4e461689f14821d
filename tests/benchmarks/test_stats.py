"""Check the figures that rows are made of."""

from __future__ import annotations

import pytest

from benchmarks.stats import Block, paired_differences, paired_ratios, percentile, summarize


def test_percentile_is_a_value_that_was_measured() -> None:
    values = list(range(1, 101))
    assert percentile(values, 99) == 99
    assert percentile(values, 100) == 100
    assert percentile(values, 1) == 1


def test_percentile_of_few_values_is_the_highest() -> None:
    assert percentile([3, 1, 2], 99) == 3
    assert percentile([7], 50) == 7


def test_percentile_needs_values() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        percentile([], 99)


def test_summarize_ignores_order_and_outliers() -> None:
    assert summarize([5, 1, 3]) == Block(p50_ns=3, p99_ns=5, n=3)
    assert summarize([4] * 999 + [10**9]).p99_ns == 4


def test_summarize_counts_what_takes_over_a_millisecond() -> None:
    assert summarize([10**6, 10**6 + 1, 10**9]).num_long == 2


def test_pairs_are_taken_round_by_round() -> None:
    assert paired_ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    assert paired_differences([2.0, 9.0], [1.0, 3.0]) == [1.0, 6.0]


def test_pairs_need_the_same_rounds() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_ratios([1.0, 2.0], [1.0])
