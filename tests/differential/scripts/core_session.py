"""Starting, looking, ending.

Session: own
"""

import ray
from seen import attempt

OPTIONS = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "log_to_driver": False}

print(ray.is_initialized())
ray.init(num_cpus=3, resources={"special": 2}, namespace="here", **OPTIONS)
print(ray.is_initialized(), ray.cluster_resources()["CPU"], ray.cluster_resources()["special"])
print(ray.get_runtime_context().namespace)
attempt(lambda: ray.init(**OPTIONS), "RuntimeError")
attempt(lambda: ray.init(ignore_reinit_error=True, **OPTIONS) is not None)


@ray.remote(resources={"special": 1})
def special():
    return "ran"


print(ray.get(special.remote()))
ray.shutdown()
ray.shutdown()
print(ray.is_initialized())
with ray.init(num_cpus=1, **OPTIONS):
    print(ray.is_initialized())
print(ray.is_initialized())
