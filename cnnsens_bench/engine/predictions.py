"""What is computed from logits for the table `predictions`, and the results of a degradation."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.engine.degrade import Failure
from cnnsens_bench.engine.sweep import Cell, Sweep
from cnnsens_bench.utils.transfer import fetch

Columns = dict[str, np.ndarray]
"""Columns of one length."""

OUTPUTS = ("prediction", "confidence", "true_probability", "true_rank", "reference_logit", "reference_probability")
"""The columns of `predictions` that are computed from logits."""


@dataclass(frozen=True)
class Prediction:
    """The results of one degradation for a batch of images.

    Attributes
    ----------
    degradation
        Its name; "none" for the undegraded images.
    columns
        Arrays of one length, a value for each (image, entrant, level, trial): the positions `image` and `entrant`, then
        `level`, `trial`, and the columns of `OUTPUTS`. Empty where nothing was computed.
    failures
        What could not be degraded or predicted.
    """

    degradation: str
    columns: Columns
    failures: list[Failure]


def outputs_of(logits: Tensor, label: Tensor, reference: Tensor, broken: Tensor) -> Tensor:
    """Return (N, len(OUTPUTS) + 1) float64: the columns of `OUTPUTS`, and whether the pixels were broken.

    The outputs are NaN where pixels were broken or logits are not finite.

    Parameters
    ----------
    logits
        (N, classes) of each image.
    label, reference
        (N,): the true class, and the class that is predicted for the undegraded image.
    broken
        (N,) bool: whether the pixels had NaN.
    """
    probabilities = logits.softmax(1)
    true_logit = logits.gather(1, label[:, None])
    columns = [
        logits.argmax(1),
        probabilities.amax(1),
        probabilities.gather(1, label[:, None])[:, 0],
        1 + (logits > true_logit).sum(1),
        logits.gather(1, reference[:, None])[:, 0],
        probabilities.gather(1, reference[:, None])[:, 0],
    ]
    table = torch.stack([column.double() for column in columns], dim=1)
    table.masked_fill_(broken[:, None] | ~logits.isfinite().all(1, keepdim=True), float("nan"))
    return torch.cat([table, broken[:, None].double()], dim=1)


class CollectedRows:
    """Collects the results of forward passes, and gives them degradation by degradation.

    Parameters
    ----------
    sweep
        The sweep.

    Attributes
    ----------
    numbers
        The number of each cell's degradation: 0 for the undegraded cell, then the conditions, counted from 1.
    failures
        The failures of each degradation, by its number.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep, self.cells = sweep, sweep.cells()
        cells_of_condition = [len(cells) for _, cells in sweep.cells_by_condition()]
        self.numbers = np.repeat(np.arange(1 + len(cells_of_condition)), [1, *cells_of_condition])
        self.failures: dict[int, list[Failure]] = defaultdict(list)
        self._rows: dict[int, list[_Rows]] = defaultdict(list)

    def add(self, entrant: int, images: np.ndarray, cells: np.ndarray, asked: np.ndarray, outputs: Tensor) -> None:
        """Add the rows of a forward pass.

        Parameters
        ----------
        entrant
            The network's position in the sweep.
        images, cells
            The image and the cell of each row; the cells ascend.
        asked
            Which rows are wanted.
        outputs
            What `outputs_of` gives for them.
        """
        numbers, fetched = self.numbers[cells], fetch(outputs)
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(numbers)], strict=True):
            here = slice(start, end)
            rows = _Rows(entrant, images[here], cells[here], asked[here], here, fetched)
            self._rows[int(numbers[start])].append(rows)

    def fail(self, images: np.ndarray, cells: np.ndarray, sentence: str) -> None:
        """Add a failure of the stage "predict" for each image and each degradation of these rows."""
        for number, image in np.unique(np.stack([self.numbers[cells], images], axis=1), axis=0).tolist():
            self.failures[number].append((image, "predict", sentence))

    def take(self, number: int) -> tuple[Columns, list[Failure]]:
        """Return the wanted rows of a degradation and its failures, and forget them.

        Rows that are no numbers become failures. Of equal ones of an image only the first is kept, as where
        degradations raise.
        """
        failures, rows = self.failures.pop(number, []), self._rows.pop(number, [])
        if not rows:
            return {}, failures
        asked, image, cell = (np.concatenate([getattr(r, name) for r in rows]) for name in ("asked", "images", "cells"))
        image, cell = image[asked], cell[asked]
        entrant = np.repeat([r.entrant for r in rows], [len(r.asked) for r in rows])[asked]
        outputs = np.concatenate([r.outputs()[r.part] for r in rows])[asked]
        good = np.isfinite(outputs).all(axis=1)
        levels, trials = np.array([c.level for c in self.cells]), np.array([c.trial for c in self.cells])
        columns = {"image": image, "entrant": entrant, "level": levels[cell], "trial": trials[cell]}
        columns = {name: column[good] for name, column in columns.items()}
        columns |= {name: outputs[good, i] for i, name in enumerate(OUTPUTS)}
        first: dict[Failure, Cell] = {}
        for i in np.flatnonzero(~good):
            at, model = self.cells[cell[i]], self.sweep.entrants[entrant[i]].model
            failure = "predict", f"{model} gave no finite number on it ({at.degradation})"
            if outputs[i, -1] == 1:
                failure = "degrade", f"'{at.degradation}' returned NaN"
            first.setdefault((int(image[i]), *failure), at)
        return columns, failures + [
            (row, stage, f"{sentence} (first at level {at.level:g}, trial {at.trial})")
            for (row, stage, sentence), at in first.items()
        ]


class _Rows(NamedTuple):
    """The rows of one degradation in a forward pass of an entrant.

    `outputs` waits for the result of `outputs_of` for the whole pass, of which `part` are these rows.
    """

    entrant: int
    images: np.ndarray
    cells: np.ndarray
    asked: np.ndarray
    part: slice
    outputs: Callable[[], np.ndarray]


def joined(degradation: str, results: list[tuple[Columns, list[Failure]]]) -> Prediction:
    """Return the results of a degradation at all input sizes as one, and each failure once."""
    columns = concatenated([columns for columns, _ in results if columns])
    return Prediction(degradation, columns, list(dict.fromkeys(f for _, failures in results for f in failures)))


def concatenated(parts: list[Columns]) -> Columns:
    """Return parts that have the same columns as one; no columns where there are no parts."""
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else {}
