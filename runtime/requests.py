"""What users ask of the session in the driver; `nested_requests` asks the same from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compiled_dag.errors import ActorAlreadyExistsError
from compiled_dag.interrupts import whole
from runtime import ids, obituary
from runtime.arguments import pack_arguments
from runtime.checks import STREAM
from runtime.objects import ObjectRef
from runtime.parcel import Parcel
from runtime.process import ActorProcess
from runtime.references import next_reference
from runtime.stream import StreamEnd
from runtime.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compiled_dag.host import ActorId
    from runtime.events import EventLog
    from runtime.names import Names
    from runtime.objects import Lifeline
    from runtime.options import ActorOptions, TaskOptions
    from runtime.placement import Placement
    from runtime.processes import Processes
    from runtime.scheduler import Scheduler
    from runtime.signatures import MethodSpec
    from runtime.store import Store


class Requests:
    """The part of `Session` that serves users."""

    events: EventLog
    processes: Processes
    scheduler: Scheduler
    placement: Placement
    names: Names
    store: Store
    detached: list[Lifeline]
    check_owner: Callable[[], None]
    note_code: Callable[[Parcel], None]
    wait_until: Callable[[Callable[[], bool], float | None], bool]

    # --- actors

    def create(
        self,
        class_name: str,
        options: ActorOptions,
        arguments: tuple[Sequence[Any], Mapping[str, Any]],
        methods: Mapping[str, MethodSpec],
    ) -> Lifeline:
        """Start an actor; returns at once.

        Raises:
            TypeError: An argument of the constructor cannot be sent.
            OSError: The kernel refused a process.
        """
        self.check_owner()
        parcel, needed = pack_arguments(*arguments, hidden=1)
        return self.create_from(class_name, options, parcel, needed, methods)

    @whole
    def create_from(
        self,
        class_name: str,
        options: ActorOptions,
        parcel: Parcel,
        needed: Sequence[ObjectRef],
        methods: Mapping[str, MethodSpec],
    ) -> Lifeline:
        """Start an actor whose constructor's arguments are encoded.

        Raises:
            ActorAlreadyExistsError: A living actor has the name.
        """
        actor = self.processes.new(class_name, options)
        actor.methods = methods
        if options.name is not None:
            known = self.names.claim(options.name, options.namespace, actor)
            if known is not None:
                self.processes.drop(actor)
                if options.get_if_exists:
                    return known
                raise ActorAlreadyExistsError(
                    f"an actor named {options.name!r} is there already: {known!r}. Get it with "
                    "runtime.get_actor(), choose another name, or pass get_if_exists=True"
                )
        lifeline = actor.lifeline()
        if options.lifetime == "detached":
            self.detached.append(lifeline)
        self.note_code(parcel)
        actor.submit("__init__", parcel, needed, (None,))
        self.placement.place(actor)
        return lifeline

    @whole
    def kill(
        self, actor_id: ActorId, reason: str = obituary.KILLED, *, no_restart: bool = True
    ) -> None:
        """End an actor's process at once; without `no_restart` it may be made again."""
        self.check_owner()
        actor = self.processes[actor_id]
        if not no_restart and actor.life.restarts:
            actor.life.kill("")
            return
        self.events.add("ACTOR_KILLED", actor.label, pid=actor.pid, message=reason)
        actor.die(obituary.of_process(actor.label, actor.pid, None, reason, "", actor.options.name))
        actor.life.kill(reason)
        if self.placement.withdraw(actor):
            actor.life.bury()

    def next_item(self, end: ObjectRef, position: int) -> ObjectRef | None:
        """Wait for an item of a stream; None at its end."""
        assert isinstance(end, StreamEnd)
        self.wait_until(lambda: end.has(position), None)
        return end.take(position)

    def announce(self, end: ObjectRef, position: int) -> ObjectRef:
        """Return a reference that is ready once it is known what comes: whether an item does."""
        assert isinstance(end, StreamEnd)
        announced = ObjectRef(f"{end.what}[{position}]", end.source)

        def tell() -> None:
            announced.complete(Parcel.of(position < end.num_items))

        end.when_known(position, tell)
        return announced

    @whole
    def cancel(self, ref: ObjectRef, *, force: bool, recursive: bool) -> None:
        """Cancel what makes the value of `ref`.

        Raises:
            ValueError: `force` for a call of an actor.
        """
        source = ref.source
        if isinstance(source, Task):
            self.scheduler.cancel(source, force=force, recursive=recursive)
        elif isinstance(source, ActorProcess):
            if force:
                raise ValueError(
                    f"cancel({ref.what}, force=True): force would end the actor. Leave it out, or "
                    "use runtime.kill(actor)"
                )
            source.cancel(ref)

    def task_id(self, ref: ObjectRef) -> ids.TaskId | None:
        """Return the id of what makes the value of `ref`; None for a value given to `put`."""
        source = ref.source
        if isinstance(source, Task):
            return ids.task(source.task_id)
        if isinstance(source, ActorProcess):
            return ids.call(ref.call, source.actor_id)
        return None

    def get_actor(self, name: str, namespace: str | None) -> tuple[Lifeline, Any]:
        """Return a named actor, and its methods.

        Raises:
            ValueError: There is none.
        """
        self.check_owner()
        process = self.names.find(name, namespace)
        return process.lifeline(), process.methods

    def resources(self, which: str) -> dict[str, float]:
        """Return the resources there are (``"totals"``), or those that are free."""
        self.check_owner()
        ledger = self.placement.ledger
        return ledger.totals() if which == "totals" else ledger.available()

    # --- tasks

    def next_export(self) -> int:
        """Return a number for a function."""
        return next_reference()

    def export_function(self, number: int, name: str, function: Any) -> None:
        """Keep a function for tasks; see `Store.export`."""
        self.note_code(self.store.export(number, name, function))

    def submit_task(
        self, function: int, options: TaskOptions, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[ObjectRef, ...]:
        """Queue a call of a function."""
        self.check_owner()
        parcel, needed = pack_arguments(args, kwargs)
        count = options.num_returns
        numbers = (None,) * (1 if count in (None, STREAM) else int(count))
        return self.scheduler.submit(
            self.store.function(function), options, parcel, needed, numbers
        )
