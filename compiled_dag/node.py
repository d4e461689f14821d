"""The base of what users hold: a node made by `.bind()`, and what may be asked of any node.

Nodes only remember what was bound. `capture` turns them into data when a graph is compiled,
`interpret` runs them as they are; neither changes them.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any, ClassVar, Final

from compiled_dag import walk
from compiled_dag.containers import Found, NestingError, search
from compiled_dag.errors import GraphError
from compiled_dag.hints import Hinted
from compiled_dag.keywords import strict_keywords
from compiled_dag.node_text import node_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

    from compiled_dag.communicator import Communicator

DAGNODE_TYPE_KEY: Final = "__dag_node_type__"
"""Where Ray has the type of a node in JSON; for scripts that import it."""

_PACKAGES = tuple(
    os.path.join(os.path.dirname(os.path.dirname(__file__)), name, "")
    for name in ("compiled_dag", "collective", "runtime")
)


class _BindOrder:
    """Numbers all binds of this process."""

    def __init__(self) -> None:
        self._next = 0
        self._lock = threading.Lock()

    def take(self) -> int:
        """Return the next number."""
        with self._lock:
            self._next += 1
            return self._next

    def pass_by(self, number: int) -> None:
        """Go on after `number`, which a node from another process has."""
        with self._lock:
            self._next = max(self._next, number)


_bind_order = _BindOrder()


class DAGNode(Hinted):
    """A node of a graph. Made by `.bind()`, never directly.

    A node may be pickled, and so be sent to a task, with all it needs; nodes that need *it* stay.
    """

    _is_node: ClassVar[bool] = True

    def __init__(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        others: Mapping[str, Any] | None = None,
    ) -> None:
        """Remember what was bound.

        Args:
            args: Positional arguments.
            kwargs: Keyword arguments.
            options: What was given to ``.options()``, and to the decorator.
            others: What else the node needs, by Ray's names: its actor, the call before it.
        """
        self._bound_args = tuple(args)
        self._bound_kwargs = dict(kwargs or {})
        self._bound_options = dict(options or {})
        self._bound_other_args_to_resolve = dict(others or {})
        self._stable_uuid = os.urandom(16).hex()
        self._order = _bind_order.take()
        self._source = _caller()
        self._downstream: list[DAGNode] = []
        self.cache_from_last_execute: dict[str, Any] = {}
        """What each node gave in the last ``execute(_ray_cache_refs=True)``, by uuid."""
        self._attach()

    def _attach(self) -> None:
        """Let the nodes it needs know of it."""
        for node in self._upstream():
            node._downstream.append(self)

    def _upstream(self) -> list[DAGNode]:
        """Return the nodes it needs, each once: among the arguments, then the others.

        Raises:
            GraphError: An argument is cyclic, or too deep.
            TypeError: An argument cannot be pickled.
        """
        found = {id(node): node for _, each in self._search() for node in each.nodes}
        for other in self._bound_other_args_to_resolve.values():
            if isinstance(other, DAGNode):
                found[id(other)] = other
        return list(found.values())

    def _search(self) -> Iterator[tuple[int | str, Found[DAGNode]]]:
        """Yield what each argument holds, by its position or name; raises as `_upstream`."""
        arguments: list[tuple[int | str, Any]] = [*enumerate(self._bound_args)]
        for name, value in (*arguments, *self._bound_kwargs.items()):
            try:
                yield name, search(value, DAGNode)
            except NestingError as error:
                msg = (
                    f"argument {name!r} of {self._label}, bound at {self._source}, {error}. Pass "
                    "it as the attribute of an object of your own"
                )
                raise GraphError(msg) from None
            except TypeError as error:
                msg = f"argument {name!r} of {self._label}, bound at {self._source}: {error}"
                raise TypeError(msg) from error.__cause__

    def _partners(self) -> tuple[DAGNode, ...]:
        """Return the nodes that are there only together with it."""
        return ()

    @property
    def _label(self) -> str:
        """What messages call it."""
        return type(self).__name__

    @property
    def _body(self) -> str:
        """What it runs, for `str`."""
        return self._label

    # --- what was bound

    def get_args(self) -> tuple[Any, ...]:
        """Return the positional arguments."""
        return self._bound_args

    def get_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments, copied."""
        return dict(self._bound_kwargs)

    def get_options(self) -> dict[str, Any]:
        """Return the options as they were declared, copied."""
        return dict(self._bound_options)

    def get_other_args_to_resolve(self) -> dict[str, Any]:
        """Return what else the node needs, by the ``..._KEY`` names, copied."""
        return dict(self._bound_other_args_to_resolve)

    def get_stable_uuid(self) -> str:
        """Return what identifies the node, also after it was copied or pickled."""
        return self._stable_uuid

    # --- walking

    def apply_recursive(self, fn: Callable[[DAGNode], Any]) -> Any:
        """Apply `fn` to every node this one needs, then to this one; each uuid once.

        `fn` is given copies, whose arguments hold what `fn` returned in place of nodes.

        Returns:
            What `fn` returned for this node.
        """
        return walk.apply_recursive(DAGNode, self, fn)

    def apply_functional(
        self,
        source_input_list: Any,
        predicate_fn: Callable[[DAGNode], bool],
        apply_fn: Callable[[DAGNode], Any],
    ) -> Any:
        """Return `source_input_list` with results of `apply_fn` in place of nodes.

        Args:
            source_input_list: Anything with nodes inside.
            predicate_fn: Which nodes to replace; the others stay.
            apply_fn: What to replace a node by; called once per node.
        """
        return walk.apply_functional(DAGNode, source_input_list, predicate_fn, apply_fn)

    def traverse_and_apply(self, fn: Callable[[DAGNode], Any]) -> None:
        """Apply `fn` to every node that is connected with this one, the nearest first."""
        for node in walk.component(self):
            fn(node)

    def _replaced(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], others: Mapping[str, Any]
    ) -> DAGNode:
        """Return a copy with other arguments, which no node knows of."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__getstate__())
        made._bound_args, made._bound_kwargs = tuple(args), dict(kwargs)
        made._bound_other_args_to_resolve = dict(others)
        made._downstream, made.cache_from_last_execute = [], {}
        return made

    # --- running

    def execute(self, /, *args: Any, _ray_cache_refs: bool = False, **kwargs: Any) -> Any:
        """Run the graph up to this node through ordinary calls, without compiling.

        A function node becomes a task, a class node a new actor, a method node a call of its
        actor. A node that is an argument arrives as its value; one inside an argument arrives as a
        reference, to be got where it is needed, or as an actor's handle.

        Args:
            *args: The inputs.
            _ray_cache_refs: Keep what every node gave in `cache_from_last_execute`.
            **kwargs: More inputs.

        Returns:
            A ref; a list of refs for a `MultiOutputNode`; a handle for a class node.

        Raises:
            GraphUsageError: There are two InputNodes, or one was not entered.
            NotImplementedError: The graph contains collectives, which exist only compiled.
        """
        from compiled_dag.interpret import interpret  # noqa: PLC0415  interpret reads nodes: it is above us

        results = interpret(self, args, kwargs)
        if _ray_cache_refs:
            self.cache_from_last_execute = results
        return results[self._stable_uuid]

    async def get_object_refs_from_last_execute(self) -> dict[str, Any]:
        """Return what each node gave in the last ``execute(_ray_cache_refs=True)``, by uuid."""
        return dict(self.cache_from_last_execute)

    def clear_cache(self) -> None:
        """Forget what the last ``execute(_ray_cache_refs=True)`` gave."""
        self.cache_from_last_execute = {}

    @strict_keywords
    def experimental_compile(
        self,
        _submit_timeout: float | None = None,
        _buffer_size_bytes: int | None = None,
        enable_asyncio: bool = False,
        _max_inflight_executions: int | None = None,
        _max_buffered_results: int | None = None,
        _overlap_gpu_communication: bool | None = None,
        _default_communicator: Communicator | str | None = "create",
        *,
        _get_timeout: float | None = None,
        _capacity_policy: str | None = None,
        _max_queued_executions: int | None = None,
        _max_memory_bytes: int | None = None,
        _function_workers: int | None = None,
    ) -> Any:
        """Compile the graph that ends in this node into one program per actor and start it.

        Args:
            _submit_timeout: Seconds `execute` waits for room (policy ``"block"``).
            _buffer_size_bytes: First capacity of a payload slot; channels grow by themselves.
            enable_asyncio: Accepted for compatibility; every graph has `execute_async`.
            _max_inflight_executions: Executions that may be unfetched at one time.
            _max_buffered_results: Fetched results kept for refs that were not got yet.
            _overlap_gpu_communication: Receive tensors that stay on GPUs while the method before
                the one that needs them runs, and have NCCL send them while methods go on.
            _default_communicator: What carries accelerator edges and collectives that name no
                communicator: ``"create"`` makes groups as needed, a `Communicator` is used as it
                is, None refuses them.
            _get_timeout: Seconds `get` waits by default.
            _capacity_policy: When too many executions are unfetched: ``"raise"``, ``"block"``,
                ``"queue"`` or ``"drop_oldest"``.
            _max_queued_executions: Executions whose inputs may wait (policy ``"queue"``).
            _max_memory_bytes: Cap on the payload memory of the graph.
            _function_workers: Processes for calls of functions; by default as many as can run at
                once, at most the free CPUs. A function with `num_gpus` has one of its own.

        Returns:
            A `CompiledDAG`.

        Raises:
            GraphError: The graph or an option is wrong; names nodes and lines.
            ActorDiedError: An actor is dead, or died meanwhile.
        """
        from compiled_dag.driver import compile_dag  # noqa: PLC0415  capture reads nodes: above us
        from compiled_dag.options import CompileOptions  # noqa: PLC0415  only needed here

        options = CompileOptions.resolve(
            _submit_timeout=_submit_timeout,
            _buffer_size_bytes=_buffer_size_bytes,
            enable_asyncio=enable_asyncio,
            _overlap_gpu_communication=_overlap_gpu_communication,
            _max_inflight_executions=_max_inflight_executions,
            _max_buffered_results=_max_buffered_results,
            _get_timeout=_get_timeout,
            _capacity_policy=_capacity_policy,
            _max_queued_executions=_max_queued_executions,
            _max_memory_bytes=_max_memory_bytes,
            _function_workers=_function_workers,
            _default_communicator=_default_communicator,
        )
        return compile_dag(self, options)

    # --- copies

    def __copy__(self) -> DAGNode:
        return self._replaced(
            self._bound_args, self._bound_kwargs, self._bound_other_args_to_resolve
        )

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        del state["_downstream"], state["cache_from_last_execute"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._downstream, self.cache_from_last_execute = [], {}
        _bind_order.pass_by(self._order)
        self._attach()

    def __getattr__(self, name: str) -> Any:
        raise self._no_attribute(name)

    def _no_attribute(self, name: str) -> AttributeError:
        if name == "remote":
            return AttributeError(
                f"{self!r} has no .remote: .execute() runs the graph that ends in it"
            )
        if name == "bind":
            return AttributeError(
                f"{self!r} is bound already and has no .bind: pass it to another node's .bind()"
            )
        return AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __str__(self) -> str:
        return node_text(self)

    def __repr__(self) -> str:
        label = "" if self._label == type(self).__name__ else f"{self._label} "
        return f"<{type(self).__name__} {label}bound at {self._source}>"


def _caller() -> str:
    """Return ``file:line`` of the first frame outside this project: where the user bound."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGES):
        frame = frame.f_back
    return "" if frame is None else f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
