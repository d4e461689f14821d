"""Whether a session uses torch: what is seen of an import, and of code."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types

import pytest

from runtime import torch_use
from runtime.parcel import Parcel


@pytest.fixture
def noted(monkeypatch):
    """Watch a process that has not imported torch; yield what was noted."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(sys, "path", [sys.path[0]])
    found = []
    torch_use.watch(lambda: found.append(1))
    yield found
    torch_use.watch(None)


def test_the_beginning_of_an_import_is_seen_and_nothing_is_changed(noted):
    assert not torch_use.is_imported()
    assert noted == []
    with pytest.raises(ModuleNotFoundError, match="torch"):
        importlib.import_module("torch")
    assert noted == [1]
    assert importlib.util.find_spec("no_such_module") is None
    assert noted == [1]


def test_nobody_is_told_after_the_end(noted):
    torch_use.watch(None)
    assert importlib.util.find_spec("torch") is None
    assert noted == []


def test_what_was_imported_before_is_seen_at_once(noted, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    torch_use.watch(lambda: noted.append(2))
    assert noted == [2]


def test_there_is_one_finder_however_many_sessions_there_were(noted):
    torch_use.watch(lambda: None)
    assert sys.meta_path.count(torch_use._Finder) == 1


def function_of(source):
    space = {"__name__": "__main__"}
    exec(source, space)
    return space["f"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f():\n    return 1", False),
        ("def f():\n    return 'a torchbearer'", False),
        ("def f():\n    import torch\n    return torch.ones(1)", True),
        ("def f():\n    import torch.nn as nn\n    return nn", True),
        ("def f():\n    from torch.nn import functional\n    return functional", True),
        ("class f:\n    def g(self):\n        import torch", True),
        ("def g():\n    import torch\ndef f():\n    return g()", True),
    ],
)
@pytest.mark.parametrize("ballast", [b"", bytes(1 << 20)])
def test_code_that_refers_to_torch_is_known(source, expected, ballast):
    assert torch_use.is_in(Parcel.of((function_of(source), ballast))) is expected
