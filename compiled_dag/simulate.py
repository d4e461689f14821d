"""Dry-run a program: prove that no participant can wait for ever.

All participants' steps run against channels of their real depth, collectives that need every rank
and communicators whose writer and readers must meet, all at once, for a value to travel; without
processes or values, for two executions submitted one after the other. What one
participant does never depends on values, so a run that ends proves that every run ends: each step
is enabled by steps earlier in the same total order, whatever the timing.
"""

from __future__ import annotations

from collections import defaultdict

from compiled_dag.errors import DeadlockError
from compiled_dag.program import CollectiveStart, CollectiveWait, Program, Read, Step, Write

EXECUTIONS = 2


def simulate(program: Program) -> tuple[tuple[int, ...], ...]:
    """Run `program` dry.

    Returns:
        Per participant, the tick at which each of its steps could first run: the row it is
        printed in. The largest tick is the length of the program's critical path in steps.

    Raises:
        DeadlockError: Somebody waits for ever; the message shows who waits for what.
    """
    return _Simulation(program).run()


class _Simulation:
    def __init__(self, program: Program) -> None:
        self._program = program
        executions = min(EXECUTIONS, program.depth)
        driver = program.steps[0]
        writes = tuple(step for step in driver if isinstance(step, Write))
        reads = tuple(step for step in driver if not isinstance(step, Write))
        self._lists: list[tuple[Step, ...]] = [writes * executions + reads * executions]
        self._lists += [steps * executions for steps in program.steps[1:]]
        self._at = [0] * len(self._lists)
        self._written: dict[int, int] = defaultdict(int)
        self._read: dict[tuple[int, int], int] = defaultdict(int)
        self._arrived: dict[tuple[int, int], int] = defaultdict(int)
        self._finished: dict[tuple[int, int], int] = defaultdict(int)
        self._ticks: list[list[int]] = [[] for _ in self._lists]

    def run(self) -> tuple[tuple[int, ...], ...]:
        tick = 0
        while any(at < len(steps) for at, steps in zip(self._at, self._lists, strict=True)):
            # Everybody looks at the state before the tick, so that one tick is one step each.
            enabled = [self._enabled(number) for number in range(len(self._lists))]
            if not any(enabled):
                raise DeadlockError(self._report())
            for number, can in enumerate(enabled):
                if can:
                    self._step(number)
                    self._ticks[number].append(tick)
            tick += 1
        firsts = [len(steps) for steps in self._program.steps]
        ticks = [tuple(ticks[:first]) for ticks, first in zip(self._ticks, firsts, strict=True)]
        ticks[0] = self._driver_ticks()
        return tuple(ticks)

    def _driver_ticks(self) -> tuple[int, ...]:
        """Return the driver's ticks of the first execution, in program order."""
        steps, ticks = self._lists[0], self._ticks[0]
        num_writes = sum(isinstance(step, Write) for step in self._program.steps[0])
        all_writes = sum(isinstance(step, Write) for step in steps)
        first_reads = len(self._program.steps[0]) - num_writes
        return (*ticks[:num_writes], *ticks[all_writes : all_writes + first_reads])

    def _enabled(self, number: int) -> bool:
        if self._at[number] == len(self._lists[number]):
            return False
        match self._lists[number][self._at[number]]:
            case Read(channel=channel):
                if self._meets_at(channel):
                    return not self._absent(channel)
                return self._read[channel, number] < self._written[channel]
            case Write(channel=channel):
                spec = self._program.channels[channel]
                if self._meets_at(channel):
                    return not self._absent(channel)
                slowest = min(self._read[channel, reader] for reader in spec.readers)
                return self._written[channel] - slowest < spec.depth
            case CollectiveWait(operation=operation):
                turn = self._finished[operation, number]
                members = self._program.operations[operation].members
                return all(self._arrived[operation, member] > turn for member in members)
            case _:
                return True

    def _meets_at(self, channel: int) -> bool:
        return self._program.channels[channel].transport.is_rendezvous

    def _absent(self, channel: int) -> tuple[int, ...]:
        spec = self._program.channels[channel]
        return tuple(end for end in (spec.writer, *spec.readers) if not self._is_at(end, channel))

    def _is_at(self, number: int, channel: int) -> bool:
        if self._at[number] == len(self._lists[number]):
            return False
        step = self._lists[number][self._at[number]]
        return isinstance(step, Read | Write) and step.channel == channel

    def _step(self, number: int) -> None:
        match self._lists[number][self._at[number]]:
            case Read(channel=channel):
                self._read[channel, number] += 1
            case Write(channel=channel):
                self._written[channel] += 1
            case CollectiveStart(operation=operation):
                self._arrived[operation, number] += 1
            case CollectiveWait(operation=operation):
                self._finished[operation, number] += 1
            case _:
                pass
        self._at[number] += 1

    def _report(self) -> str:
        """Return who waits for whom: first the cycle, or the chain to somebody who has ended."""
        chain, repeated = self._chain()
        if repeated is not None:
            chain = chain[chain.index(repeated) :]
        waiting = [n for n, steps in enumerate(self._lists) if self._at[n] < len(steps)]
        others = [number for number in waiting if number not in chain]
        lines = ["the program would wait for itself:", *map(self._line, chain)]
        if others:
            lines += ["and behind that:", *map(self._line, others)]
        return "\n".join(lines)

    def _chain(self) -> tuple[list[int], int | None]:
        """Follow who waits for whom; returns the participants, and where they close a cycle."""
        number = next(n for n, steps in enumerate(self._lists) if self._at[n] < len(steps))
        chain: list[int] = []
        while number not in chain:
            if self._at[number] == len(self._lists[number]):
                return chain, None
            chain.append(number)
            step = self._lists[number][self._at[number]]
            number = self._awaited(step, number)[0]
        return chain, number

    def _line(self, number: int) -> str:
        step = self._lists[number][self._at[number]]
        position = self._at[number] % len(self._program.steps[number])
        if number == 0:  # the driver's list is in another order than its program
            position = self._program.steps[0].index(step)
        node = self._program.node_of(number, position)
        name = self._program.participants[number]
        if number == 0 and isinstance(step, Read):
            name += ", output"
        elif node is not None:
            name += f", node {node}"
        return f"  {name} (step {position}): {self._waits(step, number)}"

    def _awaited(self, step: Step, number: int) -> tuple[int, ...]:
        """Return the participants that `number` waits for in `step`."""
        match step:
            case Read(channel) | Write(channel) if self._meets_at(channel):
                return self._absent(channel)
            case Read(channel=channel):
                return (self._program.channels[channel].writer,)
            case Write(channel=channel):
                readers = self._program.channels[channel].readers
                slowest = min(self._read[channel, reader] for reader in readers)
                return tuple(r for r in readers if self._read[channel, r] == slowest)
            case CollectiveWait(operation=operation):
                turn = self._finished[operation, number]
                members = self._program.operations[operation].members
                return tuple(m for m in members if self._arrived[operation, m] <= turn)
            case _:
                msg = f"never waits: {step}"
                raise AssertionError(msg)

    def _waits(self, step: Step, number: int) -> str:
        names = ", ".join(self._program.participants[n] for n in self._awaited(step, number))
        match step:
            case Read(channel) | Write(channel) if self._meets_at(channel):
                label = self._program.channels[channel].label
                return f"waits for {names} to take part in {label}"
            case Read(channel=channel):
                return f"waits for {names} to write {self._program.channels[channel].label}"
            case Write(channel=channel):
                return f"waits for {names} to read {self._program.channels[channel].label}"
            case CollectiveWait(operation=operation):
                return f"waits in {self._program.operations[operation].text} for {names}"
            case _:
                return f"is at {step}"
