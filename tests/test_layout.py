"""What holds for the packages as a whole: exports, file sizes, what an import loads."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("collective", "compiled_dag", "runtime")
MAX_LINES = 400
IMPORT_TIMEOUT_S = 240
OPTIONAL = ("cupy", "graphviz", "ray", "torch")

# A file here may exceed MAX_LINES, for the reason given.
LONG_FILES: dict[str, str] = {}


SHIM = ROOT / "runtime" / "alias" / "shim"
"""A folder for PYTHONPATH, no package of ours."""


def sources() -> list[Path]:
    found = chain.from_iterable((ROOT / package).rglob("*.py") for package in PACKAGES)
    return sorted(path for path in found if SHIM not in path.parents)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def run_fresh(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in an interpreter that has imported nothing of ours."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=IMPORT_TIMEOUT_S,
        check=False,
    )


def export_order(name: str) -> tuple[int, list[str | int]]:
    """Return the sort key of ruff's RUF022: constants, classes, the rest; digits as numbers."""
    rank = 0 if len(name) > 1 and name.isupper() else 1 if name[0].isupper() else 2
    parts = re.split(r"(\d+)", name)
    return rank, [int(part) if part.isdigit() else part for part in parts]


@pytest.mark.proc
def test_importing_the_packages_loads_neither_torch_nor_cupy() -> None:
    done = run_fresh(
        f"import {', '.join(PACKAGES)}, sys; print(*({{'torch', 'cupy'}} & sys.modules.keys()))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


@pytest.mark.proc
def test_what_actors_are_forked_from_has_numpy_and_no_torch() -> None:
    done = run_fresh(
        "import sys, runtime.zygote; print('numpy' in sys.modules, 'torch' in sys.modules)"
    )
    assert done.stdout.split() == ["True", "False"], done.stderr


@pytest.mark.proc
def test_importing_the_packages_imports_only_what_most_scripts_need() -> None:
    done = run_fresh(
        "import sys, numpy; before = set(sys.modules)\n"
        f"import {', '.join(PACKAGES)}; print(*(sys.modules.keys() - before))"
    )
    assert done.returncode == 0, done.stderr
    found = set(done.stdout.split())
    assert found & LATE == set(), "import these in the functions that use them"
    own = sorted(name for name in found if name.partition(".")[0] in PACKAGES)
    assert len(own) <= MOST_AT_FIRST, own
    assert len(found) - len(own) <= MOST_OTHERS_AT_FIRST, sorted(found.difference(own))


LATE = {
    *("asyncio", "cloudpickle", "concurrent.futures", "difflib", "json", "logging", "pathlib"),
    *("socket", "subprocess", "uuid"),
    *("compiled_dag.driver", "compiled_dag.options", "compiled_dag.program", "compiled_dag.scan"),
    *("runtime.listing", "runtime.messages", "runtime.parcel", "runtime.session", "runtime.wire"),
}
"""What is imported with the first session, actor or graph, or never, but not with the packages."""

MOST_AT_FIRST = 46
"""Modules of ours, at half a millisecond each: the packages are to take less than 60 ms."""

MOST_OTHERS_AT_FIRST = 20
"""Modules of Python's own."""


@pytest.mark.proc
def test_every_module_can_be_the_first_import() -> None:
    names = [module_name(path) for path in sources() if path.name != "__main__.py"]
    done = run_fresh(IMPORT_EACH, ",".join(PACKAGES), ",".join(OPTIONAL), *names)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


IMPORT_EACH = """
import importlib, os, sys, traceback

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # newer Pythons warn of forks beside other threads
packages, optional, *names = sys.argv[1:]

def attempt(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in optional.split(","):
            traceback.print_exc()
    except BaseException:
        traceback.print_exc()

def in_child(function, *arguments):
    pid = os.fork()
    if not pid:
        function(*arguments)
        sys.stderr.flush()
        os._exit(0)
    os.waitpid(pid, 0)

def attempt_all(package):
    attempt(package)  # which comes before any of its modules, whoever imports that
    for name in names:
        if name.startswith(package + ".") and name not in sys.modules:
            in_child(attempt, name)

for name in ("numpy", "cloudpickle", "torch"):
    attempt(name)  # once for all: what takes long, and knows nothing of us
for package in packages.split(","):
    in_child(attempt_all, package)
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_exports_exist_once_and_in_order(package: str) -> None:
    module = importlib.import_module(package)
    names = list(module.__all__)
    assert [name for name in names if not hasattr(module, name)] == []
    assert names == sorted(set(names), key=export_order)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_say_that_they_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_files_stay_short() -> None:
    lengths = {str(path.relative_to(ROOT)): num_lines(path) for path in sources()}
    too_long = {name: length for name, length in lengths.items() if length > MAX_LINES}
    assert {n: length for n, length in too_long.items() if n not in LONG_FILES} == {}
    assert LONG_FILES.keys() <= too_long.keys(), "an exception in LONG_FILES is needed no more"


def num_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())
