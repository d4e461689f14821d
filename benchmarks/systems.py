"""Name the systems that are measured: ours, and those with the same names."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Name the modules of a system."""

    name: str
    core: str
    """Of tasks, actors and objects."""
    dag: str
    """Of nodes."""
    options: tuple[tuple[str, Any], ...] = ()
    """For `init`."""

    def load(self) -> Any:
        """Return the module of tasks, actors and objects."""
        return importlib.import_module(self.core)

    def nodes(self) -> Any:
        """Return the module of nodes."""
        return importlib.import_module(self.dag)


OURS = System(name="ours", core="runtime", dag="compiled_dag")
RAY = System(
    name="ray",
    core="ray",
    dag="ray.dag",
    options=(
        ("include_dashboard", False),
        ("log_to_driver", False),
        ("_node_ip_address", "127.0.0.1"),
    ),
)
SYSTEMS = {system.name: system for system in (OURS, RAY)}
