"""Hints for tensors that stay in host memory."""

import ray
import torch
from ray.dag import InputNode
from ray.experimental.channel.torch_tensor_type import TorchTensorType
from seen import attempt


@ray.remote
class A:
    def make(self, n):
        return torch.ones(n)

    def total(self, tensor):
        return tensor.sum().item()


a, b = A.remote(), A.remote()
with InputNode() as inp:
    tensor = a.make.bind(inp)
    print(tensor.with_tensor_transport() is tensor)
    dag = b.total.bind(tensor)
compiled = dag.experimental_compile()
print([ray.get(compiled.execute(n)) for n in (1, 10, 100)])
compiled.teardown()
attempt(lambda: a.make.bind(1).with_tensor_transport(transport="nonsense"), "ValueError")
attempt(lambda: TorchTensorType(transport="nonsense"), "ValueError")
