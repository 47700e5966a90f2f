"""What is computed from logits for the table `predictions`, and the results of a degradation."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.engine.degrade import Failure

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


def joined(degradation: str, results: list[tuple[Columns, list[Failure]]]) -> Prediction:
    """Return the results of a degradation at all input sizes as one, and each failure once."""
    columns = concatenated([columns for columns, _ in results if columns])
    return Prediction(degradation, columns, list(dict.fromkeys(f for _, failures in results for f in failures)))


def concatenated(parts: list[Columns]) -> Columns:
    """Return parts that have the same columns as one; no columns where there are no parts."""
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else {}
