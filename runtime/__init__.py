"""Processes, actors and objects: what graphs run on, and what users call."""

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
from runtime.runtime_context import RuntimeContext, get_runtime_context
from runtime.state import nodes
from runtime.stream import ObjectRefGenerator
from runtime.timeline import timeline

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
