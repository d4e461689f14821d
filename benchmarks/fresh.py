"""Run a part of a case in a fresh interpreter, ours or a peer's."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks import peers

if TYPE_CHECKING:
    from benchmarks.registry import Config, Row

LIMIT_S = 120.0


def load(name: str, number: int, system: str = "ours") -> Row:
    """Return the row of a load, see `benchmarks.load`.

    Raises:
        RuntimeError: It failed.
        subprocess.TimeoutExpired: It hangs.
    """
    mine = system == "ours"
    python = sys.executable if mine else str(peers.python())
    done = subprocess.run(
        [python, "-m", "benchmarks.load", name, str(number), system],
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=None if mine else peers.environment(),
    )
    if done.returncode:
        raise RuntimeError(f"benchmarks.load {name} ended with {done.returncode}:\n{done.stderr}")
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def beside_peer(config: Config, name: str, number: int, figure: str) -> Row:
    """Return the row of a load with a peer's `figure` and how many times ours that is."""
    row = load(name, number)
    if config.peer is None:
        return row
    peer = config.peer.name
    try:
        theirs = load(name, number, peer)[figure]
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return row | {f"{peer}_error": str(error).splitlines()[-1]}
    mine = row[figure]
    assert isinstance(theirs, float)
    assert isinstance(mine, float)
    unit = figure.removeprefix("ours_")
    return row | {f"{peer}_{unit}": theirs, f"{peer}_ratio": round(theirs / max(mine, 1e-3), 2)}
