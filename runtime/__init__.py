"""Processes, actors and objects: what graphs run on, and what users call."""

from runtime import exceptions
from runtime.actor import ActorClass, ActorHandle, ActorMethod
from runtime.api import get, kill, method, put, remote, wait
from runtime.lifecycle import (
    SessionContext,
    get_gpu_ids,
    init,
    is_initialized,
    shutdown,
)
from runtime.objects import ObjectRef

__all__ = [
    "ActorClass",
    "ActorHandle",
    "ActorMethod",
    "ObjectRef",
    "SessionContext",
    "exceptions",
    "get",
    "get_gpu_ids",
    "init",
    "is_initialized",
    "kill",
    "method",
    "put",
    "remote",
    "shutdown",
    "wait",
]
