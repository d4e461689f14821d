from __future__ import annotations

import pytest

from benchmarks.fit import growth


def test_a_straight_line_is_found():
    fit = growth([1, 10, 100, 1000], [7, 25, 205, 2005])
    assert fit.each == pytest.approx(2)
    assert fit.fixed == pytest.approx(5)
    assert 0.9 < fit.tail < 1


@pytest.mark.parametrize("exponent", [0, 1, 2])
def test_the_exponent_of_a_power_is_found(exponent):
    sizes = [1, 4, 16, 64]
    fit = growth(sizes, [3 * size**exponent for size in sizes])
    assert fit.exponent == pytest.approx(exponent)
    assert fit.tail == pytest.approx(exponent)


def test_growth_that_fixed_costs_hide_shows_in_the_tail():
    sizes = [1, 10, 100, 1000, 10_000]
    fit = growth(sizes, [1000 + size**2 / 100 for size in sizes])
    assert fit.exponent < 1 < fit.tail


def test_one_point_is_no_curve():
    with pytest.raises(ValueError, match="two points"):
        growth([1], [1])
