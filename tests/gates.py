"""Actors that wait where a test wants them to, so that no test needs to sleep; Ctrl-C likewise."""

from __future__ import annotations

import _thread
import dis
import functools
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from compiled_dag import CompiledDAG, DAGNode, InputNode
from compiled_dag.interrupts import Unswallowed
from tests.graphs import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType, ModuleType

PATIENCE_S = 60


class Gate:
    """An actor whose method waits until the test opens the gate."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()
        self.seen: list[Any] = []

    def hold(self, value: Any) -> Any:
        self.seen.append(value)
        self.entered.release()
        assert self.opened.wait(PATIENCE_S), "nobody opened the gate"
        return value

    def echo(self, value: Any) -> Any:
        self.seen.append(value)
        return value

    def fail(self, value: Any) -> Any:
        raise ValueError(f"{value!r} is bad")

    def wait_entered(self) -> None:
        assert self.entered.acquire(timeout=PATIENCE_S), "the method was not called"


class Background:
    """One call on a thread of its own; `result` waits for it, bounded."""

    def __init__(self, function: Any, *args: Any, **kwargs: Any) -> None:
        self._work = (function, args, kwargs)
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        function, args, kwargs = self._work
        try:
            self._value = function(*args, **kwargs)
        except BaseException as error:
            self._error = error

    def running(self, timeout_s: float = 0) -> bool:
        """Tell whether it still runs, having waited that long at most."""
        self._thread.join(timeout_s)
        return self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "it never returned"
        if self._error is not None:
            raise self._error
        return self._value


def interrupt_once(monkeypatch: Any, owner: Any, name: str, *, after: bool) -> None:
    """Have the next call of a method raise what Ctrl-C raises, before or after its work."""
    method = getattr(owner, name)

    def interrupted(*args: Any):
        monkeypatch.setattr(owner, name, method)
        if after:
            method(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, interrupted)


class Interrupt:
    """Presses Ctrl-C once, before the instruction in `modules` that is reached as the given one.

    Python handles it where it does for users, too: when a call has returned, where a function
    begins, where a loop goes back. Only instructions that come to such a place count: a `with` that
    takes a lock, or a `for` that does, has none between the taking and what follows.
    """

    def __init__(self, modules: tuple[ModuleType, ...], number: int) -> None:
        """Note where.

        Args:
            modules: Whose instructions count.
            number: Of the instruction, from 1.
        """
        self._files = {str(Path(module.__file__ or "")) for module in modules}
        self._left = number
        self.raised = False
        """Whether it came so far."""

    def __enter__(self) -> Interrupt:
        self._unswallowed = Unswallowed()
        self._handler = signal.signal(signal.SIGINT, self._handle)
        self._steps = _Steps(self._files, self._look)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._steps.end()
        signal.signal(signal.SIGINT, self._handler)
        self._unswallowed.end()
        return kind is KeyboardInterrupt

    def _handle(self, _number: int, frame: FrameType | None) -> None:
        """Raise it, unless all is over: not every call looks for signals when it returns."""
        while frame is not None and not self._covers(frame):
            frame = frame.f_back
            if frame is None:
                return
        raise KeyboardInterrupt

    def _covers(self, frame: FrameType | None) -> bool:
        return frame is not None and frame.f_code.co_filename in self._files

    def _is_place(self, frame: FrameType) -> bool:
        name = _handling(frame.f_code).get(frame.f_lasti)
        if name == "RETURN_VALUE":  # handled by the caller
            return self._covers(frame.f_back)
        return name is not None

    def _look(self, frame: FrameType) -> bool:
        """Tell whether to press it now: this is the instruction."""
        if not self._is_place(frame) or _finalizes(frame):
            return False
        self._left -= 1
        if self._left:
            return False
        self.raised = True
        self._steps.end()  # what is traced handles signals, too
        return True


class _Traced:
    """Presses Ctrl-C where `look` says so, asked before each instruction of this thread in files.

    Until Python 3.11.
    """

    def __init__(self, files: set[str], look: Callable[[FrameType], bool]) -> None:
        self._files, self._look = files, look
        self._before = sys.gettrace()
        sys.settrace(self._enter)

    def _enter(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "opcode" and self._look(frame):
            for _ in map(_thread.interrupt_main, (signal.SIGINT,)):  # nothing here handles it now
                return None
        return self._step

    def end(self) -> None:
        """Call it no more. Idempotent."""
        sys.settrace(self._before)


class _Monitored:
    """The same from Python 3.12 on: what traces in 3.13.0 leaves most instructions out."""

    TOOL: Final = 3

    def __init__(self, files: set[str], look: Callable[[FrameType], bool]) -> None:
        self._files, self._look = files, look
        self._thread = threading.get_ident()
        events = sys.monitoring.events
        self._calls = {
            events.PY_START: self._enter,
            events.PY_RESUME: self._enter,
            events.INSTRUCTION: self._step,
        }
        sys.monitoring.use_tool_id(self.TOOL, "tests.gates")
        for event, call in self._calls.items():
            sys.monitoring.register_callback(self.TOOL, event, call)
        sys.monitoring.restart_events()
        sys.monitoring.set_events(self.TOOL, events.PY_START | events.PY_RESUME)

    def _enter(self, code: CodeType, _offset: int) -> Any:
        if code.co_filename in self._files:
            events = sys.monitoring.events
            sys.monitoring.set_local_events(self.TOOL, code, events.INSTRUCTION)
        return sys.monitoring.DISABLE

    def _step(self, _code: CodeType, _offset: int) -> None:
        if threading.get_ident() == self._thread and self._look(sys._getframe(1)):
            for _ in map(_thread.interrupt_main, (signal.SIGINT,)):  # as above
                return

    def end(self) -> None:
        """Call it no more. Idempotent."""
        if sys.monitoring.get_tool(self.TOOL) is None:
            return
        sys.monitoring.set_events(self.TOOL, 0)
        for event in self._calls:
            sys.monitoring.register_callback(self.TOOL, event, None)
        sys.monitoring.free_tool_id(self.TOOL)


_Steps: Final = _Monitored if sys.version_info >= (3, 12) else _Traced


@functools.cache
def _handling(code: CodeType) -> dict[int, str]:
    """Return the instructions after which signals are handled, by where they are."""
    names = ("CALL", "JUMP_BACKWARD", "JUMP_ABSOLUTE", "RESUME", "RETURN_VALUE")
    return {
        one.offset: one.opname for one in dis.get_instructions(code) if one.opname.startswith(names)
    }


def _finalizes(frame: FrameType | None) -> bool:
    """Tell whether a `__del__` runs: CPython drops what is raised in it."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def soon() -> float:
    """Return the deadline of something that must come."""
    return time.monotonic() + PATIENCE_S


def ask(actor: Any, value: Any = 5) -> Any:
    """Call an actor the ordinary way, and wait for the answer."""
    return actor.echo.remote(value).result(soon())


def one_method(actor: Any, method: str = "echo") -> DAGNode:
    """Draw a graph of one method of one actor."""
    with InputNode() as inp:
        node: DAGNode = getattr(actor, method).bind(inp)
    return node


def compiled(host: Any, instance: Any = None, method: str = "echo", **options: Any) -> CompiledDAG:
    """Compile a graph of one method of a new actor."""
    actor = host.actor(instance or Worker(1))
    graph: CompiledDAG = one_method(actor, method).experimental_compile(**options)
    return graph
