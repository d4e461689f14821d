"""What a compiled graph tells of itself."""

import ray
from ray.dag import InputNode
from ray.dag.compiled_dag_node import CompiledDAG
from ray.experimental.compiled_dag_ref import CompiledDAGRef


@ray.remote
class A:
    def f(self, x):
        return x


a = A.remote()
with InputNode() as inp:
    dag = a.f.bind(inp)
compiled = dag.experimental_compile()
ref = compiled.execute(1)
print(isinstance(compiled, CompiledDAG), isinstance(ref, CompiledDAGRef))
print(isinstance(compiled.get_id(), str), compiled.get_id() in str(compiled))
print(ray.get(ref))
compiled.teardown()
