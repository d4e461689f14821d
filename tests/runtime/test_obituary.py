"""What is said about an actor that has ended."""

from __future__ import annotations

import pytest

from runtime import obituary


@pytest.mark.parametrize(
    ("pid", "message"),
    [
        (12, "actor Worker(1) (pid 12) died: runtime.kill() was called"),
        (0, "actor Worker(1) died: runtime.kill() was called"),
    ],
)
def test_an_actor_that_never_had_a_process_has_no_pid(pid, message) -> None:
    error = obituary.of_process("Worker(1)", pid, None, obituary.KILLED, "")
    assert str(error) == message


def test_a_named_actor_is_called_by_its_name_too() -> None:
    error = obituary.of_process("Worker(1)", 12, 3, "", "", "anna")
    assert (
        str(error) == "actor Worker(1) named 'anna' (pid 12) died: its process exited with code 3"
    )


def test_workers_are_no_actors() -> None:
    death = obituary.of_birth("process 3", "no memory")
    assert str(death) == "worker process 3 could not be started: no memory"
    assert str(obituary.of_worker(death)).endswith(str(death))


def test_a_call_without_a_result_names_itself_and_the_death() -> None:
    death = obituary.of_process("Worker(1)", 12, -9, "", "so it goes")
    error = obituary.of_call("Worker.work", death)
    assert str(error).startswith("Worker.work has no result: actor Worker(1) (pid 12) died: killed")
    assert (error.signal, error.stderr_tail) == ("SIGKILL", "so it goes")
    assert str(death).startswith("actor Worker(1)")
