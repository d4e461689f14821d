"""Actors that wait where a test wants them to, so that no test needs to sleep; Ctrl-C likewise."""

from __future__ import annotations

import dis
import functools
import inspect
import linecache
import signal
import sys
import threading
import time
from opcode import opmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiled_dag import CompiledDAG, DAGNode, InputNode
from tests.graphs import Worker

if TYPE_CHECKING:
    from types import CodeType, FrameType, ModuleType

PATIENCE_S = 30


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
    """Raises KeyboardInterrupt once, at the place in `modules` that is reached as the given one.

    Places are before each line, and after a function has returned which one of the modules called:
    the caller has not got the value then. None are in `__del__`, where CPython drops exceptions.
    """

    def __init__(
        self, modules: tuple[ModuleType, ...], number: int, *, by_signal: bool = False
    ) -> None:
        """Note where.

        Args:
            modules: Whose lines count.
            number: Of the place, from 1.
            by_signal: Whether a signal comes there, which handlers of the program may put off.
                Then only lines that call something are places: at others none is noticed.
        """
        self._by_signal = by_signal
        self._files = {str(Path(module.__file__ or "")) for module in modules}
        self._left = number
        self.raised = False

    def __enter__(self) -> Interrupt:
        self._before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        sys.settrace(self._before)
        return kind is KeyboardInterrupt

    def _enter(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        return self._place if self._covers(frame) else None

    def _covers(self, frame: FrameType | None) -> bool:
        code = frame.f_code if frame is not None else None
        return code is not None and code.co_filename in self._files

    def _is_place(self, frame: FrameType, event: str) -> bool:
        if event == "return":  # which generators do at each value: there signals wait
            is_generator = frame.f_code.co_flags & inspect.CO_GENERATOR
            return self._covers(frame.f_back) and not is_generator
        if self._by_signal and frame.f_lineno not in _lines_with_calls(frame.f_code):
            return False
        return event == "line" and not _is_with(frame) and not _leaves_handler(frame)

    def _place(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if not self.raised and self._is_place(frame, event) and not _finalizes(frame):
            self._left -= 1
            if self._left == 0:
                self.raised = True
                if not self._by_signal:
                    raise KeyboardInterrupt
                signal.raise_signal(signal.SIGINT)
        return self._place


def _is_with(frame: FrameType) -> bool:
    """Tell whether a line is the head of a block that is left, perhaps: there signals wait."""
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return line.lstrip().startswith("with ")


@functools.cache
def _lines_with_calls(code: CodeType) -> set[int]:
    """Return the lines where Python looks for signals: it does after calls, and to go back."""
    lines, line, starts = set(), 0, dict(dis.findlinestarts(code))
    for instruction in dis.get_instructions(code):
        line = starts.get(instruction.offset) or line
        if instruction.opname.startswith(("CALL", "JUMP_BACKWARD")):
            lines.add(line)
    return lines


def _finalizes(frame: FrameType | None) -> bool:
    """Tell whether a `__del__` runs: CPython drops what is raised in it."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def _leaves_handler(frame: FrameType) -> bool:
    """Tell whether a line, like a `continue`, begins by leaving an `except`: there signals wait."""
    return frame.f_code.co_code[frame.f_lasti] == opmap["POP_EXCEPT"]


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
