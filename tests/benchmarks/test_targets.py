from __future__ import annotations

from benchmarks import registry
from benchmarks.targets import TARGETS, at_least, at_most, verdicts


def test_a_target_is_about_rows_that_have_its_fields_and_its_figure():
    target = at_most(1.8, case="chain", actors=1)
    assert target.fits({"case": "chain", "actors": 1, "ratio": 1.5})
    assert not target.fits({"case": "chain", "actors": 2, "ratio": 1.5})
    assert not target.fits({"case": "chain", "actors": 1, "ray_error": "timed out"})


def test_verdicts_are_from_above_or_from_below():
    rows = [{"case": "chain", "actors": 1, "ratio": 1.9, "ray_ratio": 9.0}]
    targets = [at_most(1.8, case="chain"), at_least(7, case="chain")]
    assert [met for _, _, met in verdicts(rows, targets)] == [False, True]
    assert str(targets[1]) == "chain: ray_ratio at least 7"


def test_every_target_names_a_case():
    registry.load()
    assert {target.rows["case"] for target in TARGETS} <= set(registry.CASES)
