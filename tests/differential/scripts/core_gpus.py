"""GPUs are counted, whether there are any or not.

Session: own
"""

import ray

OPTIONS = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "log_to_driver": False}

ray.init(num_cpus=2, num_gpus=2, **OPTIONS)


@ray.remote(num_gpus=1)
class A:
    def ids(self):
        return ray.get_gpu_ids(), ray.get_runtime_context().get_accelerator_ids()["GPU"]


@ray.remote(num_gpus=0.5)
def half():
    return len(ray.get_gpu_ids())


@ray.remote
def none():
    return ray.get_gpu_ids(), "x"


a = A.remote()
ids, names = ray.get(a.ids.remote())
print(len(ids), names == [str(i) for i in ids])
print(ray.get([half.remote(), half.remote()]))
print(ray.get(none.remote()))
print(int(ray.cluster_resources()["GPU"]))
ray.shutdown()
