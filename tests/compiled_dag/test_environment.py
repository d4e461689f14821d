"""The variables that configure graphs and sessions."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path

import pytest

import runtime
from compiled_dag import DAGContext, environment

ROOT = Path(__file__).parents[2]


def test_all_variables_are_known() -> None:
    fields = {item.name.upper() for item in dataclasses.fields(DAGContext)} - {"ENABLE_ASYNCIO"}
    text = "\n".join(
        path.read_text()
        for package in ("compiled_dag", "collective", "runtime")
        for path in (ROOT / package).rglob("*.py")
    )
    named = set(re.findall(r"COMPILED_DAG_([A-Z][A-Z_]*[A-Z])", text))
    looked_up = set(re.findall(r'environment\.lookup\("([A-Z_]+)"\)', text))
    assert fields | named | looked_up == environment.NAMES


def test_a_misspelt_one_is_told_with_the_name_that_may_be_meant(monkeypatch) -> None:
    monkeypatch.setenv("COMPILED_DAG_GET_TIMEOUTS", "3")
    with pytest.warns(
        UserWarning, match=r"_GET_TIMEOUTS has no effect; did you mean COMPILED_DAG_G"
    ):
        environment.warn_of_misspelt()


@pytest.mark.parametrize("name", ["COMPILED_DAG_GET_TIMEOUT", "COMPILED_DAG_OF_MINE_X", "HOME"])
def test_others_are_not_told(monkeypatch, name) -> None:
    monkeypatch.setenv(name, "3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        environment.warn_of_misspelt()


@pytest.mark.proc
def test_a_session_tells_it_at_the_line_of_the_user(monkeypatch, no_leaks) -> None:
    monkeypatch.setenv("COMPILED_DAG_WAITMODE", "eco")
    with pytest.warns(UserWarning, match=r"did you mean COMPILED_DAG_WAIT_MODE\?") as told:
        runtime.init(num_cpus=1)
    runtime.shutdown()
    assert [warning.filename for warning in told] == [__file__]
