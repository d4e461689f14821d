"""Options are checked when they are given."""

import ray
from seen import attempt


@ray.remote
def f():
    pass


@ray.remote
class A:
    pass


attempt(lambda: f.options(nonsense=1), "ValueError")
attempt(lambda: A.options(nonsense=1), "ValueError")
attempt(lambda: f.options(num_cpus=-1), "ValueError")
attempt(lambda: f.options(num_cpus="one"), "TypeError")
attempt(lambda: A.options(max_restarts=1.5), "TypeError")
attempt(lambda: A.options(resources={"CPU": 1}), "ValueError")
attempt(lambda: A.options(get_if_exists=True).remote(), "ValueError")
attempt(lambda: ray.remote(f, num_cpus=1), "AssertionError")
