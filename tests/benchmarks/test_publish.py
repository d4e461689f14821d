from __future__ import annotations

import pytest

from benchmarks import publish

MACHINE = {"cpu": "some", "date": "2026-11-27T05:00:00+00:00"}
ROWS = [
    {"case": "chain", "actors": 1, "ours_us": 6.0, "floor_us": 4.0, "ratio": 1.5, "ray_ratio": 9.0},
    {"case": "chain", "actors": 4, "ours_us": 60.0, "ratio": 2.0, "ray_error": "timed out"},
    {"case": "payload", "what": "numpy in", "bytes": 1 << 20, "actors": 1, "ratio": 1.2},
    {"case": "scaling", "what": "bytes in", "size": 1, "ours_us": 5.0},
    {"case": "scaling", "what": "bytes in", "size": 2, "ours_us": 7.0},
    {"case": "scaling", "what": "bytes in", "tail": 0.5, "exponent": 0.5},
]


def test_rows_have_short_names():
    names = [publish.name_of(row) for row in ROWS[:3]]
    assert names == ["chain", "chain x4", "payload numpy in 1 MiB"]


def test_targets_are_told_with_what_was_measured():
    text = publish.targets_text(ROWS)
    assert "| chain 1: ratio at most 1.8 (chain) | 1.5 | yes |" in text
    assert "| chain 4: ratio at most 1.7 (chain x4) | 2.0 | **no** |" in text


def test_a_report_is_a_text_and_pictures_named_by_the_date(tmp_path):
    pytest.importorskip("matplotlib")
    path = publish.write(tmp_path / "reports", MACHINE, ROWS)
    assert path.name == "2026-11-27.md"
    text = path.read_text()
    for picture in ("2026-11-27-ratios.png", "2026-11-27-scaling.png"):
        assert f"({picture})" in text
        assert (path.parent / picture).read_bytes().startswith(b"\x89PNG")


def test_a_picture_has_no_empty_side(tmp_path, monkeypatch):
    plot = pytest.importorskip("matplotlib.pyplot")
    titles = []
    monkeypatch.setattr(
        plot, "close", lambda chart: titles.append([one.get_title() for one in chart.axes])
    )
    publish.write(tmp_path, MACHINE, ROWS)
    publish.write(tmp_path, MACHINE, ROWS[2:3])
    ours, peer = "ours / floor (shorter is better)", "Ray / ours (longer is better)"
    assert titles[0] == [ours, peer]
    assert titles[-1] == [ours]


def test_a_report_without_ratios_or_curves_has_no_pictures(tmp_path):
    path = publish.write(tmp_path, MACHINE, [{"case": "core-alive", "actors": 3}])
    assert list(tmp_path.iterdir()) == [path]
