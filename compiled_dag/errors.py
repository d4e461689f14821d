"""The exception tree of the whole project.

Every class is importable from ``compiled_dag`` and from ``runtime.exceptions``. An application
error (user code raised, or a user value was wrong) is a `TaskError` and leaves the graph usable; a
`SystemFaultError` or an `ActorDiedError` means that a process, a channel or a limit failed.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ActorAlreadyExistsError",
    "ActorClassInheritanceError",
    "ActorDiedError",
    "ActorError",
    "ActorGoneError",
    "ActorHandleNotFoundError",
    "ActorSetupError",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "CapacityExceededError",
    "ChannelClosedError",
    "ChannelError",
    "ChannelTimeoutError",
    "CollectiveError",
    "CollectiveMismatchError",
    "CollectiveTimeoutError",
    "DeadlockError",
    "DeserializationError",
    "DeviceError",
    "ExecutionDroppedError",
    "ExecutorError",
    "GetTimeoutError",
    "GraphActorDiedError",
    "GraphError",
    "GraphUsageError",
    "MemoryCapError",
    "ObjectLostError",
    "ObjectStoreFullError",
    "OwnerDiedError",
    "PendingCallsLimitError",
    "RuntimeEnvSetupError",
    "SubmitTimeoutError",
    "SystemFaultError",
    "TaskCancelledError",
    "TaskError",
    "TaskUnschedulableError",
    "UnserializableError",
    "WorkerCrashedError",
]


class ExecutorError(Exception):
    """Base of every exception this project raises on its own account."""


class TaskError(ExecutorError):
    """User code, or a user value, failed inside an actor.

    What `get` raises is an instance of this class *and* of the cause's class, so that
    ``except ValueError`` works across the process boundary (see `compiled_dag.outcome`).

    Attributes:
        cause: The exception as it was raised, or None when it could not be pickled.
        node: ``Class.method`` and the node number, with the place of its ``.bind()``.
        actor: The actor's label, for example ``Worker(3)``.
        rank: The actor's rank in the collective that failed, or None.
        execution: Number of the execution, or None for an ordinary call.
        traceback_text: The remote traceback as text.
    """

    cause: BaseException | None = None
    node: str | None = None
    actor: str | None = None
    rank: int | None = None
    execution: int | None = None
    traceback_text: str = ""
    outcome: Any = None
    """The `compiled_dag.outcome.Error` this exception was made from: what pickling it carries."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> Any:
        if self.outcome is None:
            return type(self), self.args
        return _exception_of, (self.outcome,)


def _exception_of(outcome: Any) -> BaseException:
    exception: BaseException = outcome.exception()
    return exception


class TaskCancelledError(ExecutorError):
    """The task was cancelled before it finished."""


class WorkerCrashedError(ExecutorError):
    """The worker process of a task died."""


class RuntimeEnvSetupError(ExecutorError):
    """A worker could not be set up with the requested environment."""


class PendingCallsLimitError(ExecutorError):
    """An actor has as many queued calls as its `max_pending_calls` allows."""


class TaskUnschedulableError(ExecutorError):
    """A task asks for resources that this session can never give."""


class ActorUnschedulableError(ExecutorError):
    """An actor asks for resources that this session can never give."""


class ObjectStoreFullError(ExecutorError):
    """Memory for an object could not be had."""


class UnserializableError(ExecutorError):
    """An exception or value could not be carried to another process."""


class ObjectLostError(ExecutorError):
    """The value of a reference no longer exists."""


class OwnerDiedError(ObjectLostError):
    """The process that owned the value of a reference died."""


class GetTimeoutError(ExecutorError, TimeoutError):
    """An ordinary reference was not ready in time."""


class ActorError(ExecutorError):
    """An actor cannot serve the call."""


class ActorDiedError(ActorError):
    """An actor's process ended, or its constructor failed.

    Attributes:
        exit_code: The exit code, when the process ended by itself.
        signal: Name of the signal that ended it, for example ``"SIGKILL"``.
        node: The node it was in, when it died inside a graph.
        execution: The execution it was in, when it died inside a graph.
        stderr_tail: The last lines it wrote to its standard error.
        cause: The exception its constructor raised, if that is why it died.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int | None = None,
        signal: str | None = None,
        node: str | None = None,
        execution: int | None = None,
        stderr_tail: str = "",
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.signal = signal
        self.node = node
        self.execution = execution
        self.stderr_tail = stderr_tail
        self.cause = cause

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), self.args, self.__dict__)


class ActorGoneError(ActorDiedError, RuntimeError):
    """A method of an actor that has died is bound: no graph can be made of it."""


class ActorSetupError(ActorDiedError, RuntimeEnvSetupError):
    """An actor's process could not be set up with the requested environment."""


class ActorUnavailableError(ActorError):
    """An actor is restarting and cannot serve the call now."""


class ActorAlreadyExistsError(ValueError, ExecutorError):
    """The name asked for belongs to another live actor."""


class ActorHandleNotFoundError(ValueError, ExecutorError):
    """The handle belongs to a session that has ended."""


class ActorClassInheritanceError(TypeError, ExecutorError):
    """A remote class was used as a base class."""


class SystemFaultError(ExecutorError):
    """A channel, a limit or the transport failed, not the user's code."""


class ChannelError(SystemFaultError):
    """The graph's channels can no longer be used."""


class ChannelClosedError(ChannelError):
    """The graph was torn down."""


class DeviceError(ChannelError):
    """A GPU, or what it takes to use one, failed or is missing.

    Attributes:
        status: CUDA's error number, or 0.
        is_lost: Whether the process can use its GPU no more.
    """

    status: int = 0
    is_lost: bool = False


class ChannelTimeoutError(ChannelError, TimeoutError):
    """An execution did not make room, or did not finish, in time. Nothing is lost: try again.

    Attributes:
        report: Who was where when the time ran out, who waits for whom, and the Python stack of
            whoever waits for nobody (`compiled_dag.hang.HangReport` as text). One line for
            time-outs under a second, and when another was reported within a second; empty for
            polls.
    """

    report: str = ""


class CapacityExceededError(SystemFaultError):
    """More executions are unfetched than the graph's limits allow."""


class SubmitTimeoutError(CapacityExceededError, ChannelTimeoutError):
    """An `execute` that waits for room found none in time. Nothing was started.

    Attributes:
        report: See `ChannelTimeoutError`.
    """


class ExecutionDroppedError(CapacityExceededError):
    """The execution made room for a newer one."""


class MemoryCapError(CapacityExceededError):
    """A channel may not, or cannot, have the memory a value needs."""


class DeserializationError(SystemFaultError):
    """A reader could not rebuild a value that the writer sent."""


class GraphActorDiedError(ActorDiedError, ChannelError):
    """An actor of the graph died, and the graph with it. Recompile on the survivors."""


class GraphError(ExecutorError, ValueError):
    """The graph, or a compile option, is wrong."""


class GraphUsageError(GraphError, AssertionError):
    """A graph construct was used in a way it does not allow."""


class DeadlockError(GraphError):
    """The graph would wait for itself; the message shows the cycle."""


class CollectiveError(ExecutorError):
    """A collective operation failed."""


class CollectiveMismatchError(CollectiveError, ValueError):
    """Ranks disagree on operation, reduce op, dtype, shape, root or device."""


class CollectiveTimeoutError(CollectiveError, TimeoutError):
    """A rank did not arrive in time."""
