"""The GPUs of this machine, for `compiled-dag doctor`: which they are, what actors can share.

What can be shared is found out by compiling a graph, whose actors try (`compiled_dag.cuda.probe`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runtime.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

_DRIVER: Final = Path("/proc/driver/nvidia/version")
_WAIT_S: Final = 60.0
_GIB: Final = 1 << 30


def devices() -> Iterator[Finding]:
    """Tell what torch sees: driver, NCCL, every GPU by UUID, and who reaches whom."""
    if _DRIVER.is_file():
        yield Finding(Level.OK, "driver", _DRIVER.read_text().splitlines()[0])
    import torch  # noqa: PLC0415  without GPUs nobody comes here

    if not torch.cuda.is_available():
        advice = "install a CUDA build of torch that this driver can run"
        yield Finding(Level.WARNING, "CUDA", "torch.cuda.is_available() is False", advice)
        return
    if torch.distributed.is_nccl_available():
        version = ".".join(map(str, torch.cuda.nccl.version()))
        yield Finding(Level.OK, "NCCL", version)
    count = torch.cuda.device_count()
    for number in range(count):
        facts: Any = torch.cuda.get_device_properties(number)
        memory = f"{facts.total_memory / _GIB:.0f} GiB"
        yield Finding(Level.OK, f"GPU {number}", f"{facts.name}, GPU-{facts.uuid}, {memory}")
    for number in range(count):
        others = [other for other in range(count) if other != number]
        reached = [o for o in others if torch.cuda.can_device_access_peer(number, o)]
        if others:
            level = Level.OK if reached == others else Level.NOTE
            text = f"reaches {', '.join(map(str, reached)) or 'no other'} of {len(others)} others"
            yield Finding(level, f"peers of {number}", text)


class _Nobody:
    """The actors of the graph that is only compiled."""

    def pass_on(self, value: Any) -> Any:
        """Return what it is given."""
        return value


def sharing() -> Iterator[Finding]:
    """Tell whether two actors can share GPU memory and events: they try."""
    import runtime  # noqa: PLC0415  see doctor
    from compiled_dag import InputNode  # noqa: PLC0415

    if runtime.is_initialized():
        yield Finding(Level.NOTE, "sharing", "a session is running here: not tried")
        return
    with runtime.init(num_cpus=2):
        actor = runtime.remote(_Nobody).options(num_gpus=0.5)
        first, second = actor.remote(), actor.remote()
        with InputNode() as value:
            passed = first.pass_on.bind(value).with_tensor_transport("accelerator")
            node = second.pass_on.bind(passed)
        with node.experimental_compile() as graph:
            runtime.get(graph.execute(0), timeout=_WAIT_S)
            edge = next(edge for edge in graph.explain().edges if "hinted" in edge.why)
    text = f"tensors between actors on one GPU travel by {edge.transport}: {edge.why}"
    if edge.transport == "cuda_ipc" and "hosts wait" not in edge.why:
        yield Finding(Level.OK, "sharing", text)
    else:
        advice = (
            "the fallback works, slower; pip install 'compiled-dag[gpu]' if cupy is missing, and "
            "in containers share the PID and IPC namespaces"
        )
        yield Finding(Level.WARNING, "sharing", text, advice)
