"""Ordinary calls between executions.

Departs: X40
"""

import ray
from ray.dag import InputNode


@ray.remote
class Counter:
    def __init__(self):
        self.n = 0

    def add(self, k):
        self.n += k
        return self.n

    def read(self):
        return self.n

    def thread(self):
        import threading

        return threading.current_thread() is threading.main_thread()

    def thread_in_graph(self, _):
        return self.thread()


counter = Counter.remote()
print(ray.get(counter.thread.remote()))
with InputNode() as inp:
    dag = counter.add.bind(inp)
compiled = dag.experimental_compile()
for k in (1, 10):
    print(ray.get(compiled.execute(k)), ray.get(counter.read.remote()))
compiled.teardown()
with InputNode() as inp:
    dag = counter.thread_in_graph.bind(inp)
compiled = dag.experimental_compile()
print(ray.get(compiled.execute(0)))
compiled.teardown()
