"""Getting results: the calling thread reads them off the output channels.

The usual case, the next message of a channel of its own, is flat: with a chain of one actor it is
half of what a round trip costs. Everything else goes through `Results`, which keeps what is read
on the way to a later result.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from compiled_dag.channel import layout as at
from compiled_dag.errors import ChannelTimeoutError, GraphError
from compiled_dag.interrupts import RETURNS_ARE_CHECKED, whole_if_returns_are_checked
from compiled_dag.observer import FULL_S, LEAD_S
from compiled_dag.options import CompileOptions, is_seconds
from compiled_dag.outcome import Error
from compiled_dag.ref import PENDING, Raised, is_error
from compiled_dag.shm.forks import generation
from compiled_dag.shm.waiter import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.channel.reader import Reader
    from compiled_dag.deployment import Deployment
    from compiled_dag.ref import CompiledDAGRef
    from compiled_dag.results import News, Results


class Waits(NamedTuple):
    """What a thread waits for: any of these."""

    places: Sequence[tuple[Reader, int]]
    """Readers, each with what its sequence word is until something comes."""
    stuck: Sequence[tuple[Reader, int]]
    """Readers, each with how many messages were read off it until one more is."""
    news: Sequence[tuple[News, int]]
    """The same for what no message announces."""
    guard: Callable[[], None]

    def over(self) -> bool:
        """Tell whether there is something to look at."""
        for reader, seen in self.places:
            if reader.words[reader.sequence_word] != seen:
                return True
        if any(reader.sequence != seen for reader, seen in self.stuck):
            return True
        return any(news.count != seen for news, seen in self.news)


class Fetching:
    """The driver's reading side of one graph. Any thread may get any ref."""

    def __init__(self, deployment: Deployment, options: CompileOptions, results: Results) -> None:
        self.results = results
        self.guard = deployment.guard
        self.site = Site(slice_s=options.wait_slice_s)
        """For waits on several channels, or on room."""
        self.may_drop = options.capacity_policy == "drop_oldest"
        """Whether refs may be settled by news, not only by messages."""
        self._deployment = deployment
        self.host = deployment.host
        self._options = options
        self._observer = deployment.observer
        timeout_s = options.get_timeout_s
        self._patience_s = timeout_s - LEAD_S if timeout_s >= FULL_S else timeout_s
        """How long the usual `get` waits before a report is begun."""
        self.words = deployment.segment.words
        self._generation = generation[0]
        self._log = results.log
        for reader in results.readers:
            reader.site = Site(slice_s=options.wait_slice_s)

    def one(self, ref: CompiledDAGRef, timeout: float | None) -> None:
        """Fill in `ref`. The usual case is flat: the next message of a channel of its own."""
        reader = self.results.own[ref._output]
        execution, words = ref._execution, self.words
        if (
            reader is None
            or reader.sequence != execution
            or timeout is not None
            or words[at.STATE_WORD] != at.OPEN
            or self._generation != generation[0]
        ):
            self.many((ref,), timeout)
            return
        word, lock = reader.sequence_word, self.results.lock
        since_ns = 0 if execution & self._log.mask else time.monotonic_ns()
        if words[word] == execution and not self.host.waiter.word(
            words,
            word,
            execution,
            self.guard,
            self._first_deadline(),
            reader.site,
        ):
            self._hold_out(ref, reader)
        for taken in self.results.attempts:
            if taken:
                try:
                    if reader.sequence == execution:
                        ref._value = reader.peek()
                        reader.sequence = words[reader.ack_word] = execution + 1  # `advance`
                        if since_ns:
                            self._log.took(reader, execution, since_ns)
                        return
                finally:
                    lock.release()
            break
        self.many((ref,), timeout)

    def in_turn(self, refs: Sequence[CompiledDAGRef]) -> list[Any] | None:
        """Return the values of `refs`, each filled in as it comes, if none has to be slept for.

        What a fan-out of microseconds needs: `many` looks at all of them whenever one is there.

        Returns:
            None as soon as one does not come that way, or is an error: nobody waits for slower
            ones then. What was filled in is.
        """
        if self._generation != generation[0]:
            return None
        own, since_ns = self.results.own, time.monotonic_ns()
        values = []
        for ref in refs:
            value = ref._value
            if value is PENDING:
                reader = own[ref._output] if ref._dag._fetching is self else None
                if reader is None or not self._came(reader, ref._execution):
                    return None
                if not self._take(ref, reader, since_ns):
                    return None
                value = ref._value
            if value.__class__ is Error or value.__class__ is Raised:
                return None
            values.append(value)
        return values

    def _came(self, reader: Reader, execution: int) -> bool:
        """Tell whether the next message of a channel is of this execution, and comes soon."""
        if reader.sequence != execution or self.words[at.STATE_WORD] != at.OPEN:
            return False
        words, word = self.words, reader.sequence_word
        return words[word] != execution or (
            not self.site.is_long and self.host.waiter.soon(words, word, execution, reader.site)
        )

    @whole_if_returns_are_checked
    def _take(self, ref: CompiledDAGRef, reader: Reader, since_ns: int) -> bool:
        """Fill in `ref` by the next message, which is there; False if another thread is at it."""
        lock, execution = self.results.lock, ref._execution
        for taken in self.results.attempts:
            if taken:
                try:
                    if reader.sequence == execution:
                        ref._value = reader.peek()
                        reader.sequence = self.words[reader.ack_word] = execution + 1
                        if not execution & self._log.mask:
                            self._log.took(reader, execution, since_ns)
                        return True
                finally:
                    lock.release()
            break
        return False

    @staticmethod
    def many(refs: Sequence[CompiledDAGRef], timeout: float | None) -> None:
        """Fill in `refs`, of one graph or several, all under one deadline; stop at an error.

        With ``timeout=None`` the default limits lack of progress instead: it starts anew whenever
        one more ref is ready. Of several graphs' defaults the longest counts.
        """
        parts = list(dict.fromkeys([ref._dag._fetching for ref in refs]))
        limits = [part.timeout_s(timeout) for part in parts]
        timeout_s = -1.0 if min(limits) < 0 else max(limits)
        deadline = None if timeout_s < 0 else time.monotonic() + timeout_s
        for part in parts:
            part.check_owner()
        missing, since_ns, report = list(refs), time.monotonic_ns(), ""
        while True:
            before, look = len(missing), _look(parts, missing, deadline, since_ns)
            if look is not None:
                missing, waits = look
                if not missing or any(map(is_error, refs)):
                    return
                if timeout is None and deadline is not None and len(missing) < before:
                    deadline = time.monotonic() + timeout_s
                waits.guard()
                late = missing[0]._dag._fetching.wait_or_report(waits, timeout_s, deadline)
                if late is None:
                    continue
                report = late
            part = missing[0]._dag._fetching
            mine = [ref for ref in missing if ref._dag._fetching is part]
            raise part.late(mine, timeout, timeout_s, report)

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

    def check_owner(self) -> None:
        """Refuse use in a forked child."""
        if self._generation != generation[0]:
            msg = (
                f"graph {self._deployment.name} belongs to process {self._deployment.owner}, which "
                f"compiled it; this is its forked child {os.getpid()}, which cannot use it. "
                "Execute and get in the parent"
            )
            raise GraphError(msg)

    def look(
        self, refs: Sequence[CompiledDAGRef], deadline: float | None, since_ns: int
    ) -> tuple[list[CompiledDAGRef], list[tuple[Reader, int]]] | None:
        """Fill in what is there of this graph's among `refs`.

        Returns:
            What is missing and the readers it needs, each with its word; None if it got late.
        """
        results = self.results
        for taken in results.patient_attempts:
            if taken:
                try:
                    missing = self._fill(refs, since_ns)
                    return missing, results.awaited(missing)
                finally:
                    results.lock.release()
            if deadline is not None and time.monotonic() >= deadline:
                break
        return None

    def _fill(self, refs: Sequence[CompiledDAGRef], since_ns: int) -> list[CompiledDAGRef]:
        """Fill in what is there of this graph's among `refs`, and return the others. Locked.

        In a function of its own: in Python 3.13 Ctrl-C where a loop goes back from a condition is
        outside of the `try` around the loop (CPython issue 130279), and the lock stayed taken.
        """
        fill = self.results.fill
        return [ref for ref in refs if ref._dag._fetching is self and not fill(ref, since_ns)]

    def wait(self, waits: Waits, deadline: float | None) -> bool:
        """Wait for one of `waits`; False at the deadline. Raises what ends a graph of theirs."""
        if len(waits.places) == 1 and not waits.news:
            ((reader, seen),) = waits.places
            return self.host.waiter.word(
                reader.words, reader.sequence_word, seen, waits.guard, deadline, reader.site
            )
        return self.host.waiter.until(waits.over, waits.guard, deadline, self.site)

    def wait_or_report(self, waits: Waits, timeout_s: float, deadline: float | None) -> str | None:
        """Wait for one of `waits`.

        Args:
            waits: What to wait for.
            timeout_s: How long the whole wait may take; decides how much is told.
            deadline: `time.monotonic` value of its end, or None.

        Returns:
            None if it came; if it is late a hang report, which for a poll is empty.
        """
        early = deadline
        if deadline is not None and timeout_s >= FULL_S:
            early = deadline - LEAD_S
        if self.wait(waits, early):
            return None
        report = self._observer.late(timeout_s, deadline)
        return None if self.wait(waits, deadline) else report

    def _hold_out(self, ref: CompiledDAGRef, reader: Reader) -> None:
        """Wait for the rest of the usual time-out; raises if `ref` is not there then."""
        timeout_s = self._options.get_timeout_s
        waits = Waits(((reader, ref._execution),), (), (), self.guard)
        deadline = time.monotonic() + timeout_s - self._patience_s
        report = self.wait_or_report(waits, timeout_s, deadline)
        if report is not None:
            raise self.late((ref,), None, timeout_s, report)

    def is_ready(self, ref: CompiledDAGRef) -> bool:
        """Tell whether getting `ref` would not wait."""
        return self.words[at.STATE_WORD] != at.OPEN or self.results.is_published(ref)

    def _first_deadline(self) -> float | None:
        patience_s = self._patience_s
        return None if patience_s < 0 else time.monotonic() + patience_s

    def late(
        self,
        missing: Sequence[CompiledDAGRef],
        timeout: float | None,
        timeout_s: float,
        report: str,
    ) -> ChannelTimeoutError:
        """Return what a `get` raises that is not ready in time."""
        which = ", ".join(map(str, list(dict.fromkeys(ref._execution for ref in missing))[:10]))
        option = "_get_timeout (COMPILED_DAG_GET_TIMEOUT)" if timeout is None else "timeout"
        told = f"\n{report}" if report else ""
        error = ChannelTimeoutError(
            f"execution {which} of graph {self._deployment.name} was not ready within {option}="
            f"{timeout_s} s. Nothing is lost: get again.{told}"
        )
        error.report = report
        return error


if RETURNS_ARE_CHECKED:
    # A value that is lost on its way from `peek` gives its slot back; its message is read again.
    Fetching.one = (  # type: ignore[method-assign]
        lambda self, ref, timeout: self.many((ref,), timeout)
    )


def _look(
    parts: Sequence[Fetching],
    refs: Sequence[CompiledDAGRef],
    deadline: float | None,
    since_ns: int,
) -> tuple[list[CompiledDAGRef], Waits] | None:
    """Fill in what is there; return what is missing and what to wait for. None if it got late."""
    missing: list[CompiledDAGRef] = []
    places: list[tuple[Reader, int]] = []
    news: list[tuple[News, int]] = []
    guards = []
    for part in parts:
        results = part.results
        count = results.news.count
        look = part.look(refs, deadline, since_ns)
        if look is None:
            return None
        mine, awaited = look
        if mine:
            missing += mine
            places += awaited
            guards.append(part.guard)
            if part.may_drop:
                news.append((results.news, count))
    return missing, Waits(places, (), news, guards[0] if len(guards) == 1 else _all_of(guards))


def _all_of(guards: Sequence[Callable[[], None]]) -> Callable[[], None]:
    def guard() -> None:
        for one in guards:
            one()

    return guard
