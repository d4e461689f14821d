"""One actor, compiled, executed often."""

import ray
from ray.dag import InputNode


@ray.remote
class Echo:
    def __init__(self):
        self.calls = 0

    def echo(self, message):
        self.calls += 1
        return message

    def count(self):
        return self.calls


echo = Echo.remote()
print(ray.get(echo.echo.remote("plain")))
with InputNode() as inp:
    dag = echo.echo.bind(inp)
compiled = dag.experimental_compile()
for message in ("hello", 1, None, [1, {"a": (2, 3)}], b"bytes", 1.5, "x" * 10_000):
    print(repr(ray.get(compiled.execute(message)))[:40])
compiled.teardown()
print(ray.get(echo.count.remote()))
