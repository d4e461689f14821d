"""Every keyword of `init` is taken; nonsense is not.

Session: own
"""

import logging

import ray
from seen import attempt

attempt(lambda: ray.init(nonsense=1), "RuntimeError")
ray.init(
    address="local",
    num_cpus=1,
    num_gpus=0,
    resources={"a": 1},
    labels={"zone": "x"},
    object_store_memory=100_000_000,
    local_mode=False,
    ignore_reinit_error=True,
    include_dashboard=False,
    dashboard_host="127.0.0.1",
    dashboard_port=8765,
    job_config=None,
    configure_logging=True,
    logging_level=logging.ERROR,
    logging_format="%(message)s",
    log_to_driver=False,
    namespace="n",
    enable_resource_isolation=False,
    cgroup_path=None,
    system_reserved_cpu=None,
    system_reserved_memory=None,
    proxy_server_url=None,
    runtime_env={"env_vars": {"OF_THE_SESSION": "1"}},
    _node_ip_address="127.0.0.1",
    _system_config={},
)


@ray.remote
def read():
    import os

    return os.environ.get("OF_THE_SESSION")


print(ray.get(read.remote()))
ray.shutdown()
