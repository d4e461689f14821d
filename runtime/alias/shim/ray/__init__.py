"""Found on PYTHONPATH before any other ``ray``: puts compiled-dag's alias in its own place."""

import os
import sys
from pathlib import Path

_SHIM = Path(__file__).parents[1]
_ROOT = str(_SHIM.parents[2])

del sys.modules["ray"]
if os.environ.get("COMPILED_DAG_RAY_ALIAS", "").lower() in ("1", "true"):
    if _ROOT not in sys.path:  # a checkout, and a program that was started in another folder
        _own = [index for index, entry in enumerate(sys.path, 1) if Path(entry) == _SHIM]
        sys.path.insert(_own[0] if _own else 0, _ROOT)
    from runtime import alias

    alias.install()
else:  # switched off for this process: stand aside
    sys.path[:] = [_entry for _entry in sys.path if Path(_entry) != _SHIM]

import ray  # noqa: E402, F401  whoever imports gets what is in sys.modules in the end
