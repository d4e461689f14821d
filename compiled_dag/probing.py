"""Which actors of a graph can share GPU memory: asked of themselves, at compile.

Only pairs that an accelerator hint would have share it are asked, and only once their processes
are there; everybody else stays without CUDA.
"""

from __future__ import annotations

import dataclasses
import pickle
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeAlias

from compiled_dag.arrival import await_process
from compiled_dag.errors import GraphError
from compiled_dag.gpus import gpus_of, physical_gpus
from compiled_dag.host import EDGE_GROUPS, offered
from compiled_dag.ir import Pinning, Reach
from compiled_dag.passes.copies import copying_actors
from compiled_dag.passes.transports import (
    group_candidates,
    resolve_transports,
    ring_candidates,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compiled_dag.capture import Captured
    from compiled_dag.cuda.probe import Offer, Taken
    from compiled_dag.host import ActorId, SystemCall
    from compiled_dag.ir import Graph
    from compiled_dag.operation import Backend, EdgeGroups

    Pair: TypeAlias = tuple[ActorId, ActorId]


def probed(captured: Captured, timeout_s: float) -> Captured:
    """Return a graph whose processes are there, with what its actors' GPUs can do, if that matters.

    Raises:
        GraphError: An actor does not answer within `timeout_s`.
        ActorDiedError: An actor is dead, or dies meanwhile.
    """
    graph = captured.graph
    if not graph.gpus:
        return captured
    deadline = time.monotonic() + timeout_s
    for actor in captured.actors:
        if physical_gpus(actor) is None:
            await_process(captured.host, actor, deadline, timeout_s)
    graph = dataclasses.replace(graph, gpus=tuple(map(gpus_of, captured.actors)))
    pairs = ring_candidates(graph)
    rounds = _Rounds(captured, deadline, timeout_s)
    graph = dataclasses.replace(graph, reach=tuple(rounds.ask(pairs)) if pairs else ())
    for backend, ends in group_candidates(graph):
        graph = _grouped(captured, graph, backend, ends, deadline)
    actors = copying_actors(graph, resolve_transports(graph))
    pinning = tuple(rounds.ask_pinning(actors)) if actors else ()
    return dataclasses.replace(captured, graph=dataclasses.replace(graph, pinning=pinning))


def _grouped(
    captured: Captured, graph: Graph, backend: Backend, ends: tuple[ActorId, ...], deadline: float
) -> Graph:
    """Return the graph with what became of a group that was formed, and ended at once.

    Much can keep NCCL from it: a small /dev/shm, no network interface, what a sandbox forbids.
    """
    find = offered(EDGE_GROUPS)
    assert find is not None, "no session offers groups, and one has bound the nodes"
    groups: EdgeGroups = find()
    actor_of = dict(zip(graph.actors, captured.actors, strict=True))
    group = groups.new_group(captured.host, [actor_of[e] for e in ends], backend)
    try:
        group.open(deadline)
    except GraphError as error:
        if isinstance(error.__cause__, TimeoutError):
            raise  # somebody is busy: that tells nothing of the backend
        why = str(error).splitlines()[0]
        reach = tuple(
            dataclasses.replace(one, no_group=why) if {one.writer, one.reader} <= {*ends} else one
            for one in graph.reach or ()
        )
        return dataclasses.replace(graph, reach=reach)
    finally:
        group.close(deadline)
    return graph


class _Rounds:
    """The rounds of `compiled_dag.cuda.probe`, seen from the driver."""

    def __init__(self, captured: Captured, deadline: float, timeout_s: float) -> None:
        self._host = captured.host
        self._labels = dict(zip(captured.graph.actors, captured.graph.labels, strict=True))
        self._deadline = deadline
        self._timeout_s = timeout_s

    def ask(self, pairs: Sequence[Pair]) -> list[Reach]:
        """Return what each pair can do."""
        from compiled_dag.cuda import probe  # noqa: PLC0415  few graphs need it

        writers = dict.fromkeys(writer for writer, _ in pairs)
        everybody = dict.fromkeys(actor for pair in pairs for actor in pair)
        try:
            offers: dict[ActorId, Offer] = self._all(probe.offer, dict.fromkeys(writers, ()))
            return self._match(pairs, offers)
        finally:
            self._all(probe.finish, dict.fromkeys(everybody, ()))

    def ask_pinning(self, actors: Sequence[ActorId]) -> list[Pinning]:
        """Return whether each actor's GPU can use memory of the host."""
        from compiled_dag.cuda import probe  # noqa: PLC0415  see ask

        refused = self._all(probe.pin, dict.fromkeys(actors, ()))
        return [Pinning(actor=actor, refused=refused[actor]) for actor in actors]

    def _match(self, pairs: Sequence[Pair], offers: Mapping[ActorId, Offer]) -> list[Reach]:
        from compiled_dag.cuda import probe  # noqa: PLC0415  see ask

        taken = self._each(probe.take, [(r, w, offers[w]) for w, r in pairs])
        answered = [(w, r) for w, r in pairs if taken[r, w].event]
        settled = self._each(probe.settle, [(w, r, taken[r, w].event) for w, r in answered])
        return [
            self._reach(pair, offers[pair[0]], taken[pair[1], pair[0]], settled.get(pair, ""))
            for pair in pairs
        ]

    def _reach(self, pair: Pair, offered: Offer, taken: Taken, settled: str) -> Reach:
        writer, reader = (self._labels[actor] for actor in pair)
        where = f"{reader} on {taken.uuid} reads from {writer} on {offered.uuid}"
        if taken.uuid == offered.uuid:
            where = f"{writer} and {reader} share {offered.uuid}"

        def refused(on_writer: str, on_reader: str) -> str:
            actor, why = (writer, on_writer) if on_writer else (reader, on_reader)
            return f"{writer} to {reader}: {actor} failed at {why}" if why else ""

        return Reach(
            writer=pair[0],
            reader=pair[1],
            where=where,
            on_one_gpu=bool(taken.uuid) and taken.uuid == offered.uuid,
            no_memory=refused(offered.no_memory, taken.no_memory),
            no_events=refused(offered.no_events or settled, taken.no_events),
            no_pinning=refused(offered.no_pinning, taken.no_pinning),
            backend=offered.backend if offered.backend == taken.backend else "",
        )

    def _each(
        self, call: SystemCall, asked: Sequence[tuple[ActorId, ActorId, Any]]
    ) -> dict[Pair, Any]:
        """Ask actors about others, each once about all; returns the answers by (actor, other)."""
        about: dict[ActorId, list[tuple[ActorId, Any]]] = defaultdict(list)
        for actor, other, what in asked:
            about[actor].append((other, what))
        answers = self._all(call, {a: tuple(what for _, what in them) for a, them in about.items()})
        return {
            (actor, other): answer
            for actor, them in about.items()
            for (other, _), answer in zip(them, answers[actor], strict=True)
        }

    def _all(self, call: SystemCall, payloads: Mapping[ActorId, Any]) -> dict[ActorId, Any]:
        """Have actors run a call at the same time; returns what they answer."""
        pending = {}
        for actor, payload in payloads.items():
            self._host.line(actor, self._deadline)
            pending[actor] = self._host.submit(actor, call, pickle.dumps(payload))
        answers = {}
        for actor, reply in pending.items():
            try:
                answer = reply.result(self._deadline)
            except TimeoutError as error:
                msg = (
                    f"actor {self._labels[actor]} did not say within compile_timeout="
                    f"{self._timeout_s} s whether it can share GPU memory"
                )
                raise GraphError(msg) from error
            answers[actor] = pickle.loads(answer) if answer else None
        return answers
