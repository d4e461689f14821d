"""Every exception of the project, by Ray's module name."""

from compiled_dag.errors import *  # noqa: F403
from compiled_dag.errors import __all__ as __all__  # noqa: PLC0414
