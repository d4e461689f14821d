"""Remote functions and classes of `tests.fakes.ThreadHost`: workers and actors are threads."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from compiled_dag.class_node import ClassNode
from compiled_dag.errors import ActorDiedError
from compiled_dag.function_node import FunctionNode
from tests.fakes import FakeActor, FakeMethod, FakePending, bound_by_caller

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.fakes import ThreadHost


class Worker:
    """What the actor of a worker for functions is."""


class FakeFunction:
    """A remote function; see `compiled_dag.bindable.RemoteFunction`."""

    __opaque_to_graphs__ = True
    worker_name = "functions"

    def __init__(
        self,
        host: ThreadHost,
        function: Callable[..., Any] | None,
        *,
        kind: object = None,
        num_gpus: float = 0,
        room: int = 4,
        **declared: Any,
    ) -> None:
        self.host = host
        self.function = function
        self.name = getattr(function, "__name__", "lost")
        self.kind = kind
        self.num_gpus = num_gpus
        self.declared = declared
        self.num_returns = declared.get("num_returns", 1)
        self._room = room
        self.needs = self.holds = dict(declared.get("resources", {}))

    def bind(self, *args: Any, **kwargs: Any) -> FunctionNode:
        node: FunctionNode = bound_by_caller(FunctionNode(self, args, kwargs))
        return node

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if self.function is not None:
            inspect.signature(self.function).bind(*args, **kwargs)

    def room(self) -> int:
        return self._room

    def start_worker(self) -> FakeActor:
        return self.host.actor(Worker())

    def remote(self, *args: Any, **kwargs: Any) -> FakePending:
        raise NotImplementedError


class FakeClass:
    """A remote class; see `compiled_dag.bindable.RemoteClass`."""

    __opaque_to_graphs__ = True
    num_gpus = 0.0

    def __init__(self, host: ThreadHost, cls: type, **declared: Any) -> None:
        self.host = host
        self.name = cls.__name__
        self.declared = declared
        self._cls = cls
        self.needs = self.holds = dict(declared.get("resources", {}))

    def bind(self, *args: Any, **kwargs: Any) -> ClassNode:
        node: ClassNode = bound_by_caller(ClassNode(self, args, kwargs))
        return node

    def method(self, name: str) -> FakeClassMethod | None:
        return FakeClassMethod(self._cls, name) if hasattr(self._cls, name) else None

    def nearest(self, _name: str) -> str:
        return ""

    def remote(self, *args: Any, **kwargs: Any) -> FakeActor:
        """Make an actor: one whose constructor raises is dead from the start."""
        try:
            return self.host.actor(self._cls(*args, **kwargs))
        except ValueError as error:
            actor = self.host.actor(Worker())
            actor.error = ActorDiedError(f"actor {self.name} has no instance: {error}")
            return actor

    def bound(self, handle: FakeActor) -> FakeActor:
        return handle


class FakeClassMethod:
    """A method of one; see `compiled_dag.bindable.ClassMethod`."""

    def __init__(self, cls: type, name: str, declared: Mapping[str, Any] | None = None) -> None:
        self._cls = cls
        self.class_name = cls.__name__
        self.name = name
        self.function = getattr(cls, name)
        self.declared = dict(declared or {})
        self.num_returns = self.declared.get("num_returns", 1)
        self.cuda_graph = False

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        inspect.signature(self.function).bind(None, *args, **kwargs)

    def with_options(self, options: Mapping[str, Any]) -> FakeClassMethod:
        return FakeClassMethod(self._cls, self.name, options)

    def of(self, handle: FakeActor) -> FakeMethod:
        return FakeMethod(handle, self.name)
