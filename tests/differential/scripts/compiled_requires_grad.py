"""Whether tensors require gradients where they arrive.

Departs: T14
"""

import ray
import torch
from ray.dag import InputNode


@ray.remote
class A:
    def requires(self, x):
        return x.requires_grad

    def make(self, x):
        return torch.ones(3, requires_grad=x)


a, b = A.remote(), A.remote()
with InputNode() as inp:
    compiled = b.requires.bind(a.make.bind(inp)).experimental_compile()
print([ray.get(compiled.execute(x)) for x in (True, False)])
compiled.teardown()
print(ray.get(a.requires.remote(torch.ones(3, requires_grad=True))))
print(ray.get(a.make.remote(True)).requires_grad)
