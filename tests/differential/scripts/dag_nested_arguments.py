"""Nodes inside lists and dicts arrive as references."""

import ray


@ray.remote
class A:
    def one(self, x):
        return x

    def kinds(self, items, table):
        refs = [*items, *table.values()]
        return [isinstance(ref, ray.ObjectRef) for ref in refs], ray.get(refs)


a, b = A.remote(), A.remote()
dag = b.kinds.bind([a.one.bind(1), a.one.bind(2)], {"x": a.one.bind(3)})
print(ray.get(dag.execute()))
