"""Exceptions are retried if asked for."""

import tempfile
from pathlib import Path

import ray
from seen import attempt


@ray.remote(max_retries=2, retry_exceptions=[ValueError])
def sometimes(path, kind):
    attempts = path.read_text() if path.exists() else ""
    path.write_text(attempts + "x")
    if len(attempts) < 2:
        raise kind("again")
    return len(attempts) + 1


with tempfile.TemporaryDirectory() as folder:
    print(ray.get(sometimes.remote(Path(folder, "a"), ValueError)))
    attempt(lambda: ray.get(sometimes.remote(Path(folder, "b"), KeyError)), "KeyError")
