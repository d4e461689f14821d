"""What driver, zygote and actors say to each other. Data only; `runtime.wire` moves it.

Named tuples: calls and replies are made tens of thousands of times a second, and defining a
dataclass takes five times as long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compiled_dag.host import ActorId
    from runtime.parcel import Parcel
    from runtime.spare import Spare

# --- driver to actor ------------------------------------------------------------------------------


class Call(NamedTuple):
    """Run a method. The first message of every actor is a call of ``__init__``."""

    number: int
    """Comes back in the `Reply`."""
    method: bytes
    num_returns: int
    parcels: Sequence[Parcel]
    """``(args, kwargs)``, then the values of the references among them, by number."""
    spare: Spare | None = None
    """Memory that the result may use."""


class System(NamedTuple):
    """Run a function of this project's own on the actor's main thread."""

    number: int
    function: bytes
    """Pickled by reference."""
    payload: bytes
    fds: Sequence[int]


class Resolved(NamedTuple):
    """The outcome of a reference that the process has asked for, or is likely to."""

    number: int
    error: bytes
    """The exception, pickled, if there is neither a value nor an `Error` in its place."""
    parcels: Sequence[Parcel]
    """One, or none if there is an exception."""


class Answer(NamedTuple):
    """To an `Ask`."""

    number: int
    failed: bool
    data: bytes
    """What was asked for, pickled, or the exception."""


class AnswerWith(NamedTuple):
    """As `Answer`, with descriptors."""

    number: int
    data: bytes
    fds: Sequence[int] = ()
    failed: bool = False


class Cancel(NamedTuple):
    """Do not run this call, or end it if it is a coroutine or on a thread."""

    number: int


class Died(NamedTuple):
    """An actor has died."""

    actor_id: ActorId
    error: bytes
    """Why: the pickled exception."""


class Stop:
    """End after the calls sent before."""

    __slots__ = ()


# --- actor to driver ------------------------------------------------------------------------------


class Reply(NamedTuple):
    """A call has ended: one parcel per return value, or one that holds an `Error`."""

    number: int
    parcels: Sequence[Parcel]


class SystemReply(NamedTuple):
    """A system function has returned, or raised."""

    number: int
    failed: bool
    data: bytes
    """What it returned; the pickled exception if it failed."""


class Put(NamedTuple):
    """Keep a value under a number."""

    number: int
    parcels: Sequence[Parcel]


class Item(NamedTuple):
    """A generator that was called has yielded."""

    number: int
    """Of the call."""
    position: bytes
    """How many came before, as 8 bytes."""
    parcels: Sequence[Parcel]


class Submit(NamedTuple):
    """Do something, without an answer; results go to references numbered by the sender."""

    number: int
    head: bytes
    """A pickled `TaskRequest` or `CallRequest`; the name of a function to keep for tasks, under
    `number`, if that is not 0."""
    parcels: Sequence[Parcel]


class TaskRequest(NamedTuple):
    """Run a task."""

    function: int
    options: Any
    numbers: Sequence[int]
    """Of the results' references."""
    needed: Sequence[int]
    """References among the arguments whose values are meant."""


class CallRequest(NamedTuple):
    """Call an actor."""

    actor_id: int
    method: str
    retry: Retry | None
    streams: bool
    numbers: Sequence[int]
    needed: Sequence[int]


class Retry(NamedTuple):
    """How often a call may be made again, and after what."""

    attempts: int | None
    """After the actor's death; -1: for ever; None: as the actor says."""
    exceptions: bool | tuple[type[BaseException], ...] = False
    """After which of the method's own exceptions, too."""


class Want(NamedTuple):
    """Send the outcomes of these references when they are known."""

    numbers: Sequence[int]
    blocks: bool
    """The task that runs here waits for them: its CPUs are free for others meanwhile."""


class GoesOn:
    """The task that waited runs again."""

    __slots__ = ()


class Release(NamedTuple):
    """These references are gone here, with so many arrivals of each."""

    counts: Sequence[tuple[int, int]]


class Skipped(NamedTuple):
    """A task was not begun, because the driver had taken it back."""

    number: int


class Ask(NamedTuple):
    """Ask the driver for something and wait for the `Answer`."""

    number: int
    what: bytes
    """Name of the question and its arguments, pickled."""
    parcels: Sequence[Parcel]


class AskWith(NamedTuple):
    """As `Ask`, with descriptors instead of parcels."""

    number: int
    what: bytes
    fds: Sequence[int] = ()


class WatchDeaths:
    """Send a `Died` for every death from now on."""

    __slots__ = ()


# --- driver to zygote -----------------------------------------------------------------------------


class Spawn(NamedTuple):
    """Start an actor's process. Descriptors: control socket, output, errors, stacks."""

    actor_id: int
    class_name: str
    line: int
    """On the board."""
    environment: Mapping[str, str]
    num_threads: int | None
    """For torch; None leaves it to the environment."""
    folder: str
    path: tuple[str, ...]
    """``sys.path``"""
    gpu_ids: tuple[int | str, ...]
    max_concurrency: int | None
    """Calls at once; None: one, or many if the class has coroutine methods."""
    concurrency_groups: Mapping[str, int]
    graph_defaults: Mapping[str, Any]
    """What the driver changed in its `DAGContext`."""
    fresh: bool
    """Start a new interpreter: the environment matters to libraries imported already."""
    fds: tuple[int, ...] = ()


class AddStage(NamedTuple):
    """Fork a zygote that imports torch besides. Descriptor: its control socket."""

    fds: tuple[int, ...] = ()


# --- zygote to driver -----------------------------------------------------------------------------


class Ready(NamedTuple):
    """The zygote has imported what it had to. Descriptor: its pidfd."""

    pid: int
    fds: tuple[int, ...] = ()


class Spawned(NamedTuple):
    """An actor's process exists. Descriptor: its pidfd."""

    actor_id: int
    pid: int
    fds: tuple[int, ...] = ()


class SpawnFailed(NamedTuple):
    """The kernel refused a process."""

    actor_id: int
    reason: str


class Exited(NamedTuple):
    """An actor's process has ended and is gone, with everything it started."""

    actor_id: int
    pid: int
    status: int
    """As from `os.waitstatus_to_exitcode`: negative for a signal."""


Message: TypeAlias = (
    Call
    | System
    | Stop
    | Resolved
    | Answer
    | AnswerWith
    | Cancel
    | Reply
    | SystemReply
    | Put
    | Item
    | Submit
    | Want
    | GoesOn
    | Release
    | Skipped
    | Ask
    | AskWith
    | WatchDeaths
    | Died
    | Spawn
    | AddStage
    | Ready
    | Spawned
    | SpawnFailed
    | Exited
)
