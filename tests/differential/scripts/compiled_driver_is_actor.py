"""An actor draws, compiles and executes a graph of other actors."""

import ray
from ray.dag import InputNode


@ray.remote
class Worker:
    def f(self, x):
        return x + 1


@ray.remote
class Driver:
    def __init__(self, workers):
        first, second = workers
        with InputNode() as inp:
            dag = second.f.bind(first.f.bind(inp))
        self.compiled = dag.experimental_compile()

    def run(self, x):
        return ray.get(self.compiled.execute(x))

    def end(self):
        self.compiled.teardown()


driver = Driver.remote([Worker.remote(), Worker.remote()])
print(ray.get([driver.run.remote(i) for i in range(3)]))
ray.get(driver.end.remote())
