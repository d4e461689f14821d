"""The state API under Ray's name; see `runtime.state`."""

from runtime.state import (
    ActorState,
    Event,
    FunctionState,
    ObjectState,
    TaskState,
    list_actors,
    list_events,
    list_functions,
    list_objects,
    list_tasks,
    summarize_actors,
    summarize_objects,
    summarize_tasks,
    summary,
)

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
    "summarize_actors",
    "summarize_objects",
    "summarize_tasks",
    "summary",
]
