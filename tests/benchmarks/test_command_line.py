"""Check what the command line refuses before anything is measured, and what Ctrl-C leaves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks import __main__ as command
from benchmarks import registry
from benchmarks.registry import Config, Plan, Row, case

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONCE = Plan(actors=(1,), rounds=1, trips=1)
SENT = Plan(actors=(1,), rounds=1, trips=1, whats=("in", "out", "echo"), sizes=(4, 8))
QUICK = Plan(actors=(1,), rounds=1, trips=1, whats=("in",), sizes=(4,))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """What the one case, which Ctrl-C breaks off after its first row, has been asked for."""
    monkeypatch.setattr(registry, "CASES", {})
    monkeypatch.setattr(registry, "load", lambda: None)
    asked: list[Config] = []

    @case(full=ONCE, quick=ONCE, limit_s=7.0)
    def hop(config: Config) -> Iterator[Row]:
        """One hop."""
        asked.append(config)
        yield {"ours_us": 1.0}
        raise KeyboardInterrupt

    @case(full=SENT, quick=QUICK)
    def sent(config: Config) -> Iterator[Row]:
        """Something sent."""
        asked.append(config)
        yield {"ours_us": 1.0}

    return asked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "{tmp}"], "--json: cannot write to {tmp}: Is a directory"),
        (["--json", "{tmp}/file/x"], "--json: cannot write to {tmp}/file/x: "),
        (["--report", "{tmp}/file"], "--report: cannot write to {tmp}/file: File exists"),
        (["--with", "{tmp}/none"], "--with: cannot read {tmp}/none: No such file"),
        (["--with", "{tmp}/file"], "--with: {tmp}/file, line 2 is no row of an earlier run: 'two'"),
        (["sent", "--what", "in", "no"], "sent has no part 'no'; its parts are in, out, echo"),
        (["hop", "--what", "in"], "--what: hop has no part 'in'; it has none"),
        (["sent", "hop", "--bytes", "4"], "--bytes: hop sends nothing whose size can be chosen"),
        (["sent", "--bytes", "1MB"], "'1MB' is no size: a number above 0 and GiB, MiB, KiB, B"),
        (["sent", "--bytes", "0"], "'0' is no size"),
        (["--peer", "ray"], "--peer ray: no interpreter for the peer at {tmp}/none: `make bench`"),
    ],
)
def test_what_cannot_be_done_is_refused_before_measuring(
    measured, monkeypatch, tmp_path, capsys, arguments, message
) -> None:
    monkeypatch.setattr(registry, "PEERS", {"ray": None})
    monkeypatch.setenv("COMPILED_DAG_PEER_PYTHON", str(tmp_path / "none"))
    (tmp_path / "file").write_text('{"case": "hop"}\ntwo\n', encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        command.main([argument.format(tmp=tmp_path) for argument in arguments])
    assert ended.value.code == 2
    assert message.format(tmp=tmp_path) in capsys.readouterr().err
    assert not measured


def test_ctrl_c_leaves_what_was_measured(measured, tmp_path: Path, capsys) -> None:
    path = tmp_path / "new" / "rows"
    assert command.main(["--json", str(path)]) == 130
    assert "these rows had been measured\n\ncase  actors" in capsys.readouterr().err
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows[1:] == [{"case": "hop", "actors": 1, "ours_us": 1.0}]
    assert len(measured) == 1


def test_parts_and_sizes_are_chosen_also_those_that_quick_runs_leave_out(measured, capsys) -> None:
    assert command.main(["sent", "--quick", "--what", "o", "--bytes", "1MiB", "3"]) == 0
    asked = [(config.what, config.nbytes) for config in measured]
    assert asked == [("out", 1 << 20), ("out", 3), ("echo", 1 << 20), ("echo", 3)]
    assert len(capsys.readouterr().out.splitlines()) == 4
