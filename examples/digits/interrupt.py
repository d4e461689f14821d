"""Ctrl-C: a word and an exit code, at any moment. The death of an actor: its error and no stack.

Importing torch takes seconds, and so does leaving it behind. A traceback of that would help nobody,
and there is nothing to undo: the process just ends.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPTED = 130


def end_on_interrupt() -> None:
    """Have Ctrl-C end the process at once."""
    _on_interrupt(_end)


def interruptible(main: Callable[[], int]) -> int:
    """Run `main`, in which Ctrl-C raises, and return its exit code; 1 after an executor's error."""
    try:
        _on_interrupt(signal.default_int_handler)
        return main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        from runtime.exceptions import ExecutorError  # noqa: PLC0415  Ctrl-C comes before it

        if not isinstance(error, ExecutorError):
            raise
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    finally:
        end_on_interrupt()
        gc.freeze()  # or the interpreter, as it ends, looks through all of torch: half a second


def _on_interrupt(handler: Callable[[int, Any], Any]) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as it is in a shell's background
        signal.signal(signal.SIGINT, handler)


def _end(*_: object) -> None:
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)
