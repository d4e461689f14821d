"""Functions and methods of class nodes that return several values, not compiled."""

import ray
from ray.dag import InputNode, MultiOutputNode


@ray.remote(num_returns=2)
def divide(x):
    return divmod(x, 10)


@ray.remote
def total(pair):
    return sum(ray.get(pair))


@ray.remote
class Splitter:
    @ray.method(num_returns=2)
    def split(self, x):
        return x, -x

    def again(self, x):
        return x


with InputNode() as inp:
    dag = divide.bind(inp)
refs = dag.execute(42)
print(type(dag).__name__, len(refs), ray.get(refs))
with InputNode() as inp:
    dag = total.bind(divide.bind(inp))
print(ray.get(dag.execute(42)))
with InputNode() as inp:
    dag = Splitter.bind().split.bind(inp)
print(type(dag).__name__, ray.get(dag.execute(3)))
splitter = Splitter.remote()
with InputNode() as inp:
    first, second = splitter.split.bind(inp)
    dag = MultiOutputNode([splitter.again.bind(second), first])
print(ray.get(dag.execute(3)))
with InputNode() as inp:
    dag = MultiOutputNode([divide.bind(inp), splitter.again.bind(inp)])
pair, single = dag.execute(25)
print(ray.get(pair), ray.get(single))
