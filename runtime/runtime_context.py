"""What code can learn about where it runs: `get_runtime_context()`, as in Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from runtime import context, ids, lifecycle, spans
from runtime.actor import ActorHandle
from runtime.process_facts import ProcessFacts, facts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.nested import NestedSession


class RuntimeContext:
    """Facts about the process, and about the call of the thread or coroutine that asks.

    Identifiers are hexadecimal strings, unique in the session. What the process does not know it
    asks the driver.
    """

    # --- where

    def get_job_id(self) -> str:
        """Return the session's id: a session is one job."""
        return ids.JOB

    def get_node_id(self) -> str:
        """Return the machine's id: there is one."""
        return ids.NODE

    def get_node_labels(self) -> dict[str, str]:
        """Return the machine's labels: it has none."""
        return {}

    def get_worker_id(self) -> str:
        """Return the id of this process."""
        return ids.worker(context.actor_id() or 0)

    def get_placement_group_id(self) -> None:
        """Return None: there are no placement groups."""

    @property
    def namespace(self) -> str:
        """Where names are looked up unless another namespace is given."""
        return self._known.namespace

    @property
    def runtime_env(self) -> Mapping[str, Any]:
        """``env_vars`` and ``working_dir`` as asked for by the session and this process."""
        return dict(self._known.runtime_env)

    # --- what runs

    def get_task_id(self) -> str | None:
        """Return the id of the task or actor call that runs here; None if none does."""
        running = context.running.get()
        if running is None:
            return None
        number, method, _ = running
        if spans.is_task(method):
            return ids.task(spans.task_number(method))
        return ids.call(number, context.actor_id() or 0)

    def get_task_name(self) -> str | None:
        """Return the task's name, or ``Class.method``; None if none runs here."""
        running = context.running.get()
        return None if running is None else spans.name_of(running[1], context.class_name())

    def is_canceled(self) -> bool:
        """Tell whether the task or call that runs here was cancelled.

        Raises:
            RuntimeError: None runs here.
        """
        running = context.running.get()
        if running is None:
            raise RuntimeError("is_canceled() is for tasks and actor calls: none runs here")
        found: bool = _ask("is_cancelled", context.actor_id(), running[0])
        return found

    # --- the actor

    def get_actor_id(self) -> str | None:
        """Return the id of this actor; None in the driver and in tasks."""
        actor_id = context.actor_id()
        if actor_id is None or not self._known.is_actor:
            return None
        return ids.actor(actor_id)

    def get_actor_name(self) -> str | None:
        """Return the name of this actor, empty if it has none; None in the driver and in tasks."""
        return (self._known.name or "") if self._known.is_actor else None

    @property
    def current_actor(self) -> ActorHandle:
        """A handle of this actor, which keeps it alive where it travels.

        Raises:
            RuntimeError: This is no actor.
        """
        self._check_actor("current_actor")
        actor_id = context.actor_id()
        assert actor_id is not None
        class_name, methods = _ask("own_handle", actor_id)
        session = _session()
        lifeline = session.adopt(session.find(-actor_id), class_name)
        return ActorHandle(lifeline, methods)

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether this actor was made again after a death.

        Raises:
            RuntimeError: This is no actor.
        """
        self._check_actor("was_current_actor_reconstructed")
        return self._known.num_restarts > 0

    def _check_actor(self, what: str) -> None:
        if not self._known.is_actor:
            where = "a task" if context.in_actor() else "the driver"
            raise RuntimeError(f"{what}: this is {where}, it is known in actors only")

    # --- resources

    def get_assigned_resources(self) -> dict[str, float]:
        """Return what this actor or task holds; nothing in the driver."""
        if not context.in_actor():
            return {}
        found: dict[str, float] = _ask("assigned_resources", context.actor_id())
        return found

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """Return the GPUs assigned to this actor or task, as strings."""
        return {"GPU": [str(gpu) for gpu in context.gpu_ids()]}

    @property
    def _known(self) -> ProcessFacts:
        if not context.in_actor():
            return facts_of(lifecycle.current(), None)
        if _Cache.facts is None:
            _Cache.facts = _ask("process_facts", context.actor_id())
        return _Cache.facts

    def __repr__(self) -> str:
        return f"<runtime context of {context.label()}>"


def _ask(what: str, *args: Any) -> Any:
    return _session().ask(what, *args)


def _session() -> NestedSession:
    return cast("NestedSession", lifecycle.current())


class _Cache:
    """What an actor or worker has asked for already."""

    facts: ProcessFacts | None = None


def get_runtime_context() -> RuntimeContext:
    """Return what is known about where this code runs, in the driver, an actor or a task."""
    lifecycle.current()
    return RuntimeContext()
