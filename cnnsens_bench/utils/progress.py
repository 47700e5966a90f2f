"""The progress that a user sees while a stage of a run works: a bar on a terminal or in a notebook, else lines."""

import importlib.util
import time
from collections.abc import Mapping
from contextlib import closing

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cnnsens_bench.utils.reporter import Reporter, TrainingProgress

PLAIN_EVERY = 5.0
"""Seconds between two plain lines."""


def say(console: Console, *sentences: str) -> None:
    """Print sentences as they are, a line each: they are not wrapped, and brackets in them are no markup."""
    for sentence in sentences:
        console.print(sentence, markup=False, emoji=False, soft_wrap=True)


class StageProgress:
    """The progress of one stage, shown on a console.

    Units that are computed again after a failure count in the speed, but what is shown as done never exceeds the total.

    Parameters
    ----------
    console
        Where the progress is shown.
    title
        The name of the stage.
    total
        How many units the stage has. The attribute `total` may be set later.
    unit
        The plural noun for what is counted, such as `evaluations`.

    Attributes
    ----------
    done : int
        How many units were completed, including those that were computed again.
    detail : str
        A short text that is shown beside the counts.
    """

    def __init__(self, console: Console, title: str, total: int, unit: str) -> None:
        self.console, self.title, self.total, self.unit = console, title, total, unit
        self.done = 0
        self.detail = ""
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets")):
            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[detail]}", markup=False),
                TimeRemainingColumn(),
            )
            self._bar = Progress(TextColumn("{task.description}", markup=False), *columns, console=console)
            self._bar.start()
            self._task = self._bar.add_task(title, total=total, detail="")

    def advance(self, count: int = 1) -> None:
        """Count further units as done, and show the progress where it is due."""
        self.done += count
        if self._bar:
            detail = f"{self.rate()} {self.detail}"
            self._bar.update(self._task, total=self.total, completed=self._shown(), detail=detail)
        elif time.monotonic() - self._last_line > PLAIN_EVERY:
            self._last_line = time.monotonic()
            self.console.print(self.line(), highlight=False, markup=False, emoji=False)

    def rate(self) -> str:
        """Return the mean speed as text, such as `41.5 evaluations/s`."""
        return f"{self.done / max(1e-9, time.monotonic() - self._started):.4g} {self.unit}/s"

    def line(self) -> str:
        """Return the progress as one line of text: its share, counts, speed and remaining time."""
        elapsed, shown = time.monotonic() - self._started, self._shown()
        left = f", {elapsed * (self.total - shown) / self.done:.0f} s left" if self.done else ""
        share = 100 * shown / self.total if self.total else 100.0
        return f"{self.title}: {share:3.0f} % ({shown}/{self.total}), {self.rate()}{left} {self.detail}"

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._bar:
            self._bar.stop()
        else:
            seconds = time.monotonic() - self._started
            line = f"{self.title}: {self.done} {self.unit} in {seconds:.0f} s {self.detail}".rstrip()
            self.console.print(line, highlight=False, markup=False, emoji=False)

    def _shown(self) -> int:
        return min(self.done, self.total)


def stage_progress(console: Console, title: str, total: int, unit: str) -> closing[StageProgress]:
    """Return a `StageProgress` for a `with` statement, which closes it when its body ends or raises.

    Examples
    --------
    >>> with stage_progress(Console(), "sweep", 200, "evaluations") as progress:
    ...     progress.advance(150)
    sweep: 150 evaluations in 0 s
    """
    return closing(StageProgress(console, title, total, unit))


class ConsoleReporter(Reporter):
    """Shows evaluations and trainings as the progress of a stage, and prints messages above it.

    Parameters
    ----------
    stage
        The progress to advance. Messages go to its console.
    """

    def __init__(self, stage: StageProgress) -> None:
        self.stage = stage

    def evaluations(self, count: int) -> None:
        self.stage.advance(count)

    def message(self, sentence: str) -> None:
        say(self.stage.console, sentence)

    def training_progress(self, progress: Mapping[str, TrainingProgress]) -> None:
        self.stage.detail = "; ".join(
            f"{name}: " + (f"{now.done}/{now.steps} steps, loss {now.loss:.3f}" if now.steps else "decodes its images")
            for name, now in progress.items()
        )
        self.stage.advance(0)
