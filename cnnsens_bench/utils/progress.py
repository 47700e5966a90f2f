"""What a person sees of a run: progress while it works, as bars on a terminal and as plain lines elsewhere."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cnnsens_bench.utils.reporter import Reporter, TrainingProgress

PLAIN_EVERY = 5.0
"""Seconds between plain lines."""


class Meter:
    """Progress of one stage: `advance(n)`, `detail = "…"`."""

    def __init__(self, console: Console, title: str, total: int, unit: str) -> None:
        self.console, self.title, self.total, self.unit = console, title, total, unit
        self.done = 0
        self.detail = ""
        self.began = self._told = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[detail]}"),
                TimeRemainingColumn(),
                console=console,
            )
            self._bar.start()
            self._task = self._bar.add_task(title, total=total, detail="")

    def advance(self, n: int = 1) -> None:
        """`n` further units are done."""
        self.done += n
        if self._bar:
            self._bar.update(self._task, completed=self.done, detail=f"{self.rate()} {self.detail}")
        elif time.monotonic() - self._told > PLAIN_EVERY:
            self._told = time.monotonic()
            self.console.print(self.line(), highlight=False, markup=False)

    def rate(self) -> str:
        """Units per second so far."""
        return f"{self.done / max(1e-9, time.monotonic() - self.began):.4g} {self.unit}/s"

    def line(self) -> str:
        """The state in one line."""
        elapsed = time.monotonic() - self.began
        left = f", {elapsed * (self.total - self.done) / self.done:.0f} s left" if self.done else ""
        share = 100 * self.done / self.total if self.total else 100.0
        return f"{self.title}: {share:3.0f} % ({self.done}/{self.total}), {self.rate()}{left} {self.detail}"

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._bar:
            self._bar.stop()
        else:
            seconds = time.monotonic() - self.began
            line = f"{self.title}: {self.done} {self.unit} in {seconds:.0f} s {self.detail}".rstrip()
            self.console.print(line, highlight=False, markup=False)


@contextmanager
def meter(console: Console, title: str, total: int, unit: str) -> Iterator[Meter]:
    """A `Meter` that is closed at the end, however it comes."""
    it = Meter(console, title, total, unit)
    try:
        yield it
    finally:
        it.close()


class ConsoleReporter(Reporter):
    """Shows evaluations and trainings on a meter, and prints messages above it.

    Parameters
    ----------
    meter
        The meter to advance. Messages go to its console.
    """

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def evaluations(self, count: int) -> None:
        self.meter.advance(count)

    def message(self, sentence: str) -> None:
        self.meter.console.print(sentence, markup=False, soft_wrap=True)

    def training_progress(self, progress: Mapping[str, TrainingProgress]) -> None:
        self.meter.detail = "; ".join(
            f"{name}: " + (f"{now.done}/{now.steps} steps, loss {now.loss:.3f}" if now.steps else "decodes its images")
            for name, now in progress.items()
        )
        self.meter.advance(0)
