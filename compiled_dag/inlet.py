"""The driver's input channels as one: all inputs of an execution are shown, or none is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.channel.codec import encode
from compiled_dag.ends import open_writer
from compiled_dag.errors import CapacityExceededError, GraphUsageError, MemoryCapError
from compiled_dag.outcome import Error, Place
from compiled_dag.program import Program, Write
from compiled_dag.reentry import refuse_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.channel.writer import Writer
    from compiled_dag.options import CompileOptions
    from compiled_dag.tickets import Member
    from compiled_dag.trace.log import Log

_SHORT_ERROR: Final = 1000


class Inlet:
    """The writers of one graph's inputs. Its callers exclude each other."""

    def __init__(
        self,
        graph: GraphSegment,
        program: Program,
        options: CompileOptions,
        member: Member,
        log: Log,
    ) -> None:
        self.writers = [
            (open_writer(graph, program.channels[step.channel],
                         slot_bytes=options.buffer_size_bytes,
                         cap_bytes=options.max_memory_bytes), step.slot)
            for step in program.steps[0] if isinstance(step, Write)
        ]  # fmt: skip
        self._member = member
        self._log = log

    def send(self, values: Sequence[Any], number: int) -> None:
        """Send the inputs of execution `number` from the driver's slots.

        Raises:
            TypeError: One cannot be pickled; nothing was sent.
            MemoryCapError: There is no memory for one; nothing was sent.
            CapacityExceededError: As `Tickets.turn_to`; nothing was sent.
        """
        writers, member = self.writers, self._member
        begin_ns = 0 if number & self._log.mask else time.monotonic_ns()
        try:
            for writer, slot in writers:
                writer.stage(values[slot])
        except BaseException as error:
            self._abandon()
            if isinstance(error, TypeError):
                raise TypeError(_which(writers, values, error)) from error
            raise
        if member.places:
            self.publish_in_turn()
        else:  # the usual case, flat
            for writer, _ in writers:
                writer.publish()
        if begin_ns:
            self._log.sent(number, begin_ns)

    def capture(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Return the inputs as they are now, for `send_captured`.

        Raises:
            TypeError: One cannot be pickled.
        """
        try:
            return tuple([writer.capture(values[slot]) for writer, slot in self.writers])
        except TypeError as error:
            raise TypeError(_which(self.writers, values, error)) from error

    def may_send(self) -> bool:
        """Tell whether all actors would take another ticket."""
        return not any(shared.ring.is_full for shared, _ in self._member.places)

    def send_captured(self, inputs: Sequence[Any], number: int) -> None:
        """Send inputs that were captured. Where there is no memory for one, an error goes."""
        begin_ns = 0 if number & self._log.mask else time.monotonic_ns()
        try:
            for (writer, _), value in zip(self.writers, inputs, strict=True):
                self._stage_captured(writer, value)
        except BaseException:  # Ctrl-C
            self._abandon()
            raise
        if self._member.places:
            self.publish_in_turn()
        else:
            self._publish()
        if begin_ns:
            self._log.sent(number, begin_ns)

    def publish_in_turn(self) -> None:
        """Show what is staged where actors are shared, after a ticket if another graph has them."""
        member, tickets = self._member, self._member.tickets
        with tickets.lock:
            holder, tickets.holder = tickets.holder, None  # until all is shown
            if holder is not member:
                self._take_turns(holder)
            self._publish()
            tickets.holder = member

    def _take_turns(self, holder: Member | None) -> None:
        member = self._member
        try:
            if holder is None:  # broken off, or not at its end yet
                refuse_inside(_SHOWING, self._is_of_same_tickets, f"{member.graph_id:x}", above=2)
            member.tickets.turn_to(member)
        except (CapacityExceededError, GraphUsageError):
            self._abandon()
            raise

    def _is_of_same_tickets(self, other: Inlet) -> bool:
        return other._member.tickets is self._member.tickets and bool(other._member.places)

    def _publish(self) -> None:
        for writer, _ in self.writers:
            writer.publish()

    @staticmethod
    def _stage_captured(writer: Writer, value: Any) -> None:
        try:
            writer.stage_captured(value)
        except MemoryCapError as cause:
            place = Place(method=f"sending {writer.spec.label}", actor="the driver")
            error = Error.capture(cause, place)
            try:
                writer.stage_encoded(encode(error))
            except MemoryCapError:
                writer.stage_encoded(encode(error.shortened(_SHORT_ERROR)))

    def on_lent(self, callback: Callable[[], object]) -> None:
        """Call `callback` when an input refers to what stays here (see `Encoded.lent`)."""
        for writer, _ in self.writers:
            writer.on_lent = callback

    @property
    def may_take_back(self) -> bool:
        """Whether the actors have all that inputs referred to. Any thread may ask."""
        return all(writer.may_take_back for writer, _ in self.writers)

    def take_back(self, *, everything: bool) -> None:
        """Let go of what inputs referred to, as far as the actors have it, or of `everything`."""
        for writer, _ in self.writers:
            if everything:
                writer.take_all_back()
            else:
                writer.take_back()

    def num_shown(self) -> int:
        """Return how many executions the actors have seen an input of."""
        return max(writer.published() for writer, _ in self.writers)

    def settle(self) -> None:
        """Finish what an interrupt broke off: show all inputs if one was shown, else none."""
        with self._member.tickets.lock:
            self.complete()
        self._abandon()

    def complete(self) -> int:
        """Show all inputs of an execution of which one was shown; called under `Tickets.lock`.

        Returns:
            How many executions were shown.
        """
        if len(self.writers) == 1:  # with several graphs, often between two executions
            return self.writers[0][0].published()
        shown = self.num_shown()
        for writer, _ in self.writers:
            if writer.published() < shown:
                writer.publish()  # if one was shown, all were staged
        return shown

    def _abandon(self) -> None:
        for writer, _ in self.writers:
            writer.abandon()


def _which(writers: Sequence[tuple[Writer, int]], values: Sequence[Any], error: TypeError) -> str:
    """Say which input could not be sent."""
    for writer, slot in writers:
        try:
            encode(values[slot])
        except TypeError as same:
            return f"{writer.spec.label}: {same}"
    return str(error)


_SHOWING: Final = {Inlet.publish_in_turn.__code__}
