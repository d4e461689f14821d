"""Run by the real Ray's Python: print the public names of the modules given, as JSON.

Stands alone: that Python has Ray, and need not have this project.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
import types


def main():
    json.dump({name: names_of(name) for name in sys.argv[1:]}, sys.stdout, indent=1)


def names_of(name):
    """Return the names of a module that a table of its names should know, and all it has."""
    module = importlib.import_module(name)
    visible = [key for key in vars(module) if not key.startswith("_")]
    defined = [key for key in visible if is_defined_in(vars(module)[key], key, name)]
    below = [info.name for info in pkgutil.iter_modules(getattr(module, "__path__", ()))]
    public = {*getattr(module, "__all__", ()), *defined} - {"__version__", "_config"}
    return {"public": sorted(public), "all": sorted({*dir(module), *below, *public})}


def is_defined_in(value, key, module):
    if isinstance(value, types.ModuleType):
        return False
    if isinstance(value, (type, types.FunctionType)):
        return value.__module__ == module
    # Where a constant comes from cannot be told: count it where constants are what there is.
    return key.isupper() and module.endswith((".constants", ".context"))


if __name__ == "__main__":
    main()
