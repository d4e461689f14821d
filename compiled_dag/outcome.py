"""What a node produces: a value, or an `Error` that travels in its place.

A user exception is a value. It moves through channels and replies as an `Error` (plain strings and
pickled bytes, so that moving it can never fail), skips the methods that depend on it, and becomes
an exception again only where somebody asks for the result: `Error.exception()`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import io
import os
import pickle
import sys
import traceback
from dataclasses import dataclass
from types import GetSetDescriptorType, MemberDescriptorType
from typing import TYPE_CHECKING, Any

from compiled_dag.errors import TaskError
from compiled_dag.lending import LENDERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

_OWN_FOLDERS = tuple(
    os.path.join(os.path.dirname(os.path.dirname(__file__)), package, "")
    for package in ("compiled_dag", "collective", "runtime")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where user code ran: what error messages and reports call a node."""

    method: str
    """``Class.method``"""
    actor: str
    """The actor's label, ``Class(index)``"""
    node: int | None = None
    """Node number in the graph; None for an ordinary call."""
    source: str = ""
    """``file:line`` of the ``.bind()``."""

    def shortened(self, limit: int) -> Place:
        """Return this place with at most `limit` characters in each name."""
        return dataclasses.replace(
            self,
            method=self.method[:limit],
            actor=self.actor[:limit],
            source=self.source[-limit:],
        )

    def __str__(self) -> str:
        if not self.actor:
            return f"task {self.method}"
        if self.node is None:
            return f"{self.method} on actor {self.actor}" if self.actor else self.method
        bound = f", bound at {self.source}" if self.source else ""
        return f"{self.method} (node {self.node}{bound}) on actor {self.actor}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """A failed node's outcome, ready to travel."""

    cause: bytes | None
    """The exception, pickled; None if that was not possible."""
    summary: str
    """``ClassName: text`` of the exception."""
    traceback_text: str
    place: Place | None = None
    rank: int | None = None
    execution: int | None = None
    references: tuple[Any, ...] = ()
    """What the exception refers to and is lent, not copied: `cause` has their places only, so that
    they are kept as long as this is."""

    @classmethod
    def capture(
        cls,
        exception: BaseException,
        place: Place | None = None,
        *,
        rank: int | None = None,
        execution: int | None = None,
        function: Callable[..., Any] | None = None,
    ) -> Error:
        """Freeze `exception` with its traceback, less this project's own frames.

        Args:
            exception: What was raised.
            place: Where.
            rank: Of the collective, if in one.
            execution: Of the graph, if in one.
            function: The user's code that it is about: told where no frame is the user's, as when
                what it returned cannot be sent.
        """
        cause, references = _pickled(exception)
        return cls(
            cause=cause,
            references=references,
            summary=_summary(exception),
            traceback_text=_traceback_text(exception, function),
            place=place,
            rank=rank,
            execution=execution,
        )

    def at(self, *, rank: int | None = None, execution: int | None = None) -> Error:
        """Return this error with rank or execution filled in, where not known yet."""
        return dataclasses.replace(
            self,
            rank=rank if self.rank is None else self.rank,
            execution=execution if self.execution is None else self.execution,
        )

    def shortened(self, limit: int) -> Error:
        """Return this error without its cause and with at most `limit` characters in each text."""
        return dataclasses.replace(
            self,
            cause=None,
            references=(),
            summary=self.summary[:limit],
            traceback_text=self.traceback_text[-limit:],
            place=self.place and self.place.shortened(limit),
        )

    def exception(self) -> TaskError:
        """Return the exception to raise: a `TaskError` that is also of the cause's class."""
        cause, detail = self._load_cause()
        error = _instance(cause)
        error.args = (self._message(detail),)
        error.cause = cause
        error.node = None if self.place is None else str(self.place)
        error.actor = None if self.place is None else self.place.actor
        error.rank = self.rank
        error.execution = self.execution
        error.traceback_text = self.traceback_text
        error.outcome = self
        return error

    def _load_cause(self) -> tuple[BaseException | None, str]:
        if self.cause is None:
            return None, " (the exception itself could not be pickled)"
        try:
            cause = _unpickled(self.cause, self.references)
        except Exception as error:  # noqa: BLE001  user code runs in here and may raise anything
            return None, f" (the exception itself could not be rebuilt: {_summary(error)})"
        if not isinstance(cause, BaseException):
            return None, " (the exception pickles as something else)"
        return cause, ""

    def _message(self, detail: str) -> str:
        where = "a remote call" if self.place is None else str(self.place)
        if self.rank is not None:
            where += f", rank {self.rank}"
        if self.execution is not None:
            where += f", in execution {self.execution}"
        text = f"{where}, raised {self.summary}{detail}"
        if self.traceback_text:
            text += f"\n\nremote traceback:\n{self.traceback_text.rstrip()}"
        return text


def _summary(exception: BaseException) -> str:
    try:
        text = str(exception)
    except Exception:  # noqa: BLE001  a user's __str__ may raise anything
        text = "<no text: its __str__ raised>"
    name = type(exception).__name__
    return f"{name}: {text}" if text else name


def _traceback_text(exception: BaseException, function: Callable[..., Any] | None) -> str:
    """Format the traceback from the first frame that is not this project's own.

    An exception that was made and never raised has the traceback of its cause.
    """
    if exception.__traceback__ is None and exception.__cause__ is not None:
        return _traceback_text(exception.__cause__, function)
    inner = _skip_own_frames(exception.__traceback__)
    if inner is None and exception.__traceback__ is None:
        return ""
    about = None if inner is not None or function is None else _definition(function)
    try:
        if about is not None:
            return _text_about(about, exception)
        return "".join(traceback.format_exception(type(exception), exception, inner))
    except Exception:  # noqa: BLE001  a user's __str__ may raise anything
        return "".join(traceback.format_tb(inner))


def _definition(function: Callable[..., Any]) -> traceback.FrameSummary | None:
    """Return where a function of the user's is defined."""
    plain = inspect.unwrap(getattr(function, "__func__", function))
    code = getattr(plain, "__code__", None)
    if code is None or code.co_filename.startswith(_OWN_FOLDERS):
        return None
    return traceback.FrameSummary(code.co_filename, code.co_firstlineno, plain.__qualname__)


def _text_about(about: traceback.FrameSummary, exception: BaseException) -> str:
    """Format an error about what a function returned, and the user's frames below it, if any."""
    below = [] if exception.__cause__ is None else _user_frames(exception.__cause__.__traceback__)
    lines = ["Traceback (most recent call last):\n", *traceback.format_list([about, *below])]
    return "".join([*lines, *traceback.format_exception_only(exception)])


def _user_frames(tb: TracebackType | None) -> list[traceback.FrameSummary]:
    """Return the frames that are neither ours nor cloudpickle's."""
    return [
        frame
        for frame in traceback.extract_tb(tb)
        if not frame.filename.startswith(_OWN_FOLDERS)
        and os.path.basename(os.path.dirname(frame.filename)) != "cloudpickle"
    ]


def _skip_own_frames(tb: TracebackType | None) -> TracebackType | None:
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_OWN_FOLDERS):
        tb = tb.tb_next
    return tb


def _pickled(exception: BaseException) -> tuple[bytes | None, tuple[Any, ...]]:
    """Pickle `exception`, or return None if a round trip does not work; and what is lent in it."""
    file, lent = io.BytesIO(), list[Any]()
    try:
        pickler = _pickler()(file, protocol=5)
        pickler.lent = lent
        pickler.dump(exception)
        _unpickled(file.getvalue(), lent)
    except Exception:  # noqa: BLE001  a user's __str__ may raise anything
        return None, ()
    return file.getvalue(), tuple(lent)


@functools.cache
def _pickler() -> Any:
    """Return a pickler that leaves what is lent out of the bytes."""
    import cloudpickle  # noqa: PLC0415  7 ms that most scripts spend later

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        lent: list[Any]

        def persistent_id(self, value: Any) -> int | None:
            if type(value) not in LENDERS:
                return None
            self.lent.append(value)
            return len(self.lent) - 1

    return Pickler


def _unpickled(data: bytes, lent: Sequence[Any]) -> Any:
    if not lent:
        return pickle.loads(data)
    return _Unpickler(io.BytesIO(data), lent).load()


class _Unpickler(pickle.Unpickler):
    """Puts what was lent back into its places."""

    def __init__(self, file: io.BytesIO, lent: Sequence[Any]) -> None:
        super().__init__(file)
        self._lent = lent

    def persistent_load(self, pid: int) -> Any:
        return self._lent[pid]


# --- from a cause's class to one that is a TaskError too ------------------------------------------

_classes: dict[type[BaseException], type[TaskError]] = {}


def _instance(cause: BaseException | None) -> TaskError:
    """Return a blank `TaskError`, of the cause's class too where such a class can be made."""
    if cause is None:
        return TaskError()
    kind = type(cause)
    try:
        made = _classes.get(kind) or _classes.setdefault(kind, _combine(kind))
        if sys.version_info >= (3, 11) and isinstance(cause, BaseExceptionGroup):  # noqa: F821
            error = made.__new__(made, cause.message, cause.exceptions)
        else:
            error = _blank(made)
        error.__dict__.update(vars(cause))
        _copy_members(cause, error)
    except Exception:  # noqa: BLE001  a user's __str__ may raise anything
        return TaskError()
    return error


def _blank(made: type[TaskError]) -> TaskError:
    if issubclass(made, MemoryError):  # its own is for classes that have it as their first base
        return Exception.__new__(made)
    return made.__new__(made)


def _copy_members(cause: BaseException, error: TaskError) -> None:
    """Copy what is in no ``__dict__``: ``OSError.errno``, ``StopIteration.value``."""
    for kind in type(cause).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, MemberDescriptorType | GetSetDescriptorType) and name[0] != "_":
                # Some are read-only, some are not there; `args` is set by the caller.
                with contextlib.suppress(AttributeError, TypeError):
                    setattr(error, name, getattr(cause, name))


def _combine(kind: type[BaseException]) -> type[TaskError]:
    if issubclass(kind, TaskError):
        return kind
    bases = (TaskError, kind) if issubclass(kind, Exception) else (TaskError,)
    # KeyError, OSError and others have a __str__ of their own, which would garble the message.
    body = {"__str__": TaskError.__str__, "__module__": kind.__module__}
    return type(f"TaskError({kind.__name__})", bases, body)
