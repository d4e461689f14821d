"""The README's scripts do what it says."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from collective import ReduceOp, allreduce
from compiled_dag import InputNode, MultiOutputNode
from compiled_dag.picture.ascii import picture
from tests.compiled_dag.picture.drawings import drawing
from tests.graphs import paper

ROOT = Path(__file__).parents[1]


GUIDE = ROOT / "docs" / "migrating-from-ray.md"
README = ROOT / "README.md"
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
SECTION = re.compile(r"^## (.*?)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)


@pytest.fixture
def script(tmp_path):
    """Return what runs a script as it stands, and returns its output by line."""

    def run_script(text, *before):
        (tmp_path / "script.py").write_text(text)
        done = subprocess.run(
            [sys.executable, *before, "script.py"],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()

    return run_script


@pytest.fixture
def run(script):
    """Return what runs the script of a section of the README, and returns its output by line."""

    def run_section(title):
        assert title in RUN
        (section,) = (text for name, text in SECTION.findall(README.read_text()) if name == title)
        (text,) = PYTHON.findall(section)
        return script(text)

    return run_section


RUN = {
    "Tasks, objects, actors",
    "A training step as a graph",
    "Functions and classes in graphs",
    "Collectives in methods",
}
"""The sections that have a script; each has a test below."""


def test_every_script_of_the_documents_is_run() -> None:
    text = README.read_text()
    found = {name for name, section in SECTION.findall(text) if "```py" in section}
    assert found == RUN
    assert text.count("```py") == len(RUN)
    others = [ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    others += [ROOT / "benchmarks" / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert [path for path in others if "```py" in path.read_text()] == [GUIDE]


@pytest.mark.proc
def test_the_guide_for_scripts_of_ray(script) -> None:
    use = """
    @ray.remote
    class Worker:
        def echo(self, value):
            return value

    worker = Worker.remote()
    with InputNode() as inp:
        dag = MultiOutputNode([worker.echo.bind(inp)])
    compiled = dag.experimental_compile()
    print(ray.get(compiled.execute(3)), ray.__name__)
    compiled.teardown()
    """
    use = textwrap.dedent(use)
    nodes = "from ray.dag import InputNode, MultiOutputNode\n"
    by_alias, by_imports = PYTHON.findall(GUIDE.read_text())
    assert script(by_alias + nodes + use) == ["[3] ray"]
    assert script(by_imports + use) == ["[3] runtime"]
    command = ("-m", "compiled_dag", "run")
    assert script("import ray\n" + nodes + use, *command) == ["[3] ray"]


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
    text = README.read_text()
    (shown,) = re.findall(r"^## Seeing a graph\n.*?```\n(.*?)```", text, re.DOTALL | re.MULTILINE)

    class Worker:
        backward = step = None

    workers = paper(2, kind=Worker)
    with InputNode() as batch:
        gradients = allreduce.bind([w.backward.bind(batch) for w in workers], op=ReduceOp.AVG)
        dag = MultiOutputNode([w.step.bind(g) for w, g in zip(workers, gradients, strict=True)])
    assert picture(drawing(dag)) == shown.splitlines()
