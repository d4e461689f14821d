"""Remote functions: what users hold of a task's code."""

from __future__ import annotations

import dataclasses
import inspect
import threading
import weakref
from typing import TYPE_CHECKING, Any, NoReturn

from compiled_dag.function_node import FunctionNode
from runtime import lifecycle
from runtime.actor import ActorHandle
from runtime.actor_method import BoundActor
from runtime.checks import STREAM
from runtime.options import TaskOptions
from runtime.signatures import MethodSpec, is_stream, spec_of
from runtime.stream import ObjectRefGenerator

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from compiled_dag.host import Host


class RemoteFunction:
    """A function that runs in worker processes. Made by `runtime.remote`.

    Implements `compiled_dag.bindable.RemoteFunction`.
    """

    __opaque_to_graphs__ = True

    def __init__(
        self,
        function: Callable[..., Any],
        options: TaskOptions,
        declared: Mapping[str, Any] | None = None,
    ) -> None:
        """Make a function remote.

        Args:
            function: The function.
            options: Checked.
            declared: The options as the user gave them.
        """
        self.declared = dict(declared or {})
        self._function: Callable[..., Any] | None = function
        self._options = options
        if is_stream(function) and options.num_returns is None:
            self._options = dataclasses.replace(options, num_returns=STREAM)
        self._spec = spec_of("", function.__name__, function, static=True)
        self._export = _Export()
        self.__name__ = function.__name__
        self.__qualname__ = function.__qualname__
        self.__module__ = function.__module__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function as a task; returns at once.

        Returns:
            An `ObjectRef`; a list of them where `num_returns` is over 1; None where it is 0; an
            `ObjectRefGenerator` for a generator.

        Raises:
            TypeError: The arguments do not fit the signature, or cannot be sent.
        """
        self._spec.check(args, kwargs)
        session = lifecycle.current()
        number = self.export_to(session)
        refs = session.submit_task(number, self._options, args, kwargs)
        count = self._options.num_returns
        if count == STREAM:
            return ObjectRefGenerator(session, refs[0])
        return refs[0] if count in (None, 1) else list(refs) or None

    def options(self, **options: Any) -> RemoteFunction:
        """Return this function with other options.

        Raises:
            ValueError: An unknown option, or a value out of range.
            TypeError: A value of the wrong type.
        """
        other = object.__new__(RemoteFunction)
        other.__dict__.update(self.__dict__)
        other._options = self._options.updated(options)
        inherited = {name: self.declared[name] for name in self.declared if name != "max_calls"}
        other.declared = {**inherited, **options}
        return other

    def bind(self, *args: Any, **kwargs: Any) -> FunctionNode:
        """Draw the call as a node of a graph, without running it.

        Raises:
            TypeError: An argument cannot be sent.
        """
        return FunctionNode(self, args, kwargs)

    @property
    def name(self) -> str:
        """Its name."""
        return self.__name__

    @property
    def function(self) -> Callable[..., Any] | None:
        """The plain function, fetched if it came from another process; None if that is over."""
        session = self._export.session()
        if self._function is None and session is not None and not session.closed:
            self._function = session.get([session.code_of(self._export.number)], None)[0]
        return self._function

    # --- for compiled graphs, which run it in processes of their own

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse arguments that do not fit.

        Raises:
            TypeError: They do not fit.
        """
        self._spec.check(args, kwargs)

    @property
    def host(self) -> Host:
        """The session it would run in."""
        host: Host = lifecycle.current().host
        return host

    @property
    def num_returns(self) -> int:
        """How many values a call is in a graph, where a stream is one."""
        count = self._options.num_returns
        return 1 if count in (None, STREAM) else int(count)

    @property
    def num_gpus(self) -> float:
        """Logical GPUs it asks for."""
        return self._options.num_gpus or 0

    @property
    def needs(self) -> Mapping[str, float]:
        """See `compiled_dag.bindable.Remote.needs`."""
        return self._options.demand.amounts()

    @property
    def holds(self) -> Mapping[str, float]:
        """See `compiled_dag.bindable.Remote.holds`."""
        from runtime.function_worker import worker_options  # noqa: PLC0415  for graphs of functions

        return worker_options(self._options).required.amounts()

    @property
    def kind(self) -> Hashable:
        """Functions of the same kind may share a process; one with GPUs has its own."""
        from runtime.function_worker import kind_of  # noqa: PLC0415  as above

        return kind_of(self._options), id(self._export) if self.num_gpus else None

    @property
    def worker_name(self) -> str:
        """What a process for functions of this kind is called."""
        return self.__name__ if self.num_gpus else "functions"

    def room(self) -> int:
        """Return how many processes of this kind there is room for now; at least 1."""
        from runtime.function_worker import room_for  # noqa: PLC0415  as above

        session = lifecycle.current()
        return room_for(self._options, session.resources("available"))

    def start_worker(self) -> BoundActor:
        """Start a process for functions of this kind."""
        from runtime.function_worker import FunctionWorker, worker_options  # noqa: PLC0415  as above

        session = lifecycle.current()
        options = worker_options(self._options)
        lifeline = session.create(self.worker_name, options, ((FunctionWorker,), {}), {})
        return BoundActor(ActorHandle(lifeline, {}))

    def export_to(self, session: Any) -> int:
        """Have the session keep the function; returns its number there."""
        export = self._export
        with _exporting:
            if export.session() is not session:
                if self._function is None:
                    raise RuntimeError(
                        f"{self!r} arrived here from another process, in a session that has ended: "
                        "its code is not known any more"
                    )
                # First the number: a function that calls itself finds it while it is pickled.
                export.number, export.session = session.next_export(), weakref.ref(session)
                try:
                    session.export_function(export.number, self.__name__, self._function)
                except BaseException:
                    export.session = _nowhere
                    raise
        return export.number

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refuse: it would run here."""
        raise TypeError(
            f"{self.__name__} is a remote function: {self.__name__}.remote(...) runs it as a task, "
            f"{self.__name__}.__wrapped__(...) runs it here"
        )

    def __reduce__(self) -> Any:
        session = lifecycle.running()
        if session is None:
            return RemoteFunction, (self._function, self._options, self.declared)
        number = self.export_to(session)
        spec = self._spec.without_function()
        return _received, (
            number,
            spec,
            self._options,
            self.declared,
            self.__qualname__,
            self.__module__,
        )

    def __repr__(self) -> str:
        return f"<remote function {self.__module__}.{self.__qualname__}>"


_exporting = threading.RLock()
"""One for all functions, which may refer to each other: nobody uses a number before the code."""


def _nowhere() -> None:
    """Stand for the reference to a session where there is none."""


class _Export:
    """Which session keeps the function, under which number."""

    __slots__ = ("number", "session")

    def __init__(self, session: Callable[[], Any] = _nowhere, number: int = 0) -> None:
        self.session = session
        """Weak: the function is often a global, and outlives sessions."""
        self.number = number


def _received(
    number: int,
    spec: MethodSpec,
    options: TaskOptions,
    declared: Mapping[str, Any],
    qualname: str,
    module: str,
) -> RemoteFunction:
    """Return a remote function in a process that need not have its code."""
    made = object.__new__(RemoteFunction)
    made._function = None
    made._options = options
    made.declared = dict(declared)
    made._spec = spec
    session = lifecycle.running()
    made._export = _Export(_nowhere if session is None else weakref.ref(session), number)
    made.__name__ = spec.name
    made.__qualname__ = qualname
    made.__module__ = module
    made.__doc__ = None
    return made


def make_remote_function(function: Any, declared: Mapping[str, Any]) -> RemoteFunction:
    """Make a function remote.

    Raises:
        ValueError: It is a coroutine function, or an option is wrong.
        TypeError: An option is of the wrong type.
    """
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ValueError(
            f"{function.__name__} is a coroutine function: a task is a plain function. Use a "
            "method of an actor, which may be a coroutine, or call asyncio.run in it"
        )
    if declared.get("num_gpus") and declared.get("max_calls") is None:
        # What a library keeps on a GPU it gives back with its process only.
        declared = {**declared, "max_calls": 1}
    return RemoteFunction(function, TaskOptions().updated(declared, decorator=True), declared)
