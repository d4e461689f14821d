"""What there is in the session."""

import ray


@ray.remote
def f():
    return 1


print(isinstance(ray.nodes(), list), len(ray.nodes()))
print("CPU" in ray.cluster_resources())
print(isinstance(ray.available_resources(), dict))
print(ray.get(f.remote()), isinstance(ray.timeline(), (list, type(None))))
