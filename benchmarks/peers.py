"""Run a peer: each work in a process of its environment, bounded in time.

A peer that hangs or fails costs its figures, never the table: the row says what happened instead.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.registry import Config, Peer, peer
from benchmarks.served import ROOT, served

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from benchmarks.rounds import Side

PYTHON_VARIABLE = "COMPILED_DAG_PEER_PYTHON"
_QUIET = {"RAY_DEDUP_LOGS": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}


def python() -> Path:
    """Return the interpreter of the peer's environment.

    Raises:
        FileNotFoundError: There is none; says how to make it.
    """
    found = Path(os.environ.get(PYTHON_VARIABLE) or ROOT / ".peer-venv" / "bin" / "python")
    if not found.exists():
        raise FileNotFoundError(
            f"no interpreter for the peer at {found}: `make bench` makes one, or set "
            f"{PYTHON_VARIABLE} to one that can import ray"
        )
    return found


def environment() -> dict[str, str]:
    """Return the environment of a peer's process: it finds this package, and is quiet."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **_QUIET, "PYTHONPATH": str(ROOT)}


def serving(name: str, what: str, config: Config) -> AbstractContextManager[Side]:
    """Start a work in the environment of the peer; every failure of it is a `SideFailedError`."""
    arguments = [str(python()), "-m", "benchmarks.serve", name, what, str(config.trips)]
    return served(name, arguments, environment())


peer(Peer(name="ray", help="Ray in the environment that `make bench` makes", open=serving))
