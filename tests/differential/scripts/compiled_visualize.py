"""A graph as text."""

import ray
from ray.dag import InputNode, MultiOutputNode
from seen import attempt


@ray.remote
class Add:
    def add(self, x):
        return x


a, b = Add.remote(), Add.remote()
with InputNode() as inp:
    dag = MultiOutputNode([b.add.bind(a.add.bind(inp)), a.add.bind(inp)])
compiled = dag.experimental_compile()
text = compiled.visualize(format="ascii")
for heading in ("Nodes Information:", "Edges Information:", "Legend:"):
    print(heading in text)
edges = text.partition("Edges Information:")[2].partition("Legend:")[0]
for line in edges.splitlines():
    if ">" in line:
        print(" ".join(line.split()))
nodes = text.partition("Nodes Information:")[2].partition("Edges Information:")[0]
print(nodes.count("[label="), nodes.count("Method: add"), nodes.count("Actor: "))
attempt(lambda: compiled.visualize(format="ascii", channel_details=True), "ValueError")
compiled.teardown()
