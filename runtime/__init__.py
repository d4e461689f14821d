"""Processes, actors and objects: what graphs run on, and what users call."""

from typing import TYPE_CHECKING, Any

from runtime import actor, exceptions
from runtime.actor import ActorClass, ActorHandle, get_actor
from runtime.actor_method import ActorMethod
from runtime.api import cancel, get, kill, method, put, remote, wait
from runtime.function import RemoteFunction
from runtime.lifecycle import (
    SessionContext,
    available_resources,
    cluster_resources,
    get_gpu_ids,
    init,
    is_initialized,
    shutdown,
)
from runtime.objects import ObjectRef
from runtime.stream import ObjectRefGenerator

if TYPE_CHECKING:
    from runtime.runtime_context import RuntimeContext, get_runtime_context
    from runtime.state import nodes
    from runtime.trace_events import timeline

_ON_FIRST_USE = {
    "RuntimeContext": "runtime.runtime_context",
    "get_runtime_context": "runtime.runtime_context",
    "nodes": "runtime.state",
    "timeline": "runtime.trace_events",
}
"""What few scripts use; every import of the package would take longer for it."""


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        from compiled_dag.keywords import nearest  # noqa: PLC0415  for a mistake only

        hint = "" if name.startswith("_") else nearest(name, __all__)
        msg = f"module {__name__!r} has no attribute {name!r}{hint}"
        raise AttributeError(msg)
    from importlib import import_module  # noqa: PLC0415  rarely needed

    found = globals()[name] = getattr(import_module(_ON_FIRST_USE[name]), name)
    return found


__all__ = [
    "ActorClass",
    "ActorHandle",
    "ActorMethod",
    "ObjectRef",
    "ObjectRefGenerator",
    "RemoteFunction",
    "RuntimeContext",
    "SessionContext",
    "actor",
    "available_resources",
    "cancel",
    "cluster_resources",
    "exceptions",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "timeline",
    "wait",
]
