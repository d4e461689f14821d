"""Remote classes, handles of actors, and their methods: what users hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from compiled_dag.class_node import ClassNode, bind_method
from compiled_dag.errors import ActorClassInheritanceError
from runtime import context, lifecycle
from runtime.checks import STREAM
from runtime.signatures import (
    MethodOptions,
    MethodSpec,
    constructor_of,
    methods_of,
    nearest,
    spec_of,
)
from runtime.stream import ObjectRefGenerator

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Mapping, Sequence

    from compiled_dag.host import ActorId, Host
    from runtime.objects import Lifeline, ObjectRef
    from runtime.options import ActorOptions
    from runtime.process import ActorProcess
    from runtime.remote_actor import RemoteActor

_SPECIAL = ("__ray_call__", "__ray_ready__", "__ray_terminate__")


class ActorClass:
    """A class whose instances live in processes of their own. Made by `runtime.remote`.

    Implements `compiled_dag.host.RemoteClass`.
    """

    __opaque_to_graphs__ = True

    def __init__(
        self, cls: type, options: ActorOptions, declared: Mapping[str, Any] | None = None
    ) -> None:
        """Make a class remote.

        Args:
            cls: The class.
            options: Checked.
            declared: The options as the user gave them.
        """
        self._cls = cls
        self._options = options
        self.declared = dict(declared or {})
        self._methods = methods_of(cls)
        self._constructor = constructor_of(cls)
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__module__ = cls.__module__
        self.__doc__ = cls.__doc__

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Start an actor; returns its handle at once.

        Raises:
            TypeError: The arguments do not fit the constructor, or cannot be sent.
        """
        self._constructor.check(args, kwargs)
        session = lifecycle.current(f"{self.__name__}.remote()")
        methods = {name: spec.without_function() for name, spec in self._methods.items()}
        arguments = ((self._cls, *args), kwargs)
        lifeline = session.create(self.__name__, self._options, arguments, methods)
        return ActorHandle(lifeline, self._methods)

    def options(self, **options: Any) -> ActorClass:
        """Return this class with other options.

        Raises:
            ValueError: An unknown option, or a value out of range.
            TypeError: A value of the wrong type.
        """
        other = object.__new__(ActorClass)
        other.__dict__.update(self.__dict__)
        other._options = self._options.updated(options)
        other.declared = {**self.declared, **options}
        return other

    def bind(self, *args: Any, **kwargs: Any) -> ClassNode:
        """Draw an actor, without making it; bind its methods as those of a handle.

        Raises:
            TypeError: The arguments do not fit the constructor, or cannot be sent.
            GraphError: An argument needs the graph's input.
        """
        self._constructor.check(args, kwargs)
        return ClassNode(self, args, kwargs)

    @property
    def name(self) -> str:
        """Name of the class."""
        return self.__name__

    def method(self, name: str) -> MethodOfClass | None:
        """Return one of its methods, or None."""
        spec = self._methods.get(name)
        return None if spec is None else MethodOfClass(self, spec, spec.options)

    def nearest(self, name: str) -> str:
        """Return a hint at the methods with names like `name`, or nothing."""
        return nearest(name, self._methods)

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refuse: the class itself stays in the driver."""
        raise TypeError(
            f"{self.__name__} is a remote class: {self.__name__}.remote(...) makes an actor"
        )

    def __mro_entries__(self, _bases: tuple[Any, ...]) -> NoReturn:
        raise ActorClassInheritanceError(
            f"{self.__name__} is a remote class and cannot be a base. Let both inherit from a "
            "plain class, and apply @runtime.remote to the last"
        )

    def __reduce__(self) -> Any:
        return ActorClass, (self._cls, self._options, self.declared)

    def __repr__(self) -> str:
        return f"<remote class {self.__module__}.{self.__qualname__}>"


class MethodOfClass:
    """One method of a remote class; implements `compiled_dag.host.ClassMethod`."""

    def __init__(self, owner: ActorClass, spec: MethodSpec, options: MethodOptions) -> None:
        self._owner = owner
        self._spec = spec
        self._options = options
        self.num_returns = _num_returns(options)

    @property
    def class_name(self) -> str:
        """Name of the class."""
        return self._spec.class_name

    @property
    def name(self) -> str:
        """Its name."""
        return self._spec.name

    @property
    def function(self) -> Callable[..., Any] | None:
        """The plain function in the class."""
        return self._spec.function

    @property
    def declared(self) -> Mapping[str, Any]:
        """What was given to ``.options()``."""
        return self._options.declared

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse arguments that do not fit.

        Raises:
            TypeError: They do not fit.
        """
        self._spec.check(args, kwargs)

    def with_options(self, options: Mapping[str, Any]) -> MethodOfClass:
        """Return it with other options; raises as `ActorMethod.options`."""
        return MethodOfClass(self._owner, self._spec, self._options.updated(options))

    def of(self, handle: ActorHandle) -> ActorMethod:
        """Return the method of an actor."""
        return ActorMethod(handle, self._spec, self._options)

    def __reduce__(self) -> Any:
        return _method_of_class, (self._owner, self.name, self._options)


def _method_of_class(owner: ActorClass, name: str, options: MethodOptions) -> MethodOfClass:
    """Return a method that has arrived here."""
    return MethodOfClass(owner, owner._methods[name], options)  # noqa: SLF001  hidden from users only


class ActorHandle:
    """An actor, as users hold it; the actor ends, after its calls, with its last handle."""

    __opaque_to_graphs__ = True

    # Names of its own all start so, because any other may be a method of the user's.
    _runtime_process: Any
    _runtime_methods: Mapping[str, MethodSpec]

    def __init__(self, lifeline: Lifeline, methods: Mapping[str, MethodSpec]) -> None:
        self._runtime_lifeline = lifeline
        self._runtime_process = lifeline.owner
        self._runtime_methods = methods

    def __getattr__(self, name: str) -> ActorMethod:
        process, methods = self._runtime_process, self._runtime_methods
        spec = methods.get(name)
        if spec is None:
            if name not in _SPECIAL:
                raise AttributeError(
                    f"{process.class_name} has no method {name!r}{nearest(name, methods)}"
                )
            spec = spec_of(process.class_name, name, None)
        return ActorMethod(self, spec, spec.options)

    def __dir__(self) -> list[str]:
        return sorted(self._runtime_methods)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ActorHandle):
            return NotImplemented
        return bool(self._runtime_process.actor_id == other._runtime_process.actor_id)

    def __hash__(self) -> int:
        return hash(self._runtime_process.actor_id)

    def __copy__(self) -> ActorHandle:
        return self

    def __deepcopy__(self, _memo: object) -> ActorHandle:
        return self

    def __reduce__(self) -> Any:
        methods = {name: spec.without_function() for name, spec in self._runtime_methods.items()}
        return _received, (self._runtime_lifeline, self._runtime_process.class_name, methods)

    def __repr__(self) -> str:
        return repr(self._runtime_process)


def _received(
    lifeline: Lifeline, class_name: str, methods: Mapping[str, MethodSpec]
) -> ActorHandle:
    """Return the handle of an actor whose lifeline has arrived here."""
    session = lifecycle.running()
    if session is None:
        raise RuntimeError(f"a handle of {class_name}({lifeline.actor_id}) has left its session")
    return ActorHandle(session.adopt(lifeline, class_name), methods)


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """Return a handle of the living actor with this name.

    Args:
        name: As given to ``.options(name=...)``.
        namespace: Where to look; None for the session's own.

    Raises:
        TypeError: `name` is no str.
        ValueError: `name` is empty, or there is no such actor.
    """
    if not isinstance(name, str):
        raise TypeError(f"get_actor: the name must be a str, not {type(name).__name__} ({name!r})")
    if not name:
        raise ValueError("get_actor: the name is empty")
    return ActorHandle(*lifecycle.current("runtime.get_actor()").get_actor(name, namespace))


def exit_actor() -> NoReturn:
    """End the actor that runs this, now.

    Raises:
        TypeError: This is no actor.
    """
    if not context.in_actor():
        raise TypeError("exit_actor() ends the actor that calls it: this is the driver")
    if getattr(lifecycle.running(), "in_task", False):
        raise TypeError("exit_actor() ends the actor that calls it: this is a task")
    raise SystemExit(0)


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
    """One method of one actor; implements `compiled_dag.host.Target`."""

    __slots__ = ("_handle", "_method", "_options", "_spec", "num_returns")

    def __init__(self, handle: ActorHandle, spec: MethodSpec, options: MethodOptions) -> None:
        self._handle = handle
        self._spec = spec
        self._options = options
        self.num_returns = _num_returns(options)
        group = options.concurrency_group
        self._method = f"{spec.name}\0{group}" if group else spec.name

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method; returns at once.

        Returns:
            An `ObjectRef`; a list of them where `num_returns` is over 1; None where it is 0.

        Raises:
            TypeError: The arguments do not fit the signature, or cannot be sent.
        """
        spec, num_returns = self._spec, self._options.num_returns
        spec.check(args, kwargs)
        process = process_of(self._handle)
        if process.session.foreign:
            process.session.check_owner()
        if spec.name == "__ray_terminate__":
            process.end_after_calls()
            return None
        refs: tuple[ObjectRef, ...] = process.call(
            self._method,
            args,
            kwargs,
            num_returns=num_returns,
            retry=self._options.retry,
        )
        if num_returns == STREAM:
            return ObjectRefGenerator(process.session, refs[0])
        if num_returns == 1:
            return refs[0]
        return list(refs) or None

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """Draw the call as a node of a graph, without running it.

        Returns:
            A node; a tuple of nodes where `num_returns` is over 1.

        Raises:
            TypeError: The arguments do not fit the signature, or cannot be sent.
            RuntimeError: The actor is dead, or its session has ended.
        """
        self._spec.check(args, kwargs)
        process = process_of(self._handle)
        process.session.check_owner()
        if process.death is not None:
            raise RuntimeError(f"{self!r}.bind(): {process.death}")
        return bind_method(self, args, kwargs, next(process.binds))

    def options(self, **options: Any) -> ActorMethod:
        """Return the method with other options.

        Args:
            **options: ``num_returns``: how many values it returns, each of which gets a reference;
                ``concurrency_group``; ``max_task_retries`` and ``retry_exceptions``: how often it
                is called again after the actor's death, and after which exceptions; ``name``,
                ``enable_task_events``: accepted.

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


def _num_returns(options: MethodOptions) -> int:
    return 1 if options.num_returns == STREAM else options.num_returns
