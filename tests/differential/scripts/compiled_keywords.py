"""Every keyword of `experimental_compile`, and their order."""

import ray
from ray.dag import InputNode
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        return x


a = A.remote()


def run(*args, **options):
    with InputNode() as inp:
        dag = a.f.bind(inp)
    compiled = dag.experimental_compile(*args, **options)
    value = ray.get(compiled.execute(1))
    compiled.teardown()
    return value


attempt(
    lambda: run(
        _submit_timeout=5,
        _buffer_size_bytes=2000,
        enable_asyncio=False,
        _max_inflight_executions=3,
        _max_buffered_results=4,
        _overlap_gpu_communication=False,
        _default_communicator="create",
    )
)
attempt(lambda: run(5, 2000, False, 3, 4, False, "create"))
attempt(lambda: run(_default_communicator=None))
attempt(lambda: run(_default_communicator="nonsense"), "ValueError")
attempt(lambda: run(_max_inflight_executions=1))
