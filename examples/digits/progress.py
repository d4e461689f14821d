"""Training progress on standard error: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console
    from typing_extensions import Self

REFRESHES_PER_S = 5
"""Drawing takes time from the workers' cores."""


class Meter:
    """Shows how far training is. A context manager."""

    def __init__(self, console: Console, num_epochs: int, num_steps: int) -> None:
        self._console = console
        self._num_epochs = num_epochs
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  test accuracy {task.fields[accuracy]:.4f}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=REFRESHES_PER_S,
        )
        self._task = self._bar.add_task("training", total=num_steps, loss=0.0, accuracy=0.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def step_done(self, loss: float) -> None:
        """Show a step's loss."""
        self._bar.update(self._task, advance=1, loss=loss)

    def epoch_done(self, epoch: int, loss: float, accuracy: float) -> None:
        """Show an epoch's mean loss, and the accuracy after it."""
        self._bar.update(self._task, accuracy=accuracy)
        if not self._console.is_terminal:
            progress = f"epoch {epoch + 1:>{len(str(self._num_epochs))}}/{self._num_epochs}"
            self._console.print(f"{progress}  loss {loss:.4f}  test accuracy {accuracy:.4f}")
