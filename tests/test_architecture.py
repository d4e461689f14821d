"""ARCHITECTURE.md has a row for every file, and for none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("collective", "compiled_dag", "runtime")
PACKAGE = re.compile(r"^\*\*(\w+)\*\*.*?(?=^\*\*\w+\*\*|^##)", re.DOTALL | re.MULTILINE)
ROW = re.compile(r"^\| (`.*?) \|(.*)\|$", re.MULTILINE)
NAME = re.compile(r"`([\w/]+)`")


def rows(package):
    """Return the two cells of every row of a package's table."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    (section,) = [found[0] for found in PACKAGE.finditer(text) if found[1] == package]
    return ROW.findall(section)


def found_as(package, names):
    """Return the files and folders that the first cell of a row names: a folder holds on."""
    folder = ""
    for name in names:
        folder = name.rpartition("/")[0] or folder
        tried = [ROOT / package / folder / name.rpartition("/")[2], ROOT / package / name]
        there = [path for path in tried if path.with_suffix(".py").exists() or path.is_dir()]
        assert there, f"{package}: {name} is not there"
        yield there[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_has_a_row_and_every_row_its_files(package) -> None:
    named = []
    for files, job in rows(package):
        named += found_as(package, NAME.findall(files))
        beside = [ROOT / package / name for name in NAME.findall(job)]  # kinds of the file named
        named += [path for path in beside if path.with_suffix(".py").exists()]
    missing = {
        path.relative_to(ROOT / package)
        for path in (ROOT / package).rglob("*.py")
        if not path.name.startswith("__")
        and not {path.with_suffix(""), *path.parents}.intersection(named)
    }
    assert not missing
