"""Two stages forward and backward over micro-batches, in the order of 1F1B."""

import ray
from ray.dag import InputNode, MultiOutputNode


@ray.remote
class Stage:
    def __init__(self, weight):
        self.weight = weight
        self.saved = {}
        self.log = []

    def forward(self, x, batch):
        self.log.append(f"F{batch}")
        self.saved[batch] = x
        return x * self.weight

    def backward(self, gradient, batch):
        self.log.append(f"B{batch}")
        return gradient * self.weight + self.saved.pop(batch)

    def take_log(self):
        log, self.log = self.log, []
        return " ".join(log)


first, last = Stage.remote(2), Stage.remote(3)
batches = 4
with InputNode() as inp:
    outputs, waiting = [], []
    for batch in range(batches):
        waiting.append((batch, first.forward.bind(inp[batch], batch)))
        if len(waiting) > 1 or batch == batches - 1:
            while waiting and (len(waiting) > 1 or batch == batches - 1):
                number, hidden = waiting.pop(0)
                output = last.forward.bind(hidden, number)
                gradient = last.backward.bind(output, number)
                outputs.append(first.backward.bind(gradient, number))
    dag = MultiOutputNode(outputs)
compiled = dag.experimental_compile()
for step in range(3):
    print(ray.get(compiled.execute(*range(step, step + batches))))
compiled.teardown()
print(ray.get([first.take_log.remote(), last.take_log.remote()]))
