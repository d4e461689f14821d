"""Where eager collective groups live, and the way there from every process: `collective.home`.

They live in the driver. There they are asked directly; an actor's questions come over its socket
and are answered on threads, because answering may wait for other ranks.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from compiled_dag.host import ActorId
from compiled_dag.shm.board import GROUP_BIT
from runtime import context
from runtime.actor import ActorClass, ActorHandle
from runtime.system_call import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collective.groups import Groups
    from compiled_dag.shm.board import Board
    from compiled_dag.shm.waiter import Waiter
    from runtime.nested import NestedSession
    from runtime.session import Session


class DriverHome:
    """The driver's way to the groups."""

    actor_id = None

    def __init__(self, session: Session) -> None:
        self._session = session
        self.board = session.board
        self.resources: dict[str, Any] = {}

    label = "the driver"

    @property
    def waiter(self) -> Waiter:
        """The calling thread's waiting policy."""
        return self._session.waiter

    main_waiter = waiter

    def ask(self, what: str, *args: Any) -> Any:
        """Call a method of the session's groups."""
        return getattr(self._session.groups, what)(*args)

    def ask_with_fds(self, what: str, *args: Any) -> tuple[Any, Sequence[int]]:
        """Call a method that returns descriptors beside its value."""
        answer: tuple[Any, Sequence[int]] = self.ask(what, *args)
        return answer

    tell = ask

    def note_wait(self, group_id: int) -> None:
        """Do nothing: the driver is in no group."""

    def arm_reports(self) -> None:
        """Do nothing, for the same reason."""

    def id_of(self, handle: Any) -> ActorId:
        """Return the actor behind a handle."""
        return id_of(handle)

    def handle_of(self, actor_id: ActorId) -> ActorHandle:
        """Return a handle of an actor."""
        process = self._session.actor(actor_id)
        return ActorHandle(process.lifeline(), process.methods)


class RemoteHome:
    """The way to the groups of an actor, or a worker."""

    def __init__(self, session: NestedSession) -> None:
        self._session = session

    @property
    def actor_id(self) -> ActorId | None:
        """This actor; None in tasks."""
        found = context.actor_id()
        return None if found is None or self._session.in_task else ActorId(found)

    @property
    def label(self) -> str:
        """What messages call this process."""
        return "a task" if self._session.in_task else context.label()

    @property
    def board(self) -> Board:
        """The session's board."""
        return self._session.host.board

    @property
    def waiter(self) -> Waiter:
        """The calling thread's waiting policy."""
        return self._session.waiter

    @property
    def main_waiter(self) -> Waiter:
        """The main thread's."""
        return self._session.main_waiter

    @property
    def resources(self) -> dict[str, Any]:
        """What is closed when this actor ends."""
        return self._session.kept

    def ask(self, what: str, *args: Any) -> Any:
        """Call a method of the groups, in the driver."""
        return self._session.ask("groups", what, args)

    def ask_with_fds(self, what: str, *args: Any) -> tuple[Any, Sequence[int]]:
        """Call a method that returns descriptors beside its value."""
        return self._session.asking.ask_with_fds("groups_with_fds", what, args)

    def tell(self, what: str, *args: Any) -> None:
        """Call a method of the groups whose answer nobody needs."""
        self._session.host.tell("groups", what, args)

    def note_wait(self, group_id: int) -> None:
        """Show what the main thread waits for."""
        self._session.note_number(group_id and GROUP_BIT | group_id)

    def arm_reports(self) -> None:
        """Have the driver look for circles of waits."""
        self._session.host.tell("arm_reports")

    def id_of(self, handle: Any) -> ActorId:
        """Return the actor behind a handle."""
        return id_of(handle)

    def handle_of(self, actor_id: ActorId) -> ActorHandle:
        """Return a handle of an actor."""
        class_name, methods = self._session.ask("own_handle", actor_id)
        lifeline = self._session.find(-actor_id)
        return ActorHandle(self._session.adopt(lifeline, class_name), methods)


def id_of(handle: Any) -> ActorId:
    """Return the actor behind a handle.

    Raises:
        TypeError: `handle` is none.
    """
    if not isinstance(handle, ActorHandle):
        kind = type(handle).__name__
        hint = ": make actors of it with remote()" if isinstance(handle, ActorClass) else ""
        msg = f"collective groups are made of handles of actors, not {kind} ({handle!r}){hint}"
        raise TypeError(msg)
    return ActorId(handle._runtime_process.actor_id)  # noqa: SLF001  hidden from users only


def answer_on_thread(
    groups: Groups, what: str, args: Sequence[Any], take: Callable[[Any], None]
) -> None:
    """Ask the groups on a thread of its own, and hand the answer over."""

    def run() -> None:
        try:
            found = getattr(groups, what)(*args)
        except BaseException as error:  # noqa: BLE001  raised by who has asked
            found = Failure(error)
        take(found)

    threading.Thread(target=run, name=f"groups: {what}", daemon=True).start()
