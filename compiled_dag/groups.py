"""What a graph's collectives and accelerator edges run on: its groups, and users' communicators."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, cast

from compiled_dag.communicators import DriverCommunicators, leave_communicators, used_by
from compiled_dag.errors import GraphError
from compiled_dag.host import EDGE_GROUPS, offered
from compiled_dag.package import EdgePart, RankPart

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compiled_dag.capture import Captured
    from compiled_dag.host import Actor, SystemCall
    from compiled_dag.ir import CommunicatorId, NodeId, OperationId
    from compiled_dag.memory import Taken
    from compiled_dag.operation import Backend, CollectiveOp, EdgeGroups, Group
    from compiled_dag.outcome import Place
    from compiled_dag.program import Program

    LeaveWord = Callable[[Sequence[Actor], int, SystemCall, bytes], None]


class Groups:
    """All of them, seen from the driver."""

    def __init__(self, graph_id: int, captured: Captured, program: Program) -> None:
        """Begin with none.

        Args:
            graph_id: The graph.
            captured: What it was compiled from.
            program: The program.
        """
        self._graph_id = graph_id
        self._captured = captured
        self._program = program
        self._groups: list[Group] = []
        self._taking: list[tuple[tuple[int, ...], Group]] = []
        """Groups of collectives, by participants."""
        self._edges: list[EdgePart] = []
        self.settled: dict[OperationId, tuple[str, str]] = {}
        """Backends of operations that do not run on what was chosen for them, and why."""
        self._communicators = DriverCommunicators(
            graph_id, captured.host, captured.communicators, used_by(program)
        )

    @property
    def ranks(self) -> dict[CommunicatorId, dict[int, int]]:
        """By communicator, the ranks of the graph's participants."""
        return self._communicators.ranks_of(self._captured.actors)

    @property
    def gpu_bytes(self) -> tuple[Taken, ...]:
        """Participants of each group whose ranks have GPU memory of their own, and how much."""
        found = ((members, group.gpu_bytes) for members, group in self._taking)
        return tuple((members, taken) for members, taken in found if taken)

    def open(
        self,
        places: Mapping[NodeId, Place],
        memory: int,
        deadline: float,
        leave_word: LeaveWord,
    ) -> dict[int, dict[OperationId, RankPart]]:
        """Initialize the communicators, and form one group per distinct (actors, backend).

        Args:
            places: What messages call the nodes.
            memory: Descriptor of the graph's segment.
            deadline: When to give up.
            leave_word: Says what actors are to do if this process dies. Not kept: it is of the
                owner, and memory would wait for the collector.

        Returns:
            Every participant's parts in the collectives.
        """
        members = self._communicators.members
        if members:
            text = str(self._graph_id).encode()
            leave_word(members, memory, leave_communicators, text)
            self._communicators.open(deadline)
        self._open_edges(deadline, leave_word)
        return self._open_groups(places, deadline, leave_word)

    def edges_of(self, participant: int) -> tuple[EdgePart, ...]:
        """Return the groups of edges that a participant is in."""
        return tuple(part for part in self._edges if participant in part.members)

    def _open_edges(self, deadline: float, leave_word: LeaveWord) -> None:
        """Form one group for all channels that have the same ends."""
        specs = [spec for spec in self._program.channels if spec.transport.has_group]
        backends = {spec.ends: spec.transport.mechanism for spec in specs}
        for members, backend in backends.items():
            find = offered(EDGE_GROUPS)
            assert find is not None, "no session offers groups, and one has bound the nodes"
            groups: EdgeGroups = find()
            actors = [self._captured.actors[member - 1] for member in members]
            host = self._captured.host
            group = groups.new_group(host, actors, cast("Backend", backend))
            self._groups.append(group)  # before it has anything that Ctrl-C could lose
            group.open(deadline)
            leave_word(actors, group.memory_fd, group.leave, str(group.id).encode())
            self._edges.append(EdgePart(groups=groups, group_id=group.id, members=members))

    def _open_groups(
        self, places: Mapping[NodeId, Place], deadline: float, leave_word: LeaveWord
    ) -> dict[int, dict[OperationId, RankPart]]:
        parts: dict[int, dict[OperationId, RankPart]] = defaultdict(dict)
        opened: dict[tuple[tuple[int, ...], str], Group] = {}
        captured = self._captured
        for spec, op in zip(self._program.operations, captured.operations, strict=True):
            actors = [captured.actors[member - 1] for member in spec.members]
            number = spec.communicator
            by = None if number is None else self._communicators.part_of(number, actors)
            key = (spec.members, op.backend(actors) if by is None else f"communicator {number}")
            if key not in opened:
                group = opened[key] = op.new_group(captured.host, actors, by)
                self._groups.append(group)  # as above
                group.open(deadline)
                self._taking.append((spec.members, group))
                leave_word(actors, group.memory_fd, group.leave, str(group.id).encode())
            settled = opened[key].settled
            if settled is not None:
                self._settle(spec.id, op, settled)
            of_ranks = tuple(places[node] for node in spec.nodes)
            for rank, member in enumerate(spec.members):
                parts[member][spec.id] = RankPart(
                    op=op, group_id=opened[key].id, rank=rank, places=of_ranks
                )
        return parts

    def _settle(self, operation: OperationId, op: CollectiveOp, settled: tuple[str, str]) -> None:
        """Take note of another backend than the one that was chosen.

        Raises:
            GraphError: The user insists on that one.
        """
        if op.transport is not None:
            msg = f"{op} is to run on transport={op.transport!r}, and cannot: {settled[1]}"
            raise GraphError(msg)
        self.settled[operation] = settled

    def end(self, state: int) -> None:
        """Close or break the groups and wake all ranks."""
        for group in self._groups:
            group.end(state)

    def release(self) -> None:
        """Ask every living actor to drop its ends, without waiting. Idempotent."""
        for group in self._groups:
            group.release()
        self._communicators.release()  # last: groups use them to their end

    def close(self, deadline: float) -> None:
        """Release them and wait for the actors until `deadline`. Idempotent."""
        for group in self._groups:
            group.close(deadline)
        self._communicators.close(deadline)
