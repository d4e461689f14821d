"""Play scripts one after the other in this process, under the real Ray or under the alias.

    python player.py {ray|alias} RESULTS SCRIPT...

Writes a line of JSON per script into RESULTS as soon as it has run: its name, what it printed, and
the traceback if it raised. PYTHONPATH names the folder of what scripts import. Stands alone: the
real Ray's Python need not have this project.

Starting a session costs more than most scripts, so they share one where they can: a script that
says ``Session: own`` in its docstring gets none and starts its own, and one that leaves actors
behind ends the session it ran in.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import signal
import sys
import threading
import time
import traceback
import types
from pathlib import Path

HERE = Path(__file__).parent
LIMIT_S = 240
ENDING_S = 2
"""What an actor may take to end."""
SESSION = {
    "num_cpus": 4,
    "include_dashboard": False,
    "log_to_driver": False,
    "logging_level": "error",
    "_node_ip_address": "127.0.0.1",
}


class OfMainThread(io.StringIO):
    """What the script prints; Ray prints news of its own from threads of its own."""

    def write(self, text):
        if threading.current_thread() is threading.main_thread():
            super().write(text)
        return len(text)


def main(mode, results, *scripts):
    with under_the_alias() if mode == "alias" else contextlib.nullcontext():
        play_all(mode, results, scripts)


@contextlib.contextmanager
def under_the_alias():
    """Have ``import ray`` mean this project, and sessions that start fast."""
    sys.path.insert(0, str(HERE.parents[1]))
    from runtime import alias, launch, shutdown
    from tests.incubator import Incubator

    alias.install()
    incubator = Incubator()
    launch.start_process = incubator.start_process
    yield
    shutdown()
    incubator.close()


def play_all(mode, results, scripts):
    signal.signal(signal.SIGALRM, out_of_time)
    with Path(results).open("a") as file:
        for script in map(Path, scripts):
            began = time.monotonic()
            transcript, error = play(script, mode)
            took = round(time.monotonic() - began, 2)
            line = {"name": script.stem, "text": transcript, "error": error, "took_s": took}
            file.write(json.dumps(line) + "\n")
            file.flush()


def out_of_time(_signal, _frame):
    raise TimeoutError(f"the script took more than {LIMIT_S} s")


def play(script, mode):
    """Run one script; returns what it printed, and the traceback if it raised."""
    import ray

    source = script.read_text()
    own_session = "Session: own" in source
    if own_session:
        ray.shutdown()
    elif not ray.is_initialized():
        ray.init(**SESSION)
    printed, error = OfMainThread(), None
    signal.alarm(LIMIT_S)
    try:
        with contextlib.redirect_stdout(printed):
            run_as_main(compile(source, script, "exec"), script)
    except BaseException as raised:  # what a script ends with is part of what is compared
        error = traceback.format_exc()
        printed.write(f"ends with {type(raised).__name__}\n")
    finally:
        signal.alarm(0)
    gc.collect()
    if own_session or error or leaves_actors(ray, mode):
        ray.shutdown()
    return printed.getvalue(), error


def run_as_main(code, script):
    """Run code as the interpreter runs a script: its globals are those of ``__main__``."""
    main_module = sys.modules["__main__"]
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.__file__ = str(script)
    try:
        exec(code, vars(module))
    finally:
        sys.modules["__main__"] = main_module
        vars(module).clear()  # handles and refs end with the script that holds them


def leaves_actors(ray, mode):
    """Tell whether the session is not as the script found it: actors end with their handles."""
    if mode != "alias" or not ray.is_initialized():
        return False
    from ray.util.state import list_actors

    deadline = time.monotonic() + ENDING_S
    while any(actor.state != "DEAD" for actor in list_actors()):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.005)
    return False


if __name__ == "__main__":
    main(*sys.argv[1:])
