"""Does gloo connect two processes of this machine? For `compiled-dag doctor`: two actors try."""

from __future__ import annotations

import importlib.util
import time
from typing import TYPE_CHECKING, Any, Final

from runtime.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

_WAIT_S: Final = 30.0
_SUBJECT: Final = "gloo"


class _Rank:
    """One of them."""

    def __init__(self, rank: int) -> None:
        import torch  # noqa: PLC0415  only these two need it

        self._value = torch.full((1000,), float(rank + 1))

    def give(self, _asked: object) -> Any:
        """Return what this rank brings."""
        return self._value

    def total(self, reduced: Any) -> float:
        """Return one item of the sum."""
        return float(reduced[-1])


def gloo() -> Iterator[Finding]:
    """Have two ranks sum tensors over the loopback interface, in a graph."""
    import runtime  # noqa: PLC0415  see doctor

    if importlib.util.find_spec("torch") is None:
        return
    if runtime.is_initialized():
        yield Finding(Level.NOTE, _SUBJECT, "a session is running here: not tried")
        return
    try:
        yield Finding(Level.OK, _SUBJECT, _summed())
    except Exception as error:  # noqa: BLE001  whatever it is, it is what is to be told
        advice = (
            "collectives of CPU tensors need the loopback interface (ip link set lo up); "
            "transport='shm' does without"
        )
        text = f"two ranks could not sum a tensor: {type(error).__name__}: {error}"
        yield Finding(Level.WARNING, _SUBJECT, text, advice)


def _summed() -> str:
    import runtime  # noqa: PLC0415  see doctor
    from collective import allreduce  # noqa: PLC0415
    from compiled_dag import InputNode, MultiOutputNode  # noqa: PLC0415

    with runtime.init(num_cpus=2):
        ranks = [runtime.remote(_Rank).remote(rank) for rank in range(2)]
        with InputNode() as asked:
            sums = allreduce.bind([rank.give.bind(asked) for rank in ranks], transport="gloo")
            totals = [rank.total.bind(one) for rank, one in zip(ranks, sums, strict=True)]
            node = MultiOutputNode(totals)
        began = time.perf_counter()
        with node.experimental_compile() as graph:
            first = runtime.get(graph.execute(0), timeout=_WAIT_S)
            formed = time.perf_counter() - began
            began = time.perf_counter()
            again = runtime.get(graph.execute(0), timeout=_WAIT_S)
            took = time.perf_counter() - began
    if first + again != [3.0] * 4:
        raise RuntimeError(f"the ranks got {first}, then {again}, and 3.0 is right")
    return f"two ranks over loopback: formed in {formed * 1e3:.0f} ms, a sum in {took * 1e3:.1f} ms"
