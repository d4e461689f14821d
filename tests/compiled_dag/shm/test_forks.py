from __future__ import annotations

import os

from compiled_dag.shm.forks import generation


def test_every_forked_child_has_a_number_of_its_own() -> None:
    before = generation[0]
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        grandchild = os.fork()
        if not grandchild:
            os.write(writer, bytes([generation[0] - before]))
            os._exit(0)
        os.waitpid(grandchild, 0)
        os.write(writer, bytes([generation[0] - before]))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        assert stream.read() == b"\2\1"
    assert generation[0] == before
