"""The table of Ray's names: what it promises is here, and it knows every name of Ray's."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import exceptions
from runtime.alias import entries, guide
from runtime.alias.entries import Here, Later, Missing
from runtime.alias.table import MODULES

ROOT = Path(__file__).resolve().parents[3]
RECORDED = ROOT / "tests" / "differential" / "ray-names.json"
"""What the real Ray 2.60 has: written by `make differential`."""

ALL = [(module, name, entry) for module, rows in MODULES.items() for name, entry in rows.items()]
OFFERED = [item for item in ALL if isinstance(item[2], Here)]


@pytest.mark.parametrize(("module", "name", "entry"), OFFERED, ids=lambda x: getattr(x, "where", x))
def test_what_is_offered_exists(module, name, entry) -> None:
    entries.resolve(f"{module}.{name}", entry)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_has_its_parents(module) -> None:
    parent = module.rpartition(".")[0]
    assert parent == "" or parent in MODULES


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_name_of_rays_is_known(module) -> None:
    recorded = json.loads(RECORDED.read_text())[module]
    known = {*MODULES[module], *(name.rpartition(".")[2] for name in below(module))}
    assert sorted(set(recorded["public"]) - known) == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_name_in_the_table_is_rays(module) -> None:
    recorded = json.loads(RECORDED.read_text())[module]
    assert sorted(MODULES[module].keys() - set(recorded["all"])) == []


def below(module):
    return [name for name in MODULES if name.rpartition(".")[0] == module]


def test_no_name_is_both_a_module_and_an_entry() -> None:
    assert [f"{module}.{name}" for module, name, _ in ALL if f"{module}.{name}" in MODULES] == []


def test_entries_say_something() -> None:
    for module, name, entry in ALL:
        match entry:
            case Later(_, instead):
                assert instead, (module, name)
            case Missing(why, _):
                assert why, (module, name)


def test_every_exception_of_ours_can_be_caught_by_a_name_of_rays() -> None:
    rows = {**MODULES["ray.exceptions"], **MODULES["ray.actor"]}
    named = tuple(
        entries.resolve(name, entry)
        for name, entry in rows.items()
        if isinstance(entry, Here) and name.endswith(("Error", "Exception", "Exceeded"))
    )
    for name in exceptions.__all__:
        assert issubclass(getattr(exceptions, name), named), name


def test_the_installed_ray_is_the_recorded_one() -> None:
    """Where there is a Ray: has it the names that were recorded?"""
    ray = pytest.importorskip("ray", reason="the real Ray is not installed here")
    assert ray.__version__ == "2.60.0"
    script = ROOT / "tests" / "differential" / "names.py"
    done = subprocess.run(
        [sys.executable, script, *sorted(MODULES)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == json.loads(RECORDED.read_text())


# --- the guide


def test_the_guide_has_the_table() -> None:
    path = ROOT / "docs" / "migrating-from-ray.md"
    text = path.read_text()
    assert guide.with_table(text) == text, "run: python -m runtime.alias.guide"


def test_the_listing_says_where_a_name_is_and_what_to_use_instead() -> None:
    lines = guide.listing(["ray.exceptions", "ray.cluster_utils"]).splitlines()
    assert lines[0] == "ray.exceptions"
    assert "  RayTaskError  =  runtime.exceptions.TaskError" in lines
    assert any(line.startswith("  Cluster  -  ") and "Instead: " in line for line in lines)


# --- resolving


def test_later_works_as_soon_as_it_exists(tmp_path, monkeypatch) -> None:
    entry = Later("alias_later_module:thing", "wait")
    assert not entries.exists(entry)
    with pytest.raises(entries.UnresolvedError, match="does not offer ray.thing: it is not there"):
        entries.resolve("ray.thing", entry)
    (tmp_path / "alias_later_module.py").write_text("thing = 1")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert entries.resolve("ray.thing", entry) == 1


def test_a_module_that_lacks_what_it_needs_says_so(tmp_path, monkeypatch) -> None:
    (tmp_path / "alias_needy_module.py").write_text("import no_such_package_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError, match="no_such_package_anywhere"):
        entries.exists(Later("alias_needy_module:thing", "wait"))
