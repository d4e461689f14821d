"""What carries the operations of actors by default, and what cannot, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collective.backends import AUTO
from compiled_dag.errors import GraphError
from compiled_dag.gpus import physical_gpus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.host import Actor


def choose_backend(actors: Sequence[Actor]) -> str:
    """Return the default backend for `actors`.

    NCCL refuses two ranks on one GPU, so it is chosen only where every actor has its own; where all
    have the same one, its memory is shared. Everything else goes through host memory.
    """
    gpus = [actor.physical_gpus[:1] for actor in actors]
    if not all(gpus):
        return "gloo"
    if len(set(gpus)) == len(gpus):
        return "nccl"
    return "cuda_ipc" if len(set(gpus)) == 1 else "gloo"


def settled_backend(backend: str, actors: Sequence[Actor]) -> str:
    """Return the backend of an eager group of `actors` that asks for this one.

    Raises:
        ValueError: It is for GPUs, and cannot run on them.
    """
    if backend == AUTO:
        return choose_backend(actors)
    why = why_not(backend, actors)
    if why is not None:
        names = ", ".join(actor.label for actor in actors)
        msg = f"a group of {names} cannot be on backend={backend!r}: {why}. Use backend='auto'"
        raise ValueError(msg)
    return backend


def why_chosen(actors: Sequence[Actor]) -> str:
    """Return why that is the default, to follow "since"."""
    not_nccl = why_not_nccl(actors)
    if not_nccl is None:
        return "every actor has a physical GPU of its own"
    not_shared = why_not_shared(actors)
    if not_shared is None or not all(actor.physical_gpus for actor in actors):
        return not_nccl
    return f"{not_nccl}, and {not_shared}"


def check_backend(what: str, backend: str, actors: Sequence[Actor]) -> None:
    """Refuse a backend where it cannot run.

    Raises:
        GraphError: It takes GPUs that the actors do not have.
    """
    why = why_not(backend, actors)
    if why is not None:
        names = ", ".join(actor.label for actor in actors)
        msg = (
            f"{what} of {names} is to run on transport={backend!r}, and cannot: {why}. "
            "Use transport='auto'"
        )
        raise GraphError(msg)


def why_not(backend: str, actors: Sequence[Actor]) -> str | None:
    """Return why a backend cannot run on `actors`, as far as it is known before it tries."""
    match backend:
        case "nccl":
            return why_not_nccl(actors)
        case "cuda_ipc":
            return why_not_shared(actors)
    return None


def why_not_nccl(actors: Sequence[Actor]) -> str | None:
    """Return why NCCL cannot run on `actors`, or None."""
    holder: dict[str, str] = {}
    for actor in actors:
        found = physical_gpus(actor)
        if found is None:
            continue  # whatever it will be: its group is formed once it is known
        if not found:
            return _without_gpu(actor)
        gpu = found[0]
        if gpu in holder:
            return f"{holder[gpu]} and {actor.label} share GPU {gpu}, which NCCL refuses"
        holder[gpu] = actor.label
    try:
        import torch.distributed  # noqa: PLC0415  only where somebody insists on NCCL
    except ImportError:
        return "torch is not installed"
    return None if torch.distributed.is_nccl_available() else "this build of torch has no NCCL"


def why_not_shared(actors: Sequence[Actor]) -> str | None:
    """Return why `actors` do not share one GPU, or None."""
    first: tuple[str, str] | None = None
    for actor in actors:
        found = physical_gpus(actor)
        if found is None:
            continue
        if not found:
            return _without_gpu(actor)
        if first is None:
            first = actor.label, found[0]
        elif found[0] != first[1]:
            return (
                f"{first[0]} is on GPU {first[1]} and {actor.label} on GPU {found[0]}: cuda_ipc is "
                "for actors that all share one"
            )
    return None


def _without_gpu(actor: Actor) -> str:
    fake = f"the GPU of {actor.label} is fake"
    return fake if actor.num_gpus else f"{actor.label} has no GPU"
