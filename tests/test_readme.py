"""The README's scripts do what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from collective import ReduceOp, allreduce
from compiled_dag import InputNode, MultiOutputNode
from compiled_dag.picture.ascii import picture
from tests.compiled_dag.picture.drawings import drawing
from tests.graphs import paper

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(tmp_path):
    """Return what runs the script of a section as it stands, and returns its output by line."""

    def run_section(title):
        text = (ROOT / "README.md").read_text()
        (section,) = re.findall(rf"^## {title}\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
        (script,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
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
        return done.stdout.strip().splitlines()

    return run_section


@pytest.mark.proc
def test_tasks_objects_actors(run):
    squares, totals, last = run("Tasks, objects, actors")
    assert squares == "[0, 1, 4, 9]"
    assert re.fullmatch(r"\[\d+, \d+, \d+, 14\]", totals)  # in whichever order they came
    assert last == "[0, 999, 499500]"


@pytest.mark.proc
def test_collectives_in_methods(run):
    assert run("Collectives in methods") == [
        "[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]",
        "[2.0, 0.0, 1.0]",
    ]


@pytest.mark.proc
def test_functions_and_classes_in_graphs(run):
    assert run("Functions and classes in graphs") == [
        "['11: one', 'end']",
        "['11: one', 'end']",
        "['12: two', 'end']",
    ]


@pytest.mark.proc
def test_a_training_step_as_a_graph(run):
    *table, first, second, third = run("A training step as a graph")
    assert "allreduce(AVG)" in "\n".join(table)
    assert table[-1].count("|") == 3
    for line in (first, second, third):
        norms = re.fullmatch(r"\[([\d.e-]+), ([\d.e-]+)\]", line)
        assert norms, line
        assert norms[1] == norms[2]  # both workers took the same step


def test_seeing_a_graph():
    text = (ROOT / "README.md").read_text()
    (shown,) = re.findall(r"^## Seeing a graph\n.*?```\n(.*?)```", text, re.DOTALL | re.MULTILINE)

    class Worker:
        backward = step = None

    workers = paper(2, kind=Worker)
    with InputNode() as batch:
        gradients = allreduce.bind([w.backward.bind(batch) for w in workers], op=ReduceOp.AVG)
        dag = MultiOutputNode([w.step.bind(g) for w, g in zip(workers, gradients, strict=True)])
    assert picture(drawing(dag)) == shown.splitlines()
