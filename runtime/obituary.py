"""What is said about an actor that has ended. Pure."""

from __future__ import annotations

import copy
import signal
from typing import Final

from compiled_dag.errors import (
    ActorDiedError,
    ActorError,
    ActorGoneError,
    ActorSetupError,
    ActorUnavailableError,
    RuntimeEnvSetupError,
    TaskError,
    WorkerCrashedError,
)

UNUSED: Final = "its last handle went away"
KILLED: Final = "runtime.kill() was called"
SESSION_ENDED: Final = "the session ended (runtime.shutdown)"


def of_process(
    label: str,
    pid: int,
    status: int | None,
    reason: str,
    stderr_tail: str,
    name: str | None = None,
) -> ActorDiedError:
    """Return the error for a process that ended.

    Args:
        label: ``Class(id)``.
        pid: Its process id; 0 if it never had a process.
        status: Exit code, negative for a signal; None if nobody could tell.
        reason: Why this session ended it, or empty.
        stderr_tail: The last lines of its standard error.
        name: What the user has named it.
    """
    if reason == UNUSED and status != 0:
        reason = ""  # it was to end, but this is another end
    killer = None if status is None or status >= 0 else _signal_name(-status)
    who = label if name is None else f"{label} named {name!r}"
    who += f" (pid {pid})" if pid else ""
    message = f"{_who(who)} died: {_how(status, killer, reason)}"
    if stderr_tail and not reason:
        indented = stderr_tail.replace("\n", "\n  ")
        message += f"\n\nlast lines of its standard error:\n  {indented}"
    return ActorDiedError(
        message,
        exit_code=status if status is not None and status >= 0 else None,
        signal=killer,
        stderr_tail=stderr_tail,
    )


def _who(label: str) -> str:
    return f"worker {label}" if label.startswith("process ") else f"actor {label}"


def _how(status: int | None, name: str | None, reason: str) -> str:
    if reason:
        return reason
    if status is None:
        return "how is not known: its parent process, the zygote, is gone or does not answer"
    if name == "SIGKILL":
        return "killed by signal SIGKILL (by hand, or by the kernel for lack of memory: see dmesg)"
    if name is not None:
        return f"killed by signal {name}"
    return f"its process exited with code {status}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names of their own
        return f"signal {number}"


def of_constructor(label: str, error: BaseException) -> ActorDiedError:
    """Return the error for an actor whose constructor raised."""
    cause = error.cause if isinstance(error, TaskError) else error
    return ActorDiedError(f"actor {label} has no instance: {error}", cause=cause)


def of_birth(label: str, reason: str) -> ActorDiedError:
    """Return the error for an actor that never had a process."""
    return ActorDiedError(f"{_who(label)} could not be started: {reason}")


def of_set_up(label: str, error: RuntimeEnvSetupError) -> ActorSetupError:
    """Return the error for an actor that cannot have the environment it was asked to have."""
    return ActorSetupError(f"{_who(label)} could not be started: {error}", cause=error)


def of_worker(death: ActorDiedError) -> WorkerCrashedError | RuntimeEnvSetupError:
    """Return the error for a task whose worker died."""
    if isinstance(death, ActorSetupError):
        return RuntimeEnvSetupError(str(death))
    return WorkerCrashedError(f"the process that ran the task is gone: {death}")


def of_tasks() -> WorkerCrashedError:
    """Return the error for a task that was still waiting when the session ended."""
    return WorkerCrashedError(f"the task was never run: {SESSION_ENDED}")


def of_restart(label: str, death: ActorDiedError) -> ActorUnavailableError:
    """Return the error for calls that are lost, or not taken, while an actor is made again."""
    return ActorUnavailableError(
        f"actor {label} is being started again, its state is lost; calls that are to survive this "
        f"need max_task_retries. What happened: {death}"
    )


def of_session(label: str) -> ActorDiedError:
    """Return the error for an actor whose session is over."""
    return ActorDiedError(f"{_who(label)} is gone: {SESSION_ENDED}")


def of_call(what: str, death: ActorError) -> ActorError:
    """Return what the caller of ``Class.method`` gets: the death, and which result it cost."""
    return _saying(f"{what} has no result: {death}", death)


def of_bind(what: str, death: ActorError) -> ActorGoneError:
    """Return what is raised for a method that is bound after its actor's death."""
    gone = ActorGoneError(f"{what}.bind(): {death}. Start another actor, and bind its method")
    vars(gone).update(vars(death))
    return gone


def _saying(message: str, death: ActorError) -> ActorError:
    """Return the same death, told in other words."""
    error = copy.copy(death)
    error.args = (message,)
    return error
