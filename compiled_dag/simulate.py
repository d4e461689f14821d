"""Dry-run a program: prove that no participant can wait for ever.

All participants' steps run against channels of their real depth and collectives that need every
rank, without processes or values, for two executions submitted one after the other. What one
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
                return self._read[channel, number] < self._written[channel]
            case Write(channel=channel):
                spec = self._program.channels[channel]
                slowest = min(self._read[channel, reader] for reader in spec.readers)
                return self._written[channel] - slowest < spec.depth
            case CollectiveWait(operation=operation):
                turn = self._finished[operation, number]
                members = self._program.operations[operation].members
                return all(self._arrived[operation, member] > turn for member in members)
            case _:
                return True

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
        lines = ["the program would wait for itself:"]
        names = self._program.participants
        for number, steps in enumerate(self._lists):
            if self._at[number] < len(steps):
                step = steps[self._at[number]]
                position = self._at[number] % len(self._program.steps[number])
                if number == 0:  # the driver's list is in another order than its program
                    position = self._program.steps[0].index(step)
                lines.append(f"  {names[number]}, step {position}: {self._waits(step, number)}")
        return "\n".join(lines)

    def _waits(self, step: Step, number: int) -> str:
        names = self._program.participants
        match step:
            case Read(channel=channel):
                spec = self._program.channels[channel]
                return f"waits for {names[spec.writer]} to write {spec.label}"
            case Write(channel=channel):
                spec = self._program.channels[channel]
                readers = ", ".join(names[reader] for reader in spec.readers)
                return f"waits for {readers} to read {spec.label}"
            case CollectiveWait(operation=operation):
                turn = self._finished[operation, number]
                spec_ = self._program.operations[operation]
                late = [m for m in spec_.members if self._arrived[operation, m] <= turn]
                return f"waits in {spec_.text} for {', '.join(names[m] for m in late)}"
            case _:
                return f"is at {step}"
