"""How long work tells its caller what happens. `utils.progress` has the reporter that writes to a console."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class TrainingProgress(NamedTuple):
    """How far a training is: steps done, steps in all (0 while images are decoded), and the recent mean loss."""

    done: int
    steps: int
    loss: float


class Reporter:
    """Receives what happens while a sweep, a training or a search runs. This base class ignores everything.

    Subclass it and override what you want to hear about. The methods are called from the process that drives the work,
    sometimes from another thread of it, and must return quickly.

    Examples
    --------
    >>> class Counter(Reporter):
    ...     total = 0
    ...
    ...     def evaluations(self, count):
    ...         self.total += count
    >>> counter = Counter()
    >>> counter.evaluations(3)
    >>> counter.message("nobody prints this")
    >>> counter.total
    3
    """

    def evaluations(self, count: int) -> None:
        """Report that `count` further evaluations are done. Each is reported once, however often it is computed."""

    def message(self, sentence: str) -> None:
        """Report something that a person should know, as one sentence."""

    def training_progress(self, progress: Mapping[str, TrainingProgress]) -> None:
        """Report how far all trainings are that run at this moment, by the names that a person reads."""

    def trial_progress(self, trial: Any) -> None:
        """Report the state of a search's trial (a `training.trial.Trial`) after one of its epochs."""

    def trial_ended(self, trial: Any) -> None:
        """Report that a trial of a search has ended."""


SILENT = Reporter()
"""A reporter that ignores everything."""
