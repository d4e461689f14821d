"""Ray's module names for this project: scripts written for Ray run as they are.

`install()` makes ``import ray`` and the modules listed in `runtime.alias.table` resolve to this
project, here and in every process started from here; ``compiled-dag run script.py`` does so for a
script. What Ray has and this project does not raises an error that says what to use instead.
"""

from runtime.alias.installation import install, is_installed, uninstall

__all__ = ["install", "is_installed", "uninstall"]
