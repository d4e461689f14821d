"""Methods of actors as users hold them, and what a graph knows of their actor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from compiled_dag.class_node import bind_method
from runtime.checks import STREAM
from runtime.stream import ObjectRefGenerator

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Mapping

    from compiled_dag.host import ActorId, Host
    from runtime.actor import ActorHandle
    from runtime.process import ActorProcess
    from runtime.remote_actor import RemoteActor
    from runtime.signatures import MethodOptions, MethodSpec


def process_of(handle: ActorHandle) -> Any:
    """Return the actor behind a handle."""
    return handle._runtime_process  # noqa: SLF001  hidden from users only


class BoundActor:
    """What a graph knows of an actor, which it keeps alive: `compiled_dag.host.Actor`.

    Apart from the handle, whose every attribute may be a method of the user's.
    """

    __slots__ = ("_handle", "_process")

    def __init__(self, handle: ActorHandle) -> None:
        self._handle = handle
        self._process: ActorProcess | RemoteActor = process_of(handle)

    @property
    def actor_id(self) -> ActorId:
        """Number of the actor in its session."""
        return self._process.actor_id

    @property
    def label(self) -> str:
        """What messages call it: ``Class(id)``."""
        return self._process.label

    @property
    def host(self) -> Host:
        """The session it belongs to."""
        return self._process.session.host

    @property
    def num_gpus(self) -> float:
        """Logical GPUs it holds."""
        return self._process.num_gpus

    @property
    def physical_gpus(self) -> tuple[str, ...]:
        """Names of the physical GPUs behind them; empty where they are fake or none."""
        return self._process.physical_gpus

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundActor):
            return NotImplemented
        return self.host is other.host and self.actor_id == other.actor_id

    def __hash__(self) -> int:
        return hash(self._process.actor_id)

    def __repr__(self) -> str:
        return repr(self._handle)


class ActorMethod:
    """One method of one actor; implements `compiled_dag.bindable.Target`."""

    __slots__ = ("_handle", "_options", "_spec")

    def __init__(self, handle: ActorHandle, spec: MethodSpec, options: MethodOptions) -> None:
        self._handle = handle
        self._spec = spec
        self._options = options

    @property
    def num_returns(self) -> int:
        """How many nodes it is in a graph."""
        return num_returns_of(self._options)

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method; returns at once.

        Returns:
            An `ObjectRef`; a list of them where `num_returns` is over 1; None where it is 0.

        Raises:
            TypeError: The arguments do not fit the signature, or cannot be sent.
        """
        spec, options = self._spec, self._options
        spec.check(args, kwargs)
        process: ActorProcess | RemoteActor = self._handle._runtime_process  # noqa: SLF001  hidden from users only
        if process.session.foreign:
            process.session.check_owner()
        name, num_returns = spec.name, options.num_returns
        if name == "__ray_terminate__":
            process.end_after_calls()
            return None
        if options.concurrency_group:
            name = f"{name}\0{options.concurrency_group}"
        refs = process.call(name, args, kwargs, num_returns=num_returns, retry=options.retry)
        if num_returns == 1:
            return refs[0]
        if num_returns == STREAM:
            return ObjectRefGenerator(process.session, refs[0])
        return list(refs) or None

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """Draw the call as a node of a graph, without running it.

        Returns:
            A node; a tuple of nodes where `num_returns` is over 1.

        Raises:
            TypeError: The arguments do not fit the signature, or cannot be sent.
            ActorDiedError: The actor is dead.
            RuntimeError: Its session has ended.
        """
        self._spec.check(args, kwargs)
        process = process_of(self._handle)
        process.session.check_owner()
        if process.death is not None:
            from runtime import obituary  # noqa: PLC0415  few actors die

            raise obituary.of_bind(repr(self), process.death)
        return bind_method(self, args, kwargs, next(process.binds))

    def options(self, **options: Any) -> ActorMethod:
        """Return the method with other options.

        Args:
            **options: ``num_returns``: how many values it returns, each of which gets a reference;
                ``concurrency_group``; ``max_task_retries`` and ``retry_exceptions``: how often it
                is called again after the actor's death, and after which exceptions;
                ``cuda_graph``: whether a compiled graph is to record its work on the GPU once, and
                play that from then on (then nothing of its Python runs, as long as its arguments
                look the same); ``name``, ``enable_task_events``: accepted.

        Raises:
            ValueError: An unknown option, or a value that is out of range.
            TypeError: A value of the wrong type.
        """
        return ActorMethod(self._handle, self._spec, self._options.updated(options))

    @property
    def actor(self) -> BoundActor:
        """Its actor."""
        return BoundActor(self._handle)

    @property
    def handle(self) -> ActorHandle:
        """Its actor, as users hold it."""
        return self._handle

    @property
    def declared(self) -> Mapping[str, Any]:
        """What was given to ``.options()``."""
        return self._options.declared

    @property
    def class_name(self) -> str:
        """Name of the actor's class."""
        return self._spec.class_name

    @property
    def name(self) -> str:
        """Its name."""
        return self._spec.name

    @property
    def cuda_graph(self) -> bool:
        """Whether graphs record its work on the GPU once, and play that."""
        return self._options.cuda_graph

    @property
    def signature(self) -> inspect.Signature | None:
        """Without self; None where it cannot be known."""
        return self._spec.signature

    @property
    def function(self) -> Callable[..., Any] | None:
        """The plain function in the class."""
        return self._spec.function

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refuse: the method runs elsewhere."""
        raise TypeError(
            f"{self.class_name}.{self.name} runs in another process: call "
            f".{self.name}.remote(...), or .{self.name}.bind(...) in a graph"
        )

    def __repr__(self) -> str:
        return f"<method {self.name} of {self._handle!r}>"

    def __reduce__(self) -> Any:
        return ActorMethod, (self._handle, self._spec.without_function(), self._options)


def num_returns_of(options: MethodOptions) -> int:
    """Return how many nodes a method is in a graph, where a stream is one value."""
    return 1 if options.num_returns == STREAM else options.num_returns
