"""Learn all there is to learn of a GPU, in stages: ``python -m gpu_tests``.

For a machine that is there for minutes. What matters most comes first. Each stage is bounded in
time and is a process group of its own, so that whatever hangs or crashes takes nothing else along.
What is known is written at once: a log for each stage, and ``summary.txt``. Needs no installation:
what `pip install -e '.[gpu,test,examples]'` would bring suffices, wherever it comes from.

    python -m gpu_tests --list
    python -m gpu_tests --out out/gpu --minutes 9                    all stages, as far as they come
    python -m gpu_tests --out out/gpu --minutes 9 figures examples   these
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_tests.stages import STAGES, Stage
from gpu_tests.staging import Course

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 if all that was to be run has run and is right."""
    options = _parser().parse_args(arguments)
    if options.list:
        sys.stdout.writelines(f"{stage}\n" for stage in STAGES)
        return 0
    course = Course(options.out, options.minutes * 60, workers=options.workers)
    return 0 if course.run(options.stages or STAGES) else 1


def _parser() -> argparse.ArgumentParser:
    as_it_is = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m gpu_tests", None, __doc__, formatter_class=as_it_is)
    add = parser.add_argument
    add("stages", nargs="*", metavar="stage", type=_stage, help="which, in order (default: all)")
    add("--out", type=Path, default=Path("out/gpu"), metavar="DIR", help="where logs go")
    add("--minutes", type=_minutes, default=30.0, metavar="M", help="for everything (default: 30)")
    add("--workers", type=int, default=4, metavar="N", help="tests at a time, but for `core`")
    add("--list", action="store_true", help="list the stages and end")
    return parser


def _stage(name: str) -> Stage:
    for stage in STAGES:
        if stage.name == name:
            return stage
    known = ", ".join(stage.name for stage in STAGES)
    raise argparse.ArgumentTypeError(f"there is no stage {name!r}; the stages are {known}")


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of minutes")
    return minutes


if __name__ == "__main__":
    sys.exit(main())
