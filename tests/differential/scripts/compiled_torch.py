"""Tensors without hints."""

import ray
import torch
from ray.dag import InputNode


@ray.remote
class A:
    def double(self, tensor):
        return tensor * 2

    def look(self, tensor):
        return tensor.sum().item(), tuple(tensor.shape), str(tensor.dtype)


a, b = A.remote(), A.remote()
with InputNode() as inp:
    dag = b.look.bind(a.double.bind(inp))
compiled = dag.experimental_compile()
for tensor in (torch.ones(3), torch.arange(6).reshape(2, 3), torch.ones(300, 300), torch.tensor(5)):
    print(ray.get(compiled.execute(tensor)))
compiled.teardown()
with InputNode() as inp:
    dag = a.double.bind(inp)
compiled = dag.experimental_compile()
got = ray.get(compiled.execute(torch.ones(4, dtype=torch.int64)))
got += 1
print(got)
compiled.teardown()
