"""Options that are wrong."""

import ray
from ray.dag import DAGContext, InputNode
from seen import attempt


@ray.remote
class A:
    def f(self, x):
        return x


a = A.remote()


def compile_with(**options):
    with InputNode() as inp:
        dag = a.f.bind(inp)
    compiled = dag.experimental_compile(**options)
    compiled.teardown()


attempt(lambda: compile_with(_buffer_size_bytes=0), "ValueError")
attempt(lambda: compile_with(_buffer_size_bytes="big"), "ValueError")
attempt(lambda: compile_with(nonsense=1), "TypeError")
attempt(lambda: compile_with(enable_asyncio=False))
context = DAGContext.get_current()
print(int(context.submit_timeout), int(context.get_timeout), int(context.teardown_timeout))
print(context.buffer_size_bytes, context.max_inflight_executions, context.max_buffered_results)
