"""Remote classes, handles of actors, and their methods: what users hold."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from compiled_dag.class_node import ClassNode
from compiled_dag.errors import ActorClassInheritanceError
from compiled_dag.keywords import nearest, strict_keywords
from runtime import context, lifecycle
from runtime.actor_method import ActorMethod, BoundActor, num_returns_of
from runtime.signatures import (
    MethodOptions,
    MethodSpec,
    constructor_of,
    methods_of,
    spec_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compiled_dag.host import Host
    from runtime.objects import Lifeline
    from runtime.options import ActorOptions

_SPECIAL = ("__ray_call__", "__ray_ready__", "__ray_terminate__")


class ActorClass:
    """A class whose instances live in processes of their own. Made by `runtime.remote`.

    Implements `compiled_dag.bindable.RemoteClass`.
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
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__module__ = cls.__module__
        self.__doc__ = cls.__doc__

    # On first use: a class that arrives in a process has its methods last, and one of them may
    # refer to this.

    @cached_property
    def _methods(self) -> Mapping[str, MethodSpec]:
        return methods_of(self._cls)

    @cached_property
    def _constructor(self) -> MethodSpec:
        return constructor_of(self._cls)

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Start an actor; returns its handle at once.

        Raises:
            TypeError: The arguments do not fit the constructor, or cannot be sent.
        """
        self._constructor.check(args, kwargs)
        session = lifecycle.current()
        methods = {name: spec.without_function() for name, spec in self._methods.items()}
        arguments = ((self._cls, *args), kwargs)
        lifeline = session.create(self.__name__, self._options, arguments, methods)
        return ActorHandle(lifeline, self._methods)

    if not TYPE_CHECKING:  # mypy would take any name

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):  # also: what is asked of one that is only half unpickled
                raise AttributeError(f"a remote class has no attribute {name!r}")
            what = self.__name__
            if name in self._methods:
                why = (
                    f"{what} is a remote class, whose methods are called on actors: "
                    f"{what}.remote(...).{name}.remote(...), or {what}.bind(...).{name}.bind(...)"
                )
            else:
                why = f"the remote class {what} has no method {name!r}{self.nearest(name)}"
            raise AttributeError(why)

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

    @property
    def host(self) -> Host:
        """The session its actors would be in."""
        host: Host = lifecycle.current().host
        return host

    @property
    def num_gpus(self) -> float:
        """Logical GPUs an actor asks for."""
        return self._options.num_gpus or 0

    @property
    def needs(self) -> Mapping[str, float]:
        """See `compiled_dag.bindable.Remote.needs`."""
        return self._options.demand.amounts()

    @property
    def holds(self) -> Mapping[str, float]:
        """See `compiled_dag.bindable.Remote.holds`."""
        return self._options.required.amounts()

    def bound(self, handle: ActorHandle) -> BoundActor:
        """Return what a graph knows of an actor."""
        return BoundActor(handle)

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
    """One method of a remote class; implements `compiled_dag.bindable.ClassMethod`."""

    def __init__(self, owner: ActorClass, spec: MethodSpec, options: MethodOptions) -> None:
        self._owner = owner
        self._spec = spec
        self._options = options
        self.num_returns = num_returns_of(options)

    @property
    def class_name(self) -> str:
        """Name of the class."""
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
        spec = self._runtime_methods.get(name)
        if spec is None:
            class_name = self._runtime_process.class_name
            if name not in _SPECIAL:
                raise AttributeError(
                    f"{class_name} has no method {name!r}{nearest(name, self._runtime_methods)}"
                )
            spec = spec_of(class_name, name, None)
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


def bound_actor(handle: object) -> BoundActor:
    """Return what a graph knows of the actor behind a handle.

    Raises:
        TypeError: `handle` is no handle of an actor.
    """
    if not isinstance(handle, ActorHandle):
        raise TypeError(f"{handle!r} is no handle of an actor")
    return BoundActor(handle)


@strict_keywords
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
    return ActorHandle(*lifecycle.current().get_actor(name, namespace))


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
