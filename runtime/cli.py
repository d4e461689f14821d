"""The command line: ``compiled-dag``, ``python -m compiled_dag`` or ``python -m runtime``."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

DISTRIBUTION: Final = "compiled-dag"
_USAGE_ERROR: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    Args:
        arguments: Those of this process by default.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.version:
        sys.stdout.write(f"{DISTRIBUTION} {version()}\n")
        return 0
    if given.command is None:
        parser.print_help()
        return _USAGE_ERROR
    code: int = given.command(given)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=DISTRIBUTION, description="Compiled graphs of actors, on one machine."
    )
    parser.set_defaults(command=None)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(metavar="command")
    run = commands.add_parser(
        "run",
        help="run a script written for Ray, with `import ray` meaning this project",
        description="Run a script as `python script.py args` would, with `import ray` meaning this "
        "project, in the script and in every Python process it starts.",
    )
    run.add_argument("-m", dest="module", action="store_true", help="the script is a module's name")
    run.add_argument("script")
    run.add_argument("arguments", nargs=argparse.REMAINDER)
    run.set_defaults(command=_run)
    doctor = commands.add_parser(
        "doctor",
        help="check whether this machine has what graphs need",
        description="Check whether this machine has what graphs need, and run one. Exit code 0: "
        "all there, perhaps with warnings; 1: something needed is missing.",
    )
    doctor.set_defaults(command=_doctor)
    names = commands.add_parser(
        "names",
        help="print which of Ray's names there are, and what to use instead of others",
        description="Print which of Ray's names there are, and what to use instead of others.",
    )
    names.add_argument("module", nargs="?", help="one module of Ray's, say ray.dag (default: all)")
    names.set_defaults(command=_names)
    return parser


def _run(given: argparse.Namespace) -> int:
    """Run a script in this process's place: nothing of ours stays, it runs as by itself."""
    from runtime.alias.installation import with_alias  # noqa: PLC0415  commands load what they need

    if given.module or Path(given.script).exists():
        _become(given, with_alias(os.environ))
    sys.stderr.write(f"{DISTRIBUTION} run: no such script: {given.script}\n")
    return _USAGE_ERROR


def _become(given: argparse.Namespace, environment: dict[str, str]) -> NoReturn:
    target = ["-m", given.script] if given.module else [given.script]
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    command = [sys.executable, *flags, *target, *given.arguments]
    os.execve(sys.executable, command, environment)  # noqa: S606  no shell is wanted


def _doctor(_given: argparse.Namespace) -> int:
    from runtime.doctor import examine  # noqa: PLC0415

    return examine(sys.stdout)


def _names(given: argparse.Namespace) -> int:
    from runtime.alias.guide import listing  # noqa: PLC0415
    from runtime.alias.table import MODULES  # noqa: PLC0415

    if given.module is not None and given.module not in MODULES:
        sys.stderr.write(f"{DISTRIBUTION} names: {given.module} is not offered\n")
        return 1
    sys.stdout.write(listing([given.module] if given.module else sorted(MODULES)))
    return 0


def version() -> str:
    """Return the version that is installed."""
    from importlib import metadata  # noqa: PLC0415  slow, and rarely asked for

    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "(not installed: run from a checkout)"
