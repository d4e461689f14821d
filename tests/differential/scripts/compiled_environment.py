"""Ray's environment variables set the defaults of graphs, in another process."""

import os
import subprocess
import sys

CODE = """
from ray.dag import DAGContext
context = DAGContext.get_current()
print(int(context.get_timeout), int(context.submit_timeout), int(context.teardown_timeout))
print(context.buffer_size_bytes, context.max_inflight_executions, context.max_buffered_results)
"""

variables = {
    "RAY_CGRAPH_get_timeout": "7",
    "RAY_CGRAPH_submit_timeout": "8",
    "RAY_CGRAPH_teardown_timeout": "9",
    "RAY_CGRAPH_buffer_size_bytes": "1234",
    "RAY_CGRAPH_max_inflight_executions": "5",
}
for given in ({}, variables):
    environment = {**os.environ, **given}
    print(subprocess.check_output([sys.executable, "-c", CODE], env=environment, text=True), end="")
