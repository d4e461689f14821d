"""Starting and ending the one session of this process."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from compiled_dag.interrupts import Interrupts, Unswallowed
from compiled_dag.keywords import choice, keywords_of, strict_keywords
from runtime import context
from runtime.checks import check_amount, check_bytes, check_resources
from runtime.environment import check_runtime_env
from runtime.objects import set_admission
from runtime.references import set_strays

if TYPE_CHECKING:
    from types import TracebackType

    from compiled_dag.shm.segment import Segment
    from runtime.gpus import GpuId
    from runtime.launch import Launch
    from runtime.nested import NestedSession
    from runtime.session import Session

_lock = threading.RLock()
_IGNORED = frozenset(
    {
        "cgroup_path",
        "configure_logging",
        "dashboard_host",
        "dashboard_port",
        "enable_resource_isolation",
        "include_dashboard",
        "job_config",
        "labels",
        "logging_config",
        "logging_format",
        "logging_level",
        "proxy_server_url",
        "system_reserved_cpu",
        "system_reserved_memory",
    }
)


class _Current:
    """The session of this process, if there is one."""

    session: Session | None = None
    unswallowed: Unswallowed | None = None


class SessionContext(Mapping[str, Any]):
    """What `init` returns: facts about the session; leaving it as a context shuts down."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = dict(facts)

    def __getitem__(self, key: str) -> Any:
        return self._facts[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def __repr__(self) -> str:
        return f"<session {self._facts}>"

    def __enter__(self) -> SessionContext:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _shut_down(hurry=kind is KeyboardInterrupt)


def init(
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
    object_store_memory: int | None = None,
    local_mode: bool = False,
    ignore_reinit_error: bool = False,
    log_to_driver: bool | None = None,
    namespace: str | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    gpu_visibility: str | None = None,
    **ignored: Any,
) -> SessionContext:
    """Start a session. Optional: the first use of an actor or object starts one.

    Args:
        address: None or ``"local"``.
        num_cpus: Logical CPUs; the CPUs this process may use by default.
        num_gpus: Logical GPUs; may exceed the physical ones, which are then shared, or faked
            where there are none.
        resources: Other logical resources, by name.
        labels: Ignored on a single machine.
        object_store_memory: Bytes that large objects may take together; None: what memory allows.
        local_mode: Not there.
        ignore_reinit_error: Return the running session instead of raising.
        log_to_driver: Show what actors print on this process's standard error (default).
        namespace: Of actors named without one.
        runtime_env: ``{"env_vars": {...}}`` for every actor.
        gpu_visibility: Which GPUs actors see: ``"assigned_first"`` or ``"assigned_only"`` for those
            with GPUs, ``"none"`` or ``"inherit"`` for those without; one of each with a comma.
            None: what ``COMPILED_DAG_GPU_VISIBILITY`` says.
        **ignored: Arguments of Ray's that mean nothing here.

    Returns:
        A read-only mapping of facts; as a context manager it shuts the session down.

    Raises:
        RuntimeError: A session is running, or an unknown argument.
        ConnectionError: `address` is not this machine.
        ValueError: An argument is out of range.
        TypeError: An argument has the wrong type.
    """
    _refuse_later(local_mode=local_mode)
    _check_ignored({"labels": labels} | ignored)
    if address not in (None, "local"):
        raise ConnectionError(
            f"address={address!r}: there is a single machine, use None or 'local'"
        )
    with _lock:
        running = _current()
        if running is not None:
            _check_second(running, ignore_reinit_error=ignore_reinit_error)
        else:
            for name, value in (("num_cpus", num_cpus), ("num_gpus", num_gpus)):
                if value is not None:
                    check_amount(name, value)
            _start(
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                resources=check_resources("resources", resources),
                gpu_visibility=gpu_visibility,
                **check_runtime_env(runtime_env),
                log_to_driver=log_to_driver is not False,
                namespace=namespace,
                object_store_memory=check_bytes("object_store_memory", object_store_memory),
            )
        return _facts()


def _check_second(running: Session, *, ignore_reinit_error: bool) -> None:
    """Refuse a second session beside the one that is running, unless that is to go on."""
    running.check_owner()
    if context.in_actor():
        raise RuntimeError(
            f"runtime.init() inside {context.label()}: it is part of a session already"
        )
    if not ignore_reinit_error:
        raise RuntimeError(
            "a session is running already: call runtime.shutdown() first, or pass "
            "ignore_reinit_error=True to go on with it"
        )


def _refuse_later(**arguments: object) -> None:
    for name, value in arguments.items():
        if value:
            raise NotImplementedError(
                f"init({name}={value!r}): this is not there yet, leave it out"
            )


def _check_ignored(ignored: Mapping[str, Any]) -> None:
    for name in ignored:
        if name not in _IGNORED and not name.startswith("_"):
            known = dict.fromkeys([*keywords_of(init), *sorted(_IGNORED)])
            raise RuntimeError(f"init() got an unknown argument {name!r}{choice(name, known)}")
    given = [name for name, value in ignored.items() if value is not None]
    if given:
        import logging  # noqa: PLC0415  10 ms that few scripts need

        for name in given:
            logging.getLogger("runtime").debug("init(%s=...): without effect here", name)


def _start(**options: Any) -> None:
    """Start a session. Ctrl-C meanwhile is raised when it has begun, and has been ended again."""
    from compiled_dag.environment import warn_of_misspelt  # noqa: PLC0415  as in `_session`

    warn_of_misspelt()
    with Interrupts() as interrupts:
        _begin(options)
        if interrupts.pending:
            _end(interrupts, hurry=True)


def _begin(options: Mapping[str, Any]) -> None:
    """Start a session: first its zygote, which imports while this process does."""
    from compiled_dag.shm.board import Board  # noqa: PLC0415  as in `_session`
    from runtime.launch import Launch  # noqa: PLC0415  as in `_session`

    segment = Board.create()
    try:
        launched = Launch(segment.fd)
        try:
            session = _session(segment, launched, options)
        except BaseException:
            launched.abandon()
            raise
    except BaseException:
        segment.close()
        raise
    _Current.session = session
    _Current.unswallowed = Unswallowed()
    _offer()


def _session(segment: Segment, launched: Launch, options: Mapping[str, Any]) -> Session:
    # What a session consists of takes longer to import than all that users see of this package.
    with _uncollected():
        from runtime.session import Session  # noqa: PLC0415  see above
        from runtime.warm import set_stock  # noqa: PLC0415  see above

    session = Session(segment, launched, **options)
    set_strays(session.store.pin, session.store.lend, session.store.find_stray)
    set_admission(session.store.admit)
    set_stock(session.memory.take, session.memory.give)
    return session


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the collector out of imports, which make no garbage: of torch alone it takes 80 ms."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _facts() -> SessionContext:
    session = current()
    return SessionContext(
        {
            "address": "local",
            "driver_pid": session.owner_pid,
            "num_cpus": session.placement.ledger.totals()["CPU"],
            "num_gpus": session.placement.num_gpus,
        }
    )


@strict_keywords
def shutdown(*, wait_for_processes: bool = False) -> None:
    """End the session: graphs, actors, memory. Idempotent; also runs at exit.

    Args:
        wait_for_processes: Accepted for Ray's sake: the processes are always waited for.
    """
    del wait_for_processes
    _shut_down(hurry=False)


def _shut_down(*, hurry: bool) -> None:
    with Interrupts() as interrupts:
        _end(interrupts, hurry=hurry)


def _end(interrupts: Interrupts, *, hurry: bool) -> None:
    with _lock:
        session = _current()
        if session is None or session.foreign or context.in_actor():
            return
        from runtime.warm import set_stock  # noqa: PLC0415  loaded, since there is a session

        try:
            session.close(interrupts, hurry=hurry)
        finally:
            if session.closed:
                _Current.session = None
                set_strays(None, None, None)
                set_admission(None)
                set_stock(None, None)
                if _Current.unswallowed is not None:
                    _Current.unswallowed.end()


def _shut_down_at_exit() -> None:
    """End the session with the interpreter, which has nobody left to raise Ctrl-C to."""
    with Interrupts(forget=True) as interrupts:
        _end(interrupts, hurry=getattr(sys, "last_type", None) is KeyboardInterrupt)


def is_initialized() -> bool:
    """Tell whether a session is running."""
    return _current() is not None


def enter(session: NestedSession) -> None:
    """Make `session` that of this process, an actor's or a worker's."""
    _Current.session = session  # type: ignore[assignment]
    _offer()
    set_strays(session.pin, session.lend, session.find_stray)


def running() -> Session | None:
    """Return the running session, or None."""
    return _Current.session


def current() -> Session:
    """Return the running session, starting one if need be.

    Raises:
        RuntimeError: This process is a forked child of one that uses the session.
    """
    with _lock:
        session = _current()
        if session is None:
            _start()
            session = _Current.session
            assert session is not None
        session.check_owner()
        return session


def _current() -> Session | None:
    return _Current.session


def get_gpu_ids() -> list[GpuId]:
    """Return the GPUs assigned to this actor; an empty list in the driver."""
    if not context.in_actor():
        current()
    return context.gpu_ids()


def cluster_resources() -> dict[str, float]:
    """Return the session's logical resources, by name."""
    return current().resources("totals")


def available_resources() -> dict[str, float]:
    """Return what is free of them now."""
    return current().resources("available")


def _in_forked_child() -> None:
    """Make the parent's session inert: it is refused, and none of its descriptors stay open."""
    global _lock  # noqa: PLW0603  another thread of the parent may have held it
    _lock = threading.RLock()
    if _Current.session is not None:
        _Current.session.abandon()


def _offer() -> None:
    """Let the packages below find the session, and what they cannot import."""
    from compiled_dag.host import (  # noqa: PLC0415  imported by a session
        ASSIGNED_GPUS,
        EDGE_GROUPS,
        GROUP_HOME,
        offer,
    )

    offer(GROUP_HOME, lambda: current().group_home)
    offer(ASSIGNED_GPUS, context.gpu_ids)
    offer(EDGE_GROUPS, _edge_groups)


def _edge_groups() -> Any:
    from collective.edges import RankedEdges  # noqa: PLC0415  few graphs need it

    return RankedEdges()


os.register_at_fork(after_in_child=_in_forked_child)
atexit.register(_shut_down_at_exit)
