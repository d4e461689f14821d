"""Graphs drawn at random whose values NCCL carries (`tests.cuda.nccl`), against the same by hand.

Methods make new tensors, two at once, or change one in place that they have returned before; many
executions are under way. What is wrong shows as numbers, or as nobody's getting on.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import runtime
from compiled_dag import InputNode, MultiOutputNode
from compiled_dag.cuda.device import open_device
from tests.cuda.crew import Stage
from tests.cuda.graphs import get

LENGTH = 3000
ACTORS = 3
PRIME = 1009
EXECUTIONS = 8


@dataclass(frozen=True)
class Call:
    """One node."""

    actor: int
    kind: str
    number: int
    arguments: tuple[int, ...]
    """Values, by number; none where it is the input that is given."""


def first(given: int) -> torch.Tensor:
    return (torch.arange(LENGTH, dtype=torch.int32) + given) % PRIME


def mixed(number: int, *values: torch.Tensor) -> torch.Tensor:
    return (torch.stack(values).sum(0, dtype=torch.int32) + number) % PRIME


class Mixer(Stage):
    """Does with its GPU what `play` does by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.totals: dict[str, torch.Tensor] = {}

    def _mix(self, number: int, *values: torch.Tensor) -> torch.Tensor:
        device = open_device()
        made = device.new(("int32", (LENGTH,)))
        device.launch(lambda made, *values: made.copy_(mixed(number, *values)), made, *values)
        return made

    def begin(self, given: int) -> torch.Tensor:
        device = open_device()
        made = device.new(("int32", (LENGTH,)))
        device.launch(lambda made: made.copy_(first(given)), made)
        return made

    def mix(self, _key: str, number: int, *values: torch.Tensor) -> torch.Tensor:
        return self._mix(number, *values)

    def mix_two(self, _key: str, number: int, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self._mix(number, *values), self._mix(2 * number, *values)

    def grow(self, key: str, number: int, *values: torch.Tensor) -> torch.Tensor:
        """Return the same tensor each time, with more in it."""
        device = open_device()
        if key not in self.totals:
            self.totals[key] = device.from_host(bytes(4 * LENGTH)).view(torch.int32)
        total = self.totals[key]
        device.launch(
            lambda total, *values: total.copy_(mixed(number, total, *values)), total, *values
        )
        return total


def drawn(seed: int) -> list[Call]:
    """Return calls in their order; the values of each are numbered on from those before."""
    chance = random.Random(seed)
    calls = [Call(actor, "begin", 0, ()) for actor in range(ACTORS)]
    num_values = ACTORS
    for number in range(1, chance.randint(4, 9)):
        kind = chance.choice(("mix", "mix_two", "grow"))
        arguments = tuple(chance.choices(range(num_values), k=chance.randint(1, 3)))
        calls.append(Call(chance.randrange(ACTORS), kind, number, arguments))
        num_values += 1 + (kind == "mix_two")
    return calls


def homes_of(calls: list[Call]) -> list[int]:
    """Return the actor of each value."""
    return [call.actor for call in calls for _ in range(1 + (call.kind == "mix_two"))]


def play(calls: list[Call], given: int, totals: dict[int, torch.Tensor]) -> list[torch.Tensor]:
    """Return all values of an execution, by hand."""
    values: list[torch.Tensor] = []
    for place, call in enumerate(calls):
        taken = [values[number] for number in call.arguments]
        match call.kind:
            case "begin":
                values.append(first(given))
            case "mix":
                values.append(mixed(call.number, *taken))
            case "mix_two":
                values += [mixed(call.number, *taken), mixed(2 * call.number, *taken)]
            case "grow":
                before = totals.get(place, torch.zeros(LENGTH, dtype=torch.int32))
                totals[place] = mixed(call.number, before, *taken)
                values.append(totals[place])
    return values


def draw(calls: list[Call], actors: list[Any], seed: int) -> tuple[MultiOutputNode, list[int]]:
    """Draw it; returns the values that are shown, too: those that nothing else needs."""
    homes = homes_of(calls)
    abroad = {n for call in calls for n in call.arguments if homes[n] != call.actor}
    used = {n for call in calls for n in call.arguments}
    nodes: list[Any] = []
    with InputNode() as inp:
        for place, call in enumerate(calls):
            method = getattr(actors[call.actor], call.kind)
            if call.kind == "begin":
                found = [method.bind(inp)]
            else:
                taken = [nodes[number] for number in call.arguments]
                num_returns = 1 + (call.kind == "mix_two")
                made = method.options(num_returns=num_returns).bind(
                    f"{seed}, {place}", call.number, *taken
                )
                found = list(made) if num_returns > 1 else [made]
            for node in found:
                if len(nodes) in abroad:
                    node.with_tensor_transport("nccl")
                nodes.append(node)
        shown = [number for number in range(len(nodes)) if number not in used]
        return MultiOutputNode([actors[homes[n]].show.bind(nodes[n]) for n in shown]), shown


@pytest.mark.proc
@pytest.mark.timeout(300)
@pytest.mark.parametrize("overlaps", [False, True])
def test_what_arrives_is_what_was_made(start, overlaps) -> None:
    start(0, num_gpus=ACTORS, settings="no_memory,nccl,pause_us=300")
    kind = runtime.remote(Mixer).options(num_gpus=1)
    actors = [kind.remote() for _ in range(ACTORS)]
    ways: set[str] = set()
    together = 0
    for seed in range(12):
        calls = drawn(seed)
        output, shown = draw(calls, actors, seed)
        totals: dict[int, torch.Tensor] = {}
        with output.experimental_compile(_overlap_gpu_communication=overlaps) as graph:
            ways |= {edge.transport for edge in graph.explain().edges}
            together += sum("," in channel.name for channel in graph.memory().channels)
            refs = [graph.execute(given) for given in range(EXECUTIONS)]
            for given, found in enumerate(map(get, refs)):
                values = play(calls, given, totals)
                expected = [("gpu", values[number].tolist()) for number in shown]
                assert found == expected, (seed, given)
    assert ways == {"shm", "nccl", "local"}
    assert together
