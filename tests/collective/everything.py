"""Every operation x dtype x form in one graph, and what numpy makes of the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import collective
from collective import ReduceOp, kinds
from collective.kinds import Kind
from compiled_dag import InputNode, MultiOutputNode, TaskError
from tests.collective.oracle import DTYPES, expected, numbers, refusal, small

W = 3
ROOT = 1
SHAPES = [(), (0,), (3,), (5,), (6, 2), (3, 0, 2), (33, 5), (1, 7)]
REDUCING = [kinds.ALLREDUCE, kinds.REDUCE, kinds.REDUCESCATTER]
MOVING = [kinds.BROADCAST, kinds.ALLGATHER, kinds.GATHER, kinds.SCATTER, kinds.ALL_TO_ALL]
FORMS: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (1, {}),
    "nested": (3, {}),
    "bucketed": (3, {"bucket_bytes": 48}),
    "inplace": (1, {"inplace": True}),
    "nested inplace": (3, {"inplace": True}),
    "uneven": (1, {"uneven": True}),
    "nested uneven": (3, {"uneven": True, "bucket_bytes": 200}),
}
"""Number of buckets, and options."""


THOROUGH = pytest.mark.parametrize("step", [6, pytest.param(3, marks=pytest.mark.soak)])
"""Every shape in two other dtypes at least, or in five."""


@dataclass(frozen=True)
class Drawn:
    """One operation of the graph."""

    kind: Kind
    op: str | None
    form: str

    @property
    def num_buckets(self) -> int:
        return FORMS[self.form][0]

    @property
    def uneven(self) -> bool:
        return "uneven" in self.form

    def shapes(self, case: tuple[str, int], rank: int) -> list[tuple[int, ...]]:
        """Return what a rank brings to it, by bucket."""
        shape = SHAPES[case[1]]
        more = rank if self.uneven and self.kind.root != "src_rank" else 0
        if more and shape:
            shape = (shape[0] + more, *shape[1:])
        return [shape, (3 + 3 * more,), (6, 2, *shape[2:])][: self.num_buckets]

    def bring(self, case: tuple[str, int], rank: int) -> list[torch.Tensor]:
        """Return a rank's tensors; every second bucket is laid out in some other way."""
        found = []
        for bucket, shape in enumerate(self.shapes(case, rank)):
            tensor = small(shape, case[0], seed=rank + 2 * bucket)
            if (bucket + case[1]) % 2:
                wide = torch.stack([tensor, tensor], dim=-1)
                tensor = wide[..., 0]
            found.append(tensor)
        return found

    def draw(self, nodes: list[list[Any]], transport: Any) -> list[Any]:
        """Draw it; returns every rank's results, None where it has none."""
        bind = getattr(collective, self.kind.name).bind
        options = {**FORMS[self.form][1], "transport": transport}
        if self.op is not None:
            options["op"] = ReduceOp[self.op]
        if self.kind.root:
            options[self.kind.root] = ROOT
        found = bind(nodes if self.num_buckets > 1 else nodes[0], **options)
        if self.kind.root == "dst_rank":
            found = [found if rank == ROOT else None for rank in range(W)]
        return [one if one is None or isinstance(one, list) else [one] for one in found]


def all_drawn() -> list[Drawn]:
    others = [op.name for op in ReduceOp if op.name != "SUM"]
    found = [Drawn(kind, op, "plain") for kind in REDUCING for op in others]
    for kind in (*REDUCING, *MOVING):
        for form in FORMS:
            if ("inplace" in form and not kind.in_place) or (
                "uneven" in form and not kind.may_be_uneven
            ):
                continue
            found.append(Drawn(kind, "SUM" if kind.reduces else None, form))
    return found


DRAWN = all_drawn()


class Rank:
    """What an actor of it is."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def bring(self, case: tuple[str, int], number: int, bucket: int) -> torch.Tensor:
        return DRAWN[number].bring(case, self.rank)[bucket]

    def show(self, value: torch.Tensor) -> torch.Tensor:
        return value


class Everything:
    """The graph of a backend."""

    def __init__(self, backend: str, transport: Any, actors: list[Any]) -> None:
        """Compile it.

        Args:
            backend: Its name.
            transport: It, as operations are told.
            actors: W of them, of a kind of `Rank`.
        """
        self.backend = backend
        outputs: list[Any] = []
        self.places: list[tuple[Drawn, int, int]] = []
        """Operation, rank and bucket of every output."""
        with InputNode() as inp:
            for number, drawn in enumerate(DRAWN):
                nodes = [
                    [actor.bring.bind(inp, number, bucket) for actor in actors]
                    for bucket in range(drawn.num_buckets)
                ]
                for rank, results in enumerate(drawn.draw(nodes, transport)):
                    for bucket, node in enumerate(results or ()):
                        self.places.append((drawn, rank, bucket))
                        outputs.append(actors[rank].show.bind(node))
            self.graph = MultiOutputNode(outputs).experimental_compile()

    def check(self, case: tuple[str, int]) -> None:
        refs = self.graph.execute(case)
        wanted = {drawn: self.wanted(drawn, case) for drawn in DRAWN}
        for (drawn, rank, bucket), ref in zip(self.places, refs, strict=True):
            want = wanted[drawn]
            where = f"{drawn} rank {rank} bucket {bucket} of {case[0]} {SHAPES[case[1]]}"
            if isinstance(want, type):
                with pytest.raises(TaskError) as raised:
                    ref.get(timeout=30)
                assert isinstance(raised.value, want), where
                continue
            found, array = ref.get(timeout=30), want[bucket][rank]
            assert found.dtype == getattr(torch, case[0]), where
            assert tuple(found.shape) == array.shape, where
            np.testing.assert_allclose(numbers(found), array, rtol=1e-2, err_msg=where)

    def wanted(self, drawn: Drawn, case: tuple[str, int]) -> Any:
        """Return results by bucket and rank, or the error."""
        ranks = [ROOT] if drawn.kind.root == "src_rank" else range(W)
        shapes = [shape for rank in ranks for shape in drawn.shapes(case, rank)]
        why = refusal(self.backend, drawn.kind, drawn.op, case[0], shapes, uneven=drawn.uneven)
        if why is not None:
            return why
        brought = [list(map(numbers, drawn.bring(case, rank))) for rank in range(W)]
        return [
            expected(drawn.kind, drawn.op, ROOT, [of[bucket] for of in brought])
            for bucket in range(drawn.num_buckets)
        ]

    def check_all(self, dtype: str, step: int) -> None:
        """Check every shape for the first of all dtypes, and every `step`-th for each other."""
        turn = DTYPES.index(dtype)
        for number in range(len(SHAPES)):
            if turn == 0 or (turn + number) % step == 0:
                self.check((dtype, number))
                if turn == 0:  # what looks as it did before goes a shorter way
                    self.check((dtype, number))
