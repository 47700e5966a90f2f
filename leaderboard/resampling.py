"""Averages over bootstrap resamples of a board's images."""

import numpy as np

from cnnsens_bench.measures.intervals import bootstrap, wilson_bounds
from cnnsens_bench.measures.spec import Interval

RESAMPLES = 1000
SEED = 0
ROWS_AT_ONCE = 100
"""The number of resamples whose weights are divided by those of their classes at once, which bounds the memory."""


class Resampler:
    """Averages over bootstrap resamples of a board's images.

    All entrants of a board share the draws, so that their ratios are paired. The first sample is all images.

    Parameters
    ----------
    n_images
        The number of images of the board.
    filled
        Whether a resample takes the mean over all images for a condition that it has no image of. On a budget few
        images have a condition, and means over many conditions would have no resample that has them all.
    """

    def __init__(self, n_images: int, filled: bool = False) -> None:
        self.filled = filled
        self.weights = np.ones((1 + RESAMPLES, n_images), np.float32)
        row = 1
        for block in bootstrap(n_images, RESAMPLES, SEED):
            self.weights[row : row + len(block)] = block
            row += len(block)
        self._by_class: tuple[bytes, np.ndarray, np.ndarray] | None = None

    def means(self, values: np.ndarray) -> np.ndarray:
        """Return the means over images of each sample.

        Parameters
        ----------
        values
            Shape (images, conditions): NaN where an image has none.

        Returns
        -------
        np.ndarray
            Shape (resamples + 1, conditions): NaN where no image of a sample has a value.
        """
        there = ~np.isnan(values)
        sums = self.weights @ np.where(there, values, 0).astype(np.float32)
        counts = np.where(there.all(0), np.float32(len(values)), np.zeros(sums.shape, np.float32))
        partial = there.any(0) & ~there.all(0)
        counts[:, partial] = self.weights @ there[:, partial].astype(np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = (sums / counts).astype(float)
            # float32 is precise enough for an interval, but not for the value itself.
            means[0] = np.where(there, values, 0).sum(0) / there.sum(0)
        return self._filled(means)

    def class_means(self, hits: np.ndarray, trials: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the means over classes of each class's share of hits, with its images and trials pooled.

        Parameters
        ----------
        hits, trials
            Shape (images, conditions) each: shares of hits, NaN where there is none, and numbers of trials.
        labels
            Shape (images,): the true classes, NaN where unknown.

        Returns
        -------
        np.ndarray
            Shape (resamples + 1, conditions): NaN where no class has an image.
        """
        counts = np.where(np.isnan(hits), 0, trials)
        shares = counts / np.maximum(counts.max(0, initial=0), 1)
        # Trials only weigh images against each other: conditions whose trials do so alike are averaged at once.
        alike = (shares == shares[:, :1]).all(0)
        means = np.full((len(self.weights), hits.shape[1]), np.nan)
        if alike.any():
            means[:, alike] = self._means_of_classes(np.nan_to_num(hits[:, alike]), shares[:, 0], labels)
        if not alike.all():
            means[:, ~alike] = self._pooled(np.nan_to_num(hits[:, ~alike]), counts[:, ~alike], labels)
        return self._filled(means)

    def _filled(self, means: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(means), means[0], means) if self.filled else means

    def _pooled(self, hits: np.ndarray, counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return `class_means` of conditions whose trials differ from image to image, class by class."""
        pooled, counts = (hits * counts).astype(np.float32), counts.astype(np.float32)
        total = np.zeros((len(self.weights), hits.shape[1]))
        classes = np.zeros_like(total)
        for label in np.unique(labels[~np.isnan(labels)]):
            chosen = labels == label
            right, count = self.weights[:, chosen] @ pooled[chosen], self.weights[:, chosen] @ counts[chosen]
            total += np.divide(right, count, out=np.zeros_like(right), where=count > 0)
            classes += count > 0
        return np.divide(total, classes, out=np.full_like(total, np.nan), where=classes > 0)

    def _means_of_classes(self, hits: np.ndarray, shares: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return `class_means` of conditions under which each image has the same share of the most trials."""
        key = shares.tobytes() + labels.tobytes()
        if self._by_class is None or self._by_class[0] != key:
            self._by_class = (key, *_class_weights(self.weights, shares, labels))
        _, weights, classes = self._by_class
        with np.errstate(invalid="ignore"):
            means = (weights @ hits.astype(np.float32)).astype(float) / classes
            exact, _ = _class_weights(self.weights[:1].astype(float), shares, labels)
            means[0] = (exact @ hits)[0] / classes[0]
        return means


def _class_weights(weights: np.ndarray, shares: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's share of the weight of its class, and the number of classes of each sample, shape (n, 1)."""
    known = np.flatnonzero(~np.isnan(labels))
    order = known[np.argsort(labels[known], kind="stable")]
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    found, classes = np.zeros_like(weights), np.zeros((len(weights), 1))
    for start in range(0, len(weights) if len(order) else 0, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        weighted = weights[rows][:, order] * shares[order].astype(weights.dtype)
        sums = np.add.reduceat(weighted, starts, axis=1)
        classes[rows] = (sums > 0).sum(1, keepdims=True)
        found[rows, order] = weighted / np.repeat(np.where(sums > 0, sums, 1), sizes, axis=1)
    return found, classes


def condition_intervals(shares: np.ndarray, trials: np.ndarray) -> dict[int, Interval]:
    """Return the mean share of each condition that has one, with the interval of `clustered_interval`.

    Parameters
    ----------
    shares
        Shape (images, conditions): each image's share over its trials, NaN where it has none.
    trials
        Shape (images, conditions): the numbers of trials.

    Returns
    -------
    dict
        By the index of a condition: the mean and its bounds.
    """
    there = ~np.isnan(shares)
    n = there.sum(0)
    used = np.flatnonzero(n)
    shares, there, n = shares[:, used], there[:, used], n[used]
    most = np.nanmax(trials[:, used], 0, initial=1)
    value = np.where(there, shares, 0).sum(0) / n
    variance = (np.where(there, shares - value, 0) ** 2).sum(0) / np.maximum(n - 1, 1) / n
    varies = (variance >= 1e-24) & (value > 0) & (value < 1)
    spread = value * (1 - value)
    size = np.where(varies, np.clip(spread / np.where(varies, variance, 1), 1, n * most), n)
    low, high = wilson_bounds(value, size)
    return dict(zip(used.tolist(), zip(value.tolist(), low.tolist(), high.tolist(), strict=True), strict=True))
