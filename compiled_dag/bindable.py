"""What `.bind()` is called on, as Protocols: methods of actors, remote classes, remote functions.

Nodes hold these objects, and so need no runtime module to run what they stand for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from compiled_dag.host import Actor, Host


class Method(Protocol):
    """One method of a remote class, with its options."""

    @property
    def class_name(self) -> str: ...

    @property
    def name(self) -> str:
        """The method's name."""
        ...

    @property
    def num_returns(self) -> int: ...

    @property
    def cuda_graph(self) -> bool:
        """Whether a graph is to record its work on the GPU once, and play that."""
        ...

    @property
    def function(self) -> Callable[..., Any] | None:
        """The plain function in the class, for checks; None where it is not known."""
        ...

    @property
    def declared(self) -> Mapping[str, Any]:
        """What was given to ``.options()``."""
        ...


class Target(Method, Protocol):
    """One method of one actor: what `.bind()` was called on."""

    @property
    def handle(self) -> Any:
        """The actor, as users hold it."""
        ...

    @property
    def actor(self) -> Actor: ...

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call it the ordinary way; returns a ref, or a list where `num_returns` is over 1."""
        ...


class ClassMethod(Method, Protocol):
    """One method of an actor that is not made yet."""

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse arguments that do not fit.

        Raises:
            TypeError: They do not fit.
        """
        ...

    def with_options(self, options: Mapping[str, Any]) -> ClassMethod:
        """Return it with other options, checked."""
        ...

    def of(self, handle: Any) -> Target:
        """Return the method of an actor that is made."""
        ...


class Remote(Protocol):
    """What is run in a process of its own, with its options: what `.bind()` was called on."""

    @property
    def name(self) -> str: ...

    @property
    def declared(self) -> Mapping[str, Any]:
        """What was given to the decorator and to ``.options()``."""
        ...

    @property
    def host(self) -> Host:
        """The session it would run in; starts one if there is none."""
        ...

    @property
    def num_gpus(self) -> float:
        """Logical GPUs it asks for."""
        ...

    @property
    def needs(self) -> Mapping[str, float]:
        """Resources, by name, that the session must have for it to run at all."""
        ...

    @property
    def holds(self) -> Mapping[str, float]:
        """Resources, by name, that a process of a graph holds for it, as long as the graph lives.

        Only what must be free: what is counted but may be overdrawn is left out.
        """
        ...

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Run it the ordinary way.

        Returns:
            An actor's handle, or a task's ref or refs.
        """
        ...


class RemoteClass(Remote, Protocol):
    """A class whose instances are actors."""

    def method(self, name: str) -> ClassMethod | None:
        """Return one of its methods, or None."""
        ...

    def nearest(self, name: str) -> str:
        """Return a hint at the methods with names like `name`, or nothing."""
        ...

    def bound(self, handle: Any) -> Actor:
        """Return what a graph knows of an actor, given by its handle."""
        ...


class RemoteFunction(Remote, Protocol):
    """A function that runs as tasks, or in workers that a graph has for itself."""

    @property
    def num_returns(self) -> int: ...

    @property
    def function(self) -> Callable[..., Any] | None:
        """The plain function; None where its code is not known any more."""
        ...

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse arguments that do not fit.

        Raises:
            TypeError: They do not fit.
        """
        ...

    @property
    def kind(self) -> Hashable:
        """Functions of the same kind may share a process."""
        ...

    @property
    def worker_name(self) -> str:
        """What a worker for functions of this kind is called."""
        ...

    def room(self) -> int:
        """Return how many workers of this kind there is room for now; at least 1."""
        ...

    def start_worker(self) -> Actor:
        """Start a worker for functions of this kind."""
        ...
