"""Drivers in processes of their own, for what cannot be done to the test's process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

HEAD = """
import os, signal, sys, time
import runtime
from tests.runtime.actors import Worker
"""


def start(body: str) -> subprocess.Popen[str]:
    """Start a driver; its standard output and error are pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + body],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(body: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a driver to its end."""
    with start(body) as process:
        out, err = process.communicate(timeout=timeout_s)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
