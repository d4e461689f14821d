"""What users ask of the session in an actor or a task: as `runtime.requests`, by messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cloudpickle

from runtime.arguments import pack_arguments
from runtime.checks import STREAM
from runtime.messages import Put, Submit, TaskRequest
from runtime.parcel import Parcel
from runtime.references import next_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from runtime.held import Held
    from runtime.ids import TaskId
    from runtime.objects import Lifeline, ObjectRef
    from runtime.options import ActorOptions, TaskOptions


class NestedRequests:
    """The part of `NestedSession` that serves users."""

    held: Held
    find: Callable[[int], Any]
    ask: Callable[..., Any]
    send: Callable[[Any], None]
    new_refs: Callable[[str, int], tuple[ObjectRef, ...]]
    expecting: Callable[[Sequence[ObjectRef]], AbstractContextManager[None]]
    adopt: Callable[[Lifeline, str], Lifeline]

    def put(self, value: Any) -> ObjectRef:
        """Store a value."""
        parcel = Parcel.of(value)
        ref = self.held.new(f"put({type(value).__name__})")
        ref.complete(parcel)
        self.send(Put(ref.number, (parcel,)))
        return ref

    def next_export(self) -> int:
        """Return a number for a function."""
        return next_reference()

    def export_function(self, number: int, name: str, function: Any) -> None:
        """Have the driver keep a function."""
        self.send(Submit(number, name.encode(), (Parcel.of(function),)))

    def code_of(self, number: int) -> ObjectRef:
        """Return a reference to the plain function that is kept under a number."""
        ref: ObjectRef = self.find(self.ask("code", number))
        return ref

    def submit_task(
        self, function: int, options: TaskOptions, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[ObjectRef, ...]:
        """Run a task."""
        parcel, needed = pack_arguments(args, kwargs)
        count = options.num_returns
        refs = self.new_refs(options.name or "a task", 1 if count in (None, STREAM) else int(count))
        request = TaskRequest(function, options, _numbers(refs), _numbers(needed))
        # Not by pickle: the exceptions in `retry_exceptions` may be of __main__.
        self.send(Submit(0, cloudpickle.dumps(request, 5), (parcel,)))
        return refs

    def next_item(self, end: ObjectRef, position: int) -> ObjectRef | None:
        """Wait for an item of a stream; None at its end."""
        with self.expecting(()):
            number = self.ask("next_item", end.number, position)
        return None if number is None else self.find(number)

    def announce(self, end: ObjectRef, position: int) -> ObjectRef:
        """Return a reference that is ready once it is known what comes: whether an item does."""
        announced: ObjectRef = self.find(self.ask("announce", end.number, position))
        return announced

    def create(
        self,
        class_name: str,
        options: ActorOptions,
        arguments: tuple[Sequence[Any], Mapping[str, Any]],
        methods: Any,
    ) -> Lifeline:
        """Start an actor."""
        parcel, needed = pack_arguments(*arguments, hidden=1)
        args = (class_name, options, methods, _numbers(needed))
        actor_id = self.ask("create", *args, parcels=(parcel,))
        return self._lifeline(actor_id, class_name)

    def get_actor(self, name: str, namespace: str | None) -> tuple[Lifeline, Any]:
        """Return a named actor and its methods."""
        actor_id, class_name, methods = self.ask("get_actor", name, namespace)
        return self._lifeline(actor_id, class_name), methods

    def _lifeline(self, actor_id: int, class_name: str) -> Lifeline:
        lifeline: Lifeline = self.find(-actor_id)
        return self.adopt(lifeline, class_name)

    def resources(self, which: str) -> dict[str, float]:
        """Return the session's resources, or those that are free."""
        found: dict[str, float] = self.ask("resources", which)
        return found

    def kill(self, actor_id: int, *, no_restart: bool = True) -> None:
        """End an actor's process at once."""
        self.ask("kill", actor_id, no_restart)

    def task_id(self, ref: ObjectRef) -> TaskId | None:
        """Return the id of what makes the value of `ref`; None for a value given to `put`."""
        found: TaskId | None = self.ask("task_id", ref.number)
        return found

    def cancel(self, ref: ObjectRef, *, force: bool, recursive: bool) -> None:
        """Cancel what makes a reference's value."""
        self.ask("cancel", ref.number, force, recursive)


def _numbers(refs: Sequence[ObjectRef]) -> list[int]:
    return [ref.number for ref in refs]
