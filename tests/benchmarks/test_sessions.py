"""Check who is stopped while others are measured."""

from __future__ import annotations

import subprocess
import sys

import pytest

LEADER = """
import os, subprocess, sys
from pathlib import Path
from benchmarks.sessions import parked
from tests.live import wait_until

def state(child):
    text = Path(f"/proc/{child.pid}/stat").read_text()
    return text[text.rindex(")") + 2]

sleep = [sys.executable, "-c", "import time; time.sleep(1000)"]
children = [subprocess.Popen(sleep, preexec_fn=begin) for begin in (None, os.setpgrp)]
try:
    for _ in range(2):
        with parked():
            wait_until(lambda: all(state(child) == "T" for child in children))
        wait_until(lambda: all(state(child) in "RSD" for child in children))
finally:
    for child in children:
        child.kill()
        child.wait()
"""


@pytest.mark.proc
def test_all_others_of_the_session_are_stopped_in_the_block():
    subprocess.run([sys.executable, "-c", LEADER], check=True, timeout=240, start_new_session=True)
