"""Handles and references of an ended session are of no use.

Session: own
"""

import ray

OPTIONS = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "log_to_driver": False}


@ray.remote
class A:
    def f(self):
        return 1


ray.init(num_cpus=1, **OPTIONS)
a = A.remote()
print(ray.get(a.f.remote()))
ray.shutdown()
ray.init(num_cpus=1, **OPTIONS)
try:
    ray.get(a.f.remote())
except Exception as error:
    print("old handle refused", isinstance(error, (ray.exceptions.RayError, ValueError, Exception)))
print(ray.get(A.remote().f.remote()))
ray.shutdown()
