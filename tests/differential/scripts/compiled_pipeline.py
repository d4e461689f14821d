"""A pipeline: two stages, several batches in one graph."""

import ray
from ray.dag import InputNode, MultiOutputNode


@ray.remote
class Stage:
    def __init__(self, n):
        self.n = n

    def forward(self, x):
        return x + self.n


stages = [Stage.remote(1), Stage.remote(10)]
with InputNode() as inp:
    outputs = []
    for i in range(3):
        node = inp[i]
        for stage in stages:
            node = stage.forward.bind(node)
        outputs.append(node)
    dag = MultiOutputNode(outputs)
compiled = dag.experimental_compile()
print([ray.get(compiled.execute(i, i + 1, i + 2)) for i in range(3)])
compiled.teardown()
