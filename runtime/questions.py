"""What other processes may ask of the session, each a method; errors go back to who asked."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from compiled_dag.host import ActorId
from runtime.claims import Bequest, Claim
from runtime.process_facts import assigned_resources, facts_of, is_cancelled
from runtime.system_call import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compiled_dag.errors import ActorDiedError
    from runtime.ids import TaskId
    from runtime.listing import Row
    from runtime.options import ActorOptions
    from runtime.parcel import Parcel
    from runtime.peer import Peer
    from runtime.process_facts import ProcessFacts
    from runtime.session import Session
    from runtime.signatures import MethodSpec


class Later(NamedTuple):
    """An answer that is not known yet."""

    then: Callable[[Callable[[Any], None]], None]
    """Calls a function with the answer once it is."""


class WithFds(NamedTuple):
    """An answer with descriptors; they stay whose they are."""

    value: Any
    fds: Sequence[int]


class Questions:
    """Answers; the first two arguments are who asks, and the parcels or descriptors with it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(
        self,
        peer: Peer,
        parcels: Sequence[Parcel],
        class_name: str,
        options: ActorOptions,
        methods: Mapping[str, MethodSpec],
        needed: Sequence[int],
    ) -> int:
        """Start an actor; its lifeline is lent to who asks."""
        refs = [peer.find(number) for number in needed]
        lifeline = self._session.create_from(class_name, options, parcels[0], refs, methods)
        peer.lend([lifeline])
        return lifeline.actor_id

    def get_actor(
        self, peer: Peer, _parcels: Sequence[Parcel], name: str, namespace: str | None
    ) -> tuple[int, str, Mapping[str, MethodSpec]]:
        """Return a named actor; its lifeline is lent to who asks."""
        lifeline, methods = self._session.get_actor(name, namespace)
        peer.lend([lifeline])
        return lifeline.actor_id, lifeline.owner.class_name, methods

    def end_after_calls(self, _peer: Peer, _parcels: Sequence[Parcel], actor_id: int) -> None:
        """Have an actor end once it has served what is queued."""
        self._session.actor(actor_id).end_after_calls()

    def kill(
        self, _peer: Peer, _parcels: Sequence[Parcel], actor_id: int, no_restart: bool
    ) -> None:
        """End an actor at once."""
        self._session.kill(ActorId(actor_id), no_restart=no_restart)

    def cancel(
        self, peer: Peer, _parcels: Sequence[Parcel], number: int, force: bool, recursive: bool
    ) -> None:
        """Cancel what makes a reference's value."""
        self._session.cancel(peer.find(number), force=force, recursive=recursive)

    def task_id(self, peer: Peer, _parcels: Sequence[Parcel], number: int) -> TaskId | None:
        """Return the id of what makes a reference's value."""
        return self._session.task_id(peer.find(number))

    # --- for graphs: see `runtime.nested_host`

    def line(self, _peer: Peer, _parcels: Sequence[Parcel], actor_id: int) -> Later:
        """Return the board line of an actor once its process exists."""
        actor = self._session.actor(actor_id)
        self._session.placement.check_hope(actor)

        def tell(answer: Callable[[Any], None]) -> None:
            answer(actor.line if actor.death is None else Failure(actor.death))

        return Later(lambda answer: self._session.processes.when_born(actor, lambda: tell(answer)))

    def relay(
        self, _peer: Peer, fds: Sequence[int], actor_id: int, function: bytes, payload: bytes
    ) -> Later:
        """Have an actor run a function of this project's own."""
        session, id_ = self._session, ActorId(actor_id)
        session.waits.arm()  # who asks will wait for that, as in a call

        def carry_out(answer: Callable[[Any], None]) -> None:
            try:
                session.submit_pickled(
                    id_, function, payload, fds, lambda call: answer(call.outcome())
                )
            finally:
                close_all(fds)

        return Later(carry_out)

    def death(
        self, _peer: Peer, _parcels: Sequence[Parcel], actor_id: int
    ) -> ActorDiedError | None:
        """Return why an actor is dead, or None."""
        return self._session.actor(actor_id).death

    def gpus(
        self, _peer: Peer, _parcels: Sequence[Parcel], actor_id: int
    ) -> tuple[float, tuple[str, ...]]:
        """Return how many logical GPUs an actor holds, and the physical ones behind them."""
        actor = self._session.actor(actor_id)
        return actor.num_gpus, actor.physical_gpus

    def has_physical_gpus(self, _peer: Peer, _parcels: Sequence[Parcel]) -> bool:
        """Tell whether logical GPUs stand for devices."""
        return self._session.has_physical_gpus()

    def claim(
        self, peer: Peer, _parcels: Sequence[Parcel], graph_id: int, actors: Sequence[int]
    ) -> None:
        """Note that who asks drives a graph."""
        claim = Claim(owner=peer.line, graph_id=graph_id, actors=frozenset(actors))
        self._session.claims.add(claim)

    def drop_claim(self, _peer: Peer, _parcels: Sequence[Parcel], graph_id: int) -> None:
        """Forget it."""
        self._session.claims.drop(graph_id)

    def bequeath(
        self,
        peer: Peer,
        fds: Sequence[int],
        number: int,
        actors: Sequence[int],
        function: bytes,
        payload: bytes,
    ) -> None:
        """Note what is to be done if who asks dies."""
        bequest = Bequest(
            owner=peer.line,
            actors=tuple(map(ActorId, actors)),
            memory=fds[0],
            function=function,
            payload=payload,
        )
        self._session.claims.bequeath(number, bequest)

    def take_back(self, peer: Peer, _parcels: Sequence[Parcel], number: int) -> None:
        """Forget it."""
        self._session.claims.take_back(peer.line, number)

    # --- what a process may know of itself

    def process_facts(self, _peer: Peer, _parcels: Sequence[Parcel], actor_id: int) -> ProcessFacts:
        """Return what a process may know of itself."""
        return facts_of(self._session, actor_id)

    def assigned_resources(
        self, _peer: Peer, _parcels: Sequence[Parcel], actor_id: int
    ) -> dict[str, float]:
        """Return what an actor, or the task of a worker, holds."""
        return assigned_resources(self._session, actor_id)

    def is_cancelled(
        self, _peer: Peer, _parcels: Sequence[Parcel], actor_id: int, number: int
    ) -> bool:
        """Tell whether a call was cancelled."""
        return is_cancelled(self._session, actor_id, number)

    def own_handle(
        self, peer: Peer, _parcels: Sequence[Parcel], actor_id: int
    ) -> tuple[str, Mapping[str, MethodSpec]]:
        """Return what makes a handle of who asks; its lifeline is lent to it."""
        process = self._session.actor(actor_id)
        peer.lend([process.lifeline()])
        return process.class_name, process.methods

    def rows(self, _peer: Peer, _parcels: Sequence[Parcel], kind: str) -> Sequence[Row]:
        """Return rows for `runtime.state`."""
        from runtime.listing import rows_of  # noqa: PLC0415  for people who look

        return rows_of(self._session, kind)

    def summary(self, _peer: Peer, _parcels: Sequence[Parcel]) -> dict[str, Any]:
        """Return what `runtime.state.summary` does."""
        from runtime.listing import summary_of  # noqa: PLC0415  for people who look

        return summary_of(self._session)

    def activities(
        self,
        _peer: Peer,
        _parcels: Sequence[Parcel],
        actor_ids: Sequence[ActorId],
        deadline: float,
        stacks: bool,
    ) -> Later:
        """Return what actors are doing; not on this thread, which others need meanwhile."""
        find = self._session.activities

        def look(answer: Callable[[Any], None]) -> None:
            answer(find(actor_ids, deadline, stacks=stacks))

        return Later(
            lambda answer: threading.Thread(
                target=look, args=(answer,), name="stacks", daemon=True
            ).start()
        )

    def groups(
        self, _peer: Peer, _parcels: Sequence[Parcel], what: str, args: Sequence[Any]
    ) -> Later:
        """Call a method of the eager collective groups; on a thread, because it may wait."""
        from runtime.group_home import answer_on_thread  # noqa: PLC0415  for those in groups

        return Later(lambda take: answer_on_thread(self._session.groups, what, args, take))

    def groups_with_fds(
        self, _peer: Peer, _parcels: Sequence[Parcel], what: str, args: Sequence[Any]
    ) -> Later:
        """As `groups`, for a method that returns descriptors beside its value."""
        from runtime.group_home import answer_on_thread  # noqa: PLC0415  as above

        def hand_over(answer: Callable[[Any], None], found: Any) -> None:
            if isinstance(found, Failure):
                answer(found)
                return
            try:
                answer(WithFds(*found))
            finally:
                close_all(found[1])

        return Later(
            lambda take: answer_on_thread(
                self._session.groups, what, args, lambda found: hand_over(take, found)
            )
        )

    def arm_reports(self, _peer: Peer, _parcels: Sequence[Parcel]) -> None:
        """Look, after a while, whether those who wait do so in a circle."""
        self._session.waits.arm()

    def progress_of(self, peer: Peer, _parcels: Sequence[Parcel], number: int) -> str:
        """Return what is known of a reference that is not ready."""
        return self._session.progress_of(peer.find(number))

    def take_spans(
        self, _peer: Peer, _parcels: Sequence[Parcel], actor_id: int, pid: int, data: bytes
    ) -> None:
        """Keep what an ending process has run."""
        self._session.traces.take(actor_id, pid, data)

    def pin(self, peer: Peer, _parcels: Sequence[Parcel], number: int) -> None:
        """Keep a reference as long as the session lives."""
        self._session.store.pin(peer.find(number))

    def lend(self, peer: Peer, _parcels: Sequence[Parcel], number: int) -> None:
        """Let others find a reference that the process has, while it has it."""
        self._session.store.lend(peer.find(number))

    def borrow(self, peer: Peer, _parcels: Sequence[Parcel], number: int) -> None:
        """Give the process a reference that was pinned or lent."""
        peer.lend([self._session.store.find_stray(number)])

    def next_item(
        self, peer: Peer, _parcels: Sequence[Parcel], number: int, position: int
    ) -> Later:
        """Return the number of a stream's item, which is lent to who asks; None at the end."""
        end = peer.find(number)

        def tell(answer: Callable[[Any], None]) -> None:
            item = end.take(position)
            if item is not None:
                peer.lend([item])
            answer(None if item is None else item.number)

        return Later(lambda answer: end.when_known(position, lambda: tell(answer)))

    def announce(self, peer: Peer, _parcels: Sequence[Parcel], number: int, position: int) -> int:
        """Return the number of what tells that a stream's item is known; it is lent to who asks."""
        announced = self._session.announce(peer.find(number), position)
        peer.lend([announced])
        return announced.number

    def code(self, peer: Peer, _parcels: Sequence[Parcel], number: int) -> int:
        """Return the number of a reference to a function's code, which is lent to who asks."""
        ref = self._session.code_of(number)
        peer.lend([ref])
        return ref.number

    def resources(self, _peer: Peer, _parcels: Sequence[Parcel], which: str) -> dict[str, float]:
        """Return the resources there are, or those that are free."""
        return self._session.resources(which)


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that have arrived."""
    for fd in fds:
        os.close(fd)
