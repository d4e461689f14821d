"""Where the nodes of a graph run: on which actors, those included that are to be made."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from compiled_dag.call_node import ElementNode
from compiled_dag.collective_node import home_of
from compiled_dag.errors import GraphError
from compiled_dag.function_node import FunctionNode
from compiled_dag.host import ActorId
from compiled_dag.ir import DRIVER, NodeId, Pool
from compiled_dag.lint_nodes import check_constructor
from compiled_dag.owned import NewActor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.bindable import RemoteFunction
    from compiled_dag.class_node import ClassNode
    from compiled_dag.host import Actor, Host
    from compiled_dag.node import DAGNode


class Placing:
    """The tables of actors and functions that fill while nodes are placed."""

    def __init__(self, class_nodes: Sequence[ClassNode]) -> None:
        """Place nodes of a graph with these class nodes.

        Raises:
            GraphError: An actor cannot be made before the graph runs.
        """
        self._numbers = itertools.count(DRIVER - 1, -1)
        """For what has no number in its session yet."""
        self._hosts: dict[int, Host] = {}
        self._named: dict[tuple[int, ActorId], str] = {}
        """By host and number, what messages call an actor: two sessions may number alike."""
        self._pools: dict[Any, tuple[Pool, RemoteFunction]] = {}
        self._new = {
            id(node): self._new_actor(node)
            for node in sorted(class_nodes, key=lambda node: node._order)
        }
        self.actors: dict[ActorId, Actor] = {}
        """In the order in which they were placed first."""
        self.functions: dict[NodeId, Callable[..., Any]] = {}
        """What calls of functions run."""

    @property
    def new_actors(self) -> tuple[NewActor, ...]:
        """The actors that are to be made, in that order."""
        return tuple(self._new.values())

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The pools of functions."""
        return tuple(pool for pool, _ in self._pools.values())

    @property
    def pooled(self) -> dict[ActorId, RemoteFunction]:
        """One function of each pool."""
        return {pool.id: function for pool, function in self._pools.values()}

    def host(self) -> Host:
        """Return the session of everything that was placed.

        Raises:
            GraphError: There is nothing, or there are two sessions.
        """
        if not self._hosts:
            msg = "the graph calls nothing: bind at least one method of an actor, or a function"
            raise GraphError(msg)
        if len(self._hosts) > 1:
            names = ", ".join(self._named.values())
            msg = f"the graph's actors belong to different sessions: {names}"
            raise GraphError(msg)
        return next(iter(self._hosts.values()))

    def place(self, node: DAGNode, number: NodeId) -> ActorId:
        """Return the actor on which a node runs, or what stands for it.

        Raises:
            GraphError: A function's code is not known, or the actor's session has ended.
        """
        if isinstance(node, ElementNode) and isinstance(node._call, FunctionNode):
            return self._pool(node._call).id
        if isinstance(node, FunctionNode):
            pool = self._pool(node)
            assert node._function.function is not None, "a pool was found for it"
            self.functions[number] = node._function.function
            return pool.id
        home = home_of(node)
        if home is None:
            return DRIVER
        actor: Actor = self._new[id(home.parent)] if home.actor is None else home.actor
        if actor.host.closed:
            msg = (
                f"{node!r} belongs to a session that has ended (runtime.shutdown), and its actor "
                f"{actor.label} with it. Make the actor in this session, and bind again"
            )
            raise GraphError(msg)
        self.actors.setdefault(actor.actor_id, actor)
        self._hosts[id(actor.host)] = actor.host
        name = f"{actor.label} (called by {node._label}, bound at {node._source})"
        self._named.setdefault((id(actor.host), actor.actor_id), name)
        return actor.actor_id

    def _new_actor(self, node: ClassNode) -> NewActor:
        check_constructor(node)
        remote_class = node._class
        host = remote_class.host
        self._hosts[id(host)] = host
        number = ActorId(next(self._numbers))
        return NewActor(number, node._label, host, remote_class.num_gpus, node)

    def _pool(self, node: FunctionNode) -> Pool:
        """Return the pool of a function, a new one the first time."""
        function = node._function
        if function.function is None:
            msg = (
                f"{node._label}, bound at {node._source}: the function's code is not known here "
                "any more, because the session it came from has ended"
            )
            raise GraphError(msg)
        if function.kind not in self._pools:
            self._hosts[id(function.host)] = function.host
            pool = Pool(
                id=ActorId(next(self._numbers)),
                label=function.worker_name,
                most=function.room(),
                alone=bool(function.num_gpus),
            )
            self._pools[function.kind] = (pool, function)
        return self._pools[function.kind][0]
