"""Getting results: the calling thread reads them off the output channels.

The usual case, the next message of a channel of its own, is flat: with a chain of one actor it is
half of what a round trip costs. Everything else goes through `Results`, which keeps what is read
on the way to a later result.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from compiled_dag.channel import layout as at
from compiled_dag.errors import ChannelTimeoutError
from compiled_dag.options import CompileOptions, is_seconds
from compiled_dag.outcome import Error
from compiled_dag.shm.waiter import Site

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.channel.reader import Reader
    from compiled_dag.deployment import Deployment
    from compiled_dag.ref import CompiledDAGRef
    from compiled_dag.results import Results


class Fetching:
    """The driver's reading side of one graph. Any thread may get any ref."""

    def __init__(self, deployment: Deployment, options: CompileOptions, results: Results) -> None:
        self.results = results
        self._deployment = deployment
        self._host = deployment.host
        self._options = options
        self._words = deployment.segment.words
        self._owner = deployment.owner
        self._any_site = Site(calm=deployment.needs_calm)
        for reader in results.readers:
            reader.site.calm = deployment.needs_calm

    def one(self, ref: CompiledDAGRef, timeout: float | None) -> None:
        """Fill in `ref`. The usual case is flat: the next message of a channel of its own."""
        reader = self.results.own[ref._output]
        execution, words = ref._execution, self._words
        if (
            reader is None
            or reader.sequence != execution
            or timeout is not None
            or words[at.STATE_WORD] != at.OPEN
            or self._owner != os.getpid()
        ):
            self.many((ref,), timeout)
            return
        word, lock = reader.sequence_word, self.results.lock
        if words[word] == execution and not self._host.waiter.word(
            words,
            word,
            execution,
            self._deployment.guard,
            self._default_deadline(),
            reader.site,
        ):
            raise self._late((ref,), None, self._options.get_timeout_s)
        if lock.acquire(blocking=False):
            try:
                if reader.sequence == execution:
                    ref._value = reader.peek()
                    reader.advance()
                    return
            finally:
                lock.release()
        self.many((ref,), timeout)

    def many(self, refs: Sequence[CompiledDAGRef], timeout: float | None) -> None:
        """Fill in `refs`, all under one deadline; stop at the first that is an error.

        With ``timeout=None`` the default limits lack of progress instead: it starts anew whenever
        one more ref is ready.
        """
        timeout_s = self.timeout_s(timeout)
        deadline = None if timeout_s < 0 else time.monotonic() + timeout_s
        if self._owner != os.getpid():
            self._host.check_owner()
        results, missing = self.results, list(refs)
        while True:
            if not results.lock_by(deadline):
                raise self._late(missing, timeout, timeout_s)
            try:
                before = len(missing)
                missing = [ref for ref in missing if not results.fill(ref)]
                awaited = results.awaited(missing)
            finally:
                results.lock.release()
            if not missing or any(ref._value.__class__ is Error for ref in refs):
                return
            if timeout is None and deadline is not None and len(missing) < before:
                deadline = time.monotonic() + timeout_s
            self._deployment.guard()
            if not self.wait_any(awaited, deadline):
                raise self._late(missing, timeout, timeout_s)

    def timeout_s(self, timeout: float | None) -> float:
        """Return the seconds that a `get` with this argument waits; -1 is for ever.

        Raises:
            TypeError: It is no number.
            ValueError: It is negative, and not -1, or NaN.
        """
        if timeout is None:
            return self._options.get_timeout_s
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            msg = f"timeout={timeout!r} is not a number of seconds"
            raise TypeError(msg)
        if not is_seconds(timeout):
            msg = f"timeout={timeout!r}: give seconds, 0 to poll, or -1 to wait for ever"
            raise ValueError(msg)
        return timeout

    def wait_any(self, awaited: Sequence[tuple[Reader, int]], deadline: float | None) -> bool:
        """Wait until one of these channels shows another sequence than the one given."""
        waiter, guard = self._host.waiter, self._deployment.guard
        if len(awaited) == 1:
            ((reader, seen),) = awaited
            return waiter.word(
                reader.words, reader.sequence_word, seen, guard, deadline, reader.site
            )
        places = [(reader.words, reader.sequence_word, seen) for reader, seen in awaited]
        return waiter.until(
            lambda: any(words[word] != seen for words, word, seen in places),
            guard,
            deadline,
            self._any_site,
        )

    def is_ready(self, ref: CompiledDAGRef) -> bool:
        """Tell whether getting `ref` would not wait."""
        return self._words[at.STATE_WORD] != at.OPEN or self.results.is_published(ref)

    def _default_deadline(self) -> float | None:
        timeout_s = self._options.get_timeout_s
        return None if timeout_s < 0 else time.monotonic() + timeout_s

    def _late(
        self, missing: Sequence[CompiledDAGRef], timeout: float | None, timeout_s: float
    ) -> ChannelTimeoutError:
        which = ", ".join(f"{ref._execution}" for ref in missing[:10])
        option = "_get_timeout (COMPILED_DAG_GET_TIMEOUT)" if timeout is None else "timeout"
        report = self._deployment.report()
        error = ChannelTimeoutError(
            f"execution {which} of graph {self._deployment.name} was not ready within {option}="
            f"{timeout_s} s. Nothing is lost: get again.\n{report}"
        )
        error.report = report
        return error
