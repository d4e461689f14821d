"""The functions of `runtime`: remote, method, get, put, wait, kill."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.errors import ActorHandleNotFoundError
from compiled_dag.keywords import choice, refuse_unknown, strict_keywords
from runtime import lifecycle
from runtime.actor import ActorClass, ActorHandle
from runtime.actor_method import process_of
from runtime.checks import check_count, check_seconds
from runtime.function import RemoteFunction, make_remote_function
from runtime.objects import ObjectRef
from runtime.options import METHOD_OPTIONS, ActorOptions, check_method_options
from runtime.signatures import OPTIONS_ATTRIBUTE
from runtime.stream import ObjectRefGenerator
from runtime.waiting import get_all, wait_for_some

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Never

_ORDINARY: Final = {ObjectRef}


def remote(*args: Any, **options: Any) -> Any:
    """Make a class or function remote: ``@remote``, ``@remote(num_cpus=2)`` or ``remote(cls)``.

    Raises:
        TypeError: Neither a class nor a function.
        ValueError: A coroutine function, or an option that does not exist or is out of range.
    """
    assert not (args and options), "use @remote or @remote(option=value), not both at once"
    if args:
        assert len(args) == 1, "remote takes one class or function"
        return _make_remote(args[0], {})
    return lambda target: _make_remote(target, options)


def _make_remote(target: Any, options: Mapping[str, Any]) -> ActorClass | RemoteFunction:
    if inspect.isclass(target):
        return ActorClass(target, ActorOptions().updated(options, decorator=True), options)
    if isinstance(target, (ActorClass, RemoteFunction)):
        raise TypeError(f"{target!r} is remote already")
    if inspect.isfunction(target) or inspect.isbuiltin(target):
        return make_remote_function(target, options)
    raise TypeError(f"remote takes a class or a function, not {type(target).__name__} ({target!r})")


def method(*args: Any, **options: Any) -> Callable[[Any], Any]:
    """Set options of a method of a remote class: ``@method(num_returns=2)``."""
    assert not args, "use @method(num_returns=...): options are given by name"
    unknown = [name for name in options if name not in METHOD_OPTIONS]
    if unknown:
        hint = choice(unknown[0], METHOD_OPTIONS)
        raise AssertionError(f"{unknown[0]!r} is no option of a method{hint}")
    checked = check_method_options(options)

    def mark(function: Any) -> Any:
        setattr(function, OPTIONS_ATTRIBUTE, checked)
        return function

    return mark


def get(
    refs: Any,
    *,
    timeout: float | None = None,
    _use_object_store: bool = False,
    **unknown: Never,
) -> Any:
    """Return the value of a reference, or of a list of them in its order, waiting for it.

    Args:
        refs: An `ObjectRef` or a compiled graph's reference, or a list of one kind.
        timeout: Seconds to wait; None or -1 for ever (None is the graph's own limit for a compiled
            graph's reference), 0 not at all.
        _use_object_store: Accepted for Ray's sake.
        unknown: Nothing: what is here is refused, with the name that may be meant.

    Raises:
        TaskError: The method raised; also an instance of what it raised.
        ActorDiedError: The actor is dead.
        GetTimeoutError: Not ready in time.
        ValueError: Not a reference or list, or a list of both kinds; `timeout` is negative or NaN.
        TypeError: The list holds something else; `timeout` is no number; another keyword.
    """
    del _use_object_store
    if unknown:
        refuse_unknown(get, unknown)
    if refs.__class__ is ObjectRef:  # first: to find that an attribute is missing takes longer
        return get_all(refs.session, (refs,), _seconds(timeout))[0]
    if getattr(type(refs), "__compiled_ref__", False) is True:  # `_is_compiled`, without a call
        return refs.get(timeout)
    if isinstance(refs, list):
        return _get_list(refs, timeout)
    if isinstance(refs, ObjectRef):
        return get_all(refs.session, [refs], _seconds(timeout))[0]
    if isinstance(refs, ObjectRefGenerator):
        return refs  # its items are references to get one by one, as in Ray
    raise ValueError(
        f"get takes an ObjectRef or a list of them, not {type(refs).__name__}{_remedy(refs)}"
    )


def _remedy(value: Any) -> str:
    """Return what may be meant by what is no reference, to be put behind a message."""
    if isinstance(value, ActorHandle):
        return f": call a method of {value!r}, handle.method.remote(...), which returns one"
    if isinstance(value, (tuple, set, frozenset)) or inspect.isgenerator(value):
        return ": make it a list, get([*refs])"
    if inspect.iscoroutine(value):
        return (
            ": await it first, ref = await graph.execute_async(...), and then get(ref) or await ref"
        )
    if getattr(type(value), "_is_node", False) is True:
        return f": execute {value!r}, node.execute(...), which returns one"
    return ""


def _get_list(refs: list[Any], timeout: float | None) -> Any:
    if not refs:
        return []
    if set(map(type, refs)) == _ORDINARY:  # told without a call for each
        return get_all(refs[0].session, refs, _seconds(timeout))
    if _is_compiled(refs[0]) or any(map(_is_compiled, refs)):
        if len(set(map(type, refs))) > 1:
            _check_compiled(refs)
        return type(refs[0]).get_many(refs, timeout)
    _check_refs("get", refs)
    return get_all(refs[0].session, refs, _seconds(timeout))


def _is_compiled(ref: Any) -> bool:
    return getattr(type(ref), "__compiled_ref__", False) is True


def _seconds(timeout: float | None) -> float | None:
    """Return the timeout of `get`; None: for ever."""
    if timeout is None or (timeout == -1 and not isinstance(timeout, bool)):
        return None
    return check_seconds("timeout", timeout)


def _check_compiled(refs: Sequence[Any]) -> None:
    for position, ref in enumerate(refs):
        if not _is_compiled(ref):
            raise ValueError(
                f"get: item {position} is of type {type(ref).__name__}, and others are references "
                "of compiled graphs. Get them in a list of their own (wait takes both kinds)"
            )


def _check_refs(what: str, refs: Sequence[Any], *, compiled: bool = False) -> None:
    for position, ref in enumerate(refs):
        if isinstance(ref, (list, tuple)):
            raise TypeError(
                f"{what}: item {position} is a {type(ref).__name__}, and only the outer list is "
                f"looked into. Flatten it ({what}([ref for part in refs for ref in part])), or "
                f"{what} each by itself ([{what}(list(part)) for part in refs])"
            )
        if not (isinstance(ref, ObjectRef) or (compiled and _is_compiled(ref))):
            raise TypeError(f"{what}: item {position} is no ObjectRef but {type(ref).__name__}")


@strict_keywords
def put(value: Any, *, _owner: Any = None, _tensor_transport: Any = None) -> ObjectRef:
    """Store a value; returns a reference to it.

    Raises:
        TypeError: The value is a reference, or cannot be pickled.
        ValueError: `_owner` was given.
        NotImplementedError: `_tensor_transport` was given.
    """
    if isinstance(value, ObjectRef):
        raise TypeError(f"put({value!r}): it is a reference already, pass it on as it is")
    if _owner is not None:
        raise ValueError("put: _owner is not supported, the driver owns every object")
    if _tensor_transport is not None:
        raise NotImplementedError(
            "put: _tensor_transport is not supported; in a graph use .with_tensor_transport()"
        )
    return lifecycle.current().put(value)


@strict_keywords
def wait(
    refs: list[Any],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[Any], list[Any]]:
    """Wait until `num_returns` of `refs` are ready (also with an error).

    Args:
        refs: What to wait for: `ObjectRef`s, compiled graphs' references, generators
            (`ObjectRefGenerator`: ready when the next step will not wait), or a mixture.
        num_returns: How many.
        timeout: Seconds to wait; None for ever.
        fetch_local: No effect on a single machine.

    Returns:
        At most `num_returns` ready references and the rest, both in the order given.

    Raises:
        TypeError: `refs` is no list of references, `num_returns` no integer, `timeout` no number.
        ValueError: Duplicates, or `num_returns` or `timeout` out of range.
    """
    del fetch_local
    if not isinstance(refs, list):
        raise TypeError(f"wait takes a list of ObjectRefs, not {type(refs).__name__}")
    awaited = [_announced(ref) for ref in refs]
    ordinary = [ref for ref in awaited if not _is_compiled(ref)]
    _check_refs("wait", awaited, compiled=True)
    if len(set(refs)) != len(refs):
        raise ValueError("wait: the list holds a reference twice")
    if timeout is not None:
        check_seconds("wait: timeout", timeout)
    if not refs:
        return [], []
    if not 1 <= check_count("wait: num_returns", num_returns) <= len(refs):
        raise ValueError(f"wait: num_returns={num_returns} of {len(refs)} references")
    session = ordinary[0].session if ordinary else lifecycle.current()
    ready = set(wait_for_some(session, awaited, num_returns, timeout))
    pairs = list(zip(refs, awaited, strict=True))
    return [ref for ref, known in pairs if known in ready], [
        ref for ref, known in pairs if known not in ready
    ]


def _announced(ref: Any) -> Any:
    return ref.announced() if isinstance(ref, ObjectRefGenerator) else ref


@strict_keywords
def cancel(
    ref: ObjectRef | ObjectRefGenerator, *, force: bool = False, recursive: bool = True
) -> None:
    """Cancel the task, or the actor's call, that makes the value of `ref`.

    What has not begun never runs; what runs is interrupted where it runs Python code, or waits.
    `get` then raises `TaskCancelledError`. Without effect on what has ended.

    Args:
        ref: One of its references, or what a generator's call returned.
        force: End the process that runs it; for tasks only.
        recursive: Also the tasks that the task has submitted.

    Raises:
        TypeError: Neither an `ObjectRef` nor an `ObjectRefGenerator`.
        ValueError: `force` for a call of an actor.
    """
    if _is_compiled(ref):
        raise TypeError("cancel: an execution of a compiled graph cannot be cancelled")
    if isinstance(ref, ObjectRefGenerator):
        ref = ref.completed()
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"cancel takes an ObjectRef, not {type(ref).__name__}")
    session = lifecycle.current()
    session.cancel(ref, force=force, recursive=recursive)


@strict_keywords
def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """End an actor at once; its queued and later calls raise `ActorDiedError`.

    Args:
        actor: Its handle.
        no_restart: Also if it has restarts left; False lets it use one.

    Raises:
        ValueError: Not a handle.
        ActorHandleNotFoundError: The actor's session has ended.
    """
    if not isinstance(actor, ActorHandle):
        raise ValueError(  # noqa: TRY004  as in Ray
            f"kill takes an actor's handle, not {type(actor).__name__}. "
            "What runs a task is ended by runtime.cancel(ref, force=True)"
        )
    session = lifecycle.current()
    process = process_of(actor)
    if process.session is not session:
        raise ActorHandleNotFoundError(f"{actor!r} belongs to a session that has ended")
    session.kill(process.actor_id, no_restart=no_restart)
