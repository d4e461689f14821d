"""``python -m compiled_dag``: the command line, which belongs to `runtime`."""

import runpy

runpy.run_module("runtime", run_name="__main__", alter_sys=True)
