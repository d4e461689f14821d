"""What eager collectives ask of whoever owns processes: `runtime` implements it.

Groups live in the driver (`collective.groups`), as everything does that several processes share.
Whoever makes one, joins one or hears of its end asks there, from wherever it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from collective.kinds import DRAWN
from compiled_dag.host import GROUP_HOME, offered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.host import ActorId
    from compiled_dag.shm.board import Board
    from compiled_dag.shm.waiter import Waiter


class Home(Protocol):
    """The way of this process to the session's groups."""

    @property
    def actor_id(self) -> ActorId | None:
        """This actor; None in the driver and in tasks."""
        ...

    @property
    def label(self) -> str:
        """What messages call this process."""
        ...

    @property
    def board(self) -> Board:
        """The session's board."""
        ...

    @property
    def waiter(self) -> Waiter:
        """The calling thread's waiting policy."""
        ...

    @property
    def main_waiter(self) -> Waiter:
        """The main thread's."""
        ...

    @property
    def resources(self) -> dict[str, Any]:
        """What is closed when this actor ends, by key."""
        ...

    def ask(self, what: str, *args: Any) -> Any:
        """Call a method of the session's `Groups`; raises what it raises."""
        ...

    def ask_with_fds(self, what: str, *args: Any) -> tuple[Any, Sequence[int]]:
        """As `ask`, where descriptors come with the answer; the caller owns them."""
        ...

    def tell(self, what: str, *args: Any) -> None:
        """As `ask`, without waiting for the answer; does nothing once the session has ended."""
        ...

    def note_wait(self, group_id: int) -> None:
        """Show that the main thread waits in a group; 0: no more. Nothing on other threads."""
        ...

    def arm_reports(self) -> None:
        """Have the driver look whether those who wait do so in a circle."""
        ...

    def id_of(self, handle: Any) -> ActorId:
        """Return the actor behind a handle.

        Raises:
            TypeError: `handle` is no handle of an actor.
        """
        ...

    def handle_of(self, actor_id: ActorId) -> Any:
        """Return a handle of an actor."""
        ...


def find_home() -> Home:
    """Return the home of this process's groups.

    Raises:
        RuntimeError: There has been no session, or this is a forked child of who uses it.
    """
    find = offered(GROUP_HOME)
    if find is None:
        msg = (
            "there is no session, and so there are no collective groups: runtime.init() starts one"
        )
        raise RuntimeError(msg)
    home: Home = find()
    return home


def member_home(what: str) -> Home:
    """Return the home, in an actor.

    Raises:
        RuntimeError: This is no actor.
    """
    home = find_home() if offered(GROUP_HOME) is not None else None
    if home is None or home.actor_id is None:
        where = "the driver" if home is None else home.label
        drawn = f", or draw it into a graph with {what}.bind(nodes)" if what in DRAWN else ""
        msg = (
            f"{what} is for actors, and this is {where}: call it in a method of an actor{drawn}. "
            "Groups are made from outside with create_collective_group(actors)"
        )
        raise RuntimeError(msg)
    return home
