"""The README's script does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.proc
def test_the_script_in_the_readme_runs_as_it_stands(tmp_path):
    (script,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "script.py").write_text(script)

    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    *table, first, second, third = done.stdout.strip().splitlines()
    assert "allreduce(AVG)" in "\n".join(table)
    assert table[-1].count("|") == 3
    for line in (first, second, third):
        norms = re.fullmatch(r"\[([\d.e-]+), ([\d.e-]+)\]", line)
        assert norms, line
        assert norms[1] == norms[2]  # both workers took the same step
