"""Logical resources are counted."""

import ray

total = ray.cluster_resources()
print(total["CPU"], sorted(key for key in ray.nodes()[0] if key == "Resources"))


@ray.remote(num_cpus=2)
class A:
    def resources(self):
        return ray.get_runtime_context().get_assigned_resources()


a = A.remote()
print(ray.get(a.resources.remote()))
print(ray.is_initialized(), ray.get_gpu_ids())
