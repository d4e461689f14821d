"""What there is to be run on a GPU, in the order of what it tells, and how long each may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PYTHON, OUT, WORKERS = "{python}", "{out}", "{workers}"
"""Stand for this interpreter, the folder of the logs, and how many tests run at a time."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Commands that run one after the other, whatever becomes of them."""

    name: str
    says: str
    limit_s: float
    """For all of them."""
    commands: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        return f"{self.name:10} {self.limit_s:4.0f} s  {self.says}"


def _pytest(*chosen: str, workers: str = WORKERS, each_s: int = 120) -> tuple[str, ...]:
    """Return a run of tests: in processes of their own, which a test that hangs ends with itself.

    A time-out cannot raise in a thread that is in CUDA: so it ends the worker, which is replaced.
    """
    options = (
        *("-n", workers, "--dist", "load", "--max-worker-restart", "30"),
        *("--timeout", str(each_s), "--timeout-method", "thread"),
        *(
            "-p",
            "no:cacheprovider",
            "-p",
            "gpu_tests.noting",
            "-q",
            "--no-summary",
            "--tb",
            "short",
        ),
    )
    return (PYTHON, "-m", "pytest", *options, *chosen)


def _tests(module: str, *names: str) -> tuple[str, ...]:
    return tuple(f"gpu_tests/test_{module}.py::{name}" for name in names)


CORE: Final = (
    *_tests(
        "rings",
        "test_tensors_anywhere_in_a_value_arrive",
        "test_slow_kernels_on_either_side_are_waited_for",
        "test_no_host_waits_for_the_gpu",
        "test_what_is_refused_is_done_without",
        "test_death_in_the_middle_of_it_leaves_the_other_usable[kernel-0]",
        "test_death_in_the_middle_of_it_leaves_the_other_usable[kernel-1]",
        "test_views_take_no_copies",
    ),
    *_tests("shared", "test_it_is_what_actors_on_one_gpu_get", "test_reductions_are_torchs[SUM]"),
    *_tests("nccl", "test_nccl_itself_works_for_ranks_on_one_gpu"),
    *_tests("edges", "test_tensors_arrive_as_they_were_sent[False-1]"),
    *_tests("captured", "test_a_captured_stage_between_channels"),
    *_tests("moves", "test_moves_are_copies_from_and_to_pinned_memory"),
)
"""One test of each mechanism."""

_REST: Final = tuple(word for test in CORE for word in ("--deselect", test))
_NAMES: Final = (
    *("rings", "shared", "edges", "nccl"),
    *("captured", "moves", "device_tensors", "profiling"),
)
_MODULES: Final = tuple(f"gpu_tests/test_{name}.py" for name in _NAMES)

STAGES: Final = (
    Stage(
        "facts",
        "the machine; what cupy has; what CUDA does where its documentation says nothing",
        200,
        (
            ("nvidia-smi",),
            (PYTHON, "-m", "runtime", "doctor"),
            _pytest("tests/cuda/test_driver.py", workers="0", each_s=30),
            (PYTHON, "-m", "gpu_tests.facts"),
        ),
    ),
    Stage(
        "core", "one test of each mechanism, by itself", 240, (_pytest(*CORE, workers="1"),)
    ),
    Stage(
        "tests",
        "all other tests, several at a time",
        480,
        (_pytest(*_MODULES, *_REST, each_s=150),),
    ),
    Stage(
        "figures",
        "the benchmarks, few short rounds",
        200,
        ((PYTHON, "-m", "benchmarks", "gpu", "--quick", "--json", f"{OUT}/figures.jsonl"),),
    ),
    Stage(
        "examples",
        "the examples on a GPU: they check themselves",
        400,
        (_pytest("gpu_tests/test_examples.py", each_s=240),),
    ),
    Stage(
        "benchmarks",
        "the benchmarks in full",
        540,
        ((PYTHON, "-m", "benchmarks", "gpu", "--json", f"{OUT}/benchmarks.jsonl"),),
    ),
)  # fmt: skip
