"""What a session consists of at the moment, as in Ray's state API; also as `runtime.util.state`.

Works in the driver, in actors and in tasks. The lists are made when they are asked for, from what
is there: tasks that have ended are listed as long as anybody holds a reference to a result, calls
of actors until they are answered. (Objects that `gc.freeze` was applied to are not found.)
"""

from __future__ import annotations

import socket
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

from runtime import context, ids, lifecycle
from runtime.events import Event
from runtime.listing import (
    KINDS,
    ActorState,
    FunctionState,
    ObjectState,
    TaskState,
    rows_of,
    summary_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.nested import NestedSession

__all__ = [
    "ActorState",
    "Event",
    "FunctionState",
    "ObjectState",
    "TaskState",
    "list_actors",
    "list_events",
    "list_functions",
    "list_objects",
    "list_tasks",
    "nodes",
    "summarize_actors",
    "summarize_objects",
    "summarize_tasks",
    "summary",
]


def list_actors(
    *,
    filters: Sequence[tuple[str, str, Any]] | None = None,
    limit: int = 100,
    **ignored: Any,
) -> list[ActorState]:
    """Return the session's actors, dead ones too.

    Args:
        filters: ``(field, "=" or "!=", value)`` each; rows must pass all. Values compare as text.
        limit: The most rows to return.
        **ignored: ``address``, ``timeout``, ``detail`` and the like, for Ray's sake.

    Raises:
        ValueError: A filter with an unknown field or comparison, or a limit below 1.
    """
    del ignored
    return _list("actors", filters, limit)


def list_tasks(
    *,
    filters: Sequence[tuple[str, str, Any]] | None = None,
    limit: int = 100,
    **ignored: Any,
) -> list[TaskState]:
    """Return tasks and unanswered calls of actors; arguments and errors as `list_actors`."""
    del ignored
    return _list("tasks", filters, limit)


def list_objects(
    *,
    filters: Sequence[tuple[str, str, Any]] | None = None,
    limit: int = 100,
    **ignored: Any,
) -> list[ObjectState]:
    """Return the objects there are or will be; arguments and errors as `list_actors`."""
    del ignored
    return _list("objects", filters, limit)


def list_functions(
    *,
    filters: Sequence[tuple[str, str, Any]] | None = None,
    limit: int = 100,
    **ignored: Any,
) -> list[FunctionState]:
    """Return the remote functions in use; arguments and errors as `list_actors`."""
    del ignored
    return _list("functions", filters, limit)


def list_events(
    *,
    filters: Sequence[tuple[str, str, Any]] | None = None,
    limit: int = 100,
    **ignored: Any,
) -> list[Event]:
    """Return what has happened, the oldest first; arguments and errors as `list_actors`.

    The last 1000 events are kept: processes that started and ended, actors killed and restarted,
    tasks that failed. Of more than `limit` the last ones are returned.
    """
    del ignored
    return _list("events", filters, limit, last=True)


def summary() -> dict[str, Any]:
    """Return counts of ``actors``, ``tasks`` and ``objects`` by name and state, and ``resources``.

    >>> summary()["tasks"]  # doctest: +SKIP
    {'preprocess': {'FINISHED': 10, 'RUNNING': 2}}
    """
    session = lifecycle.current()
    if context.in_actor():
        found: dict[str, Any] = cast("NestedSession", session).ask("summary")
        return found
    return summary_of(session)


def summarize_actors(**_ignored: Any) -> dict[str, dict[str, int]]:
    """Return how many actors of each class are in each state."""
    return cast("dict[str, dict[str, int]]", summary()["actors"])


def summarize_tasks(**_ignored: Any) -> dict[str, dict[str, int]]:
    """Return how many tasks of each name are in each state."""
    return cast("dict[str, dict[str, int]]", summary()["tasks"])


def summarize_objects(**_ignored: Any) -> dict[str, dict[str, int]]:
    """Return how many objects of each origin are in each state."""
    return cast("dict[str, dict[str, int]]", summary()["objects"])


def nodes() -> list[dict[str, Any]]:
    """Return the machines: one, with the session's ``Resources``."""
    totals = lifecycle.current().resources("totals")
    name = socket.gethostname()
    return [
        {
            "NodeID": ids.NODE,
            "Alive": True,
            "NodeManagerAddress": "127.0.0.1",
            "NodeManagerHostname": name,
            "NodeName": name,
            "Resources": totals,
            "Labels": {},
            "alive": True,
        }
    ]


def _list(
    kind: str, filters: Sequence[tuple[str, str, Any]] | None, limit: int, *, last: bool = False
) -> list[Any]:
    if limit < 1:
        raise ValueError(f"list_{kind}: limit={limit} is below 1")
    chosen = _checked(kind, filters or ())
    session = lifecycle.current()
    if context.in_actor():
        rows = cast("NestedSession", session).ask("rows", kind)
    else:
        rows = rows_of(session, kind)
    passed = [row for row in rows if all(_passes(row, *one) for one in chosen)]
    return passed[-limit:] if last else passed[:limit]


def _checked(kind: str, filters: Sequence[Any]) -> Sequence[tuple[str, str, Any]]:
    names = [field.name for field in fields(KINDS[kind])]
    for one in filters:
        try:
            name, comparison, _ = one
        except (TypeError, ValueError):
            raise ValueError(
                f"list_{kind}: a filter is (field, '=' or '!=', value), not {one!r}"
            ) from None
        if name not in names:
            raise ValueError(f"list_{kind}: no field {name!r}; there are {', '.join(names)}")
        if comparison not in ("=", "!="):
            raise ValueError(f"list_{kind}: comparison {comparison!r} in {one!r}; use '=' or '!='")
    return filters


def _passes(row: Any, name: str, comparison: str, value: Any) -> bool:
    return (str(getattr(row, name)) == str(value)) is (comparison == "=")
