"""Averages of many conditions at once equal those of each one alone."""

import numpy as np
import pytest

from cnnsens_bench.measures import clustered_interval
from leaderboard.resampling import Resampler, condition_intervals

IMAGES, CONDITIONS = 60, 9


def made(seed: int, missing: float = 0.0, uneven: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return shares, NaN where an image has none, and trials: 1 under the first condition, 1 to 10 under the others."""
    rng = np.random.default_rng(seed)
    trials = np.tile(rng.integers(1, 11, CONDITIONS).astype(float), (IMAGES, 1))
    trials[:, 0] = 1
    if uneven:
        trials = rng.integers(1, 11, trials.shape).astype(float)
    hits = rng.binomial(trials.astype(int), rng.random((IMAGES, 1))) / trials
    gone = rng.random(hits.shape) < missing
    hits[gone] = trials[gone] = np.nan
    hits[:, 2] = 1.0
    return hits, trials


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_intervals_of_all_conditions(missing: float) -> None:
    hits, trials = made(0, missing)
    hits[:, 4] = np.nan
    hits[1:, 5] = np.nan  # a single image
    hits[:, 6] = np.where(np.isnan(hits[:, 6]), np.nan, 1 / 3)
    found = condition_intervals(hits, trials)
    assert sorted(found) == [0, 1, 2, 3, 5, 6, 7, 8]
    for i, interval in found.items():
        own = hits[~np.isnan(hits[:, i]), i]
        wanted = clustered_interval(own, int(np.nanmax(trials[:, i])))
        assert interval == pytest.approx((wanted.value, wanted.low, wanted.high), abs=1e-14)


@pytest.mark.parametrize("kind", ["whole", "an image is missing", "uneven", "some are uneven", "labels are unknown"])
def test_means_over_classes(kind: str) -> None:
    hits, trials = made(1, uneven=kind == "uneven")
    labels = np.random.default_rng(2).integers(0, 7, IMAGES).astype(float)
    if kind == "an image is missing":
        hits[5] = trials[5] = np.nan
    if kind == "some are uneven":
        hits[3:20, 4] = trials[3:20, 4] = np.nan
        hits[:, 8] = trials[:, 8] = np.nan
    if kind == "labels are unknown":
        labels[::4] = np.nan
    resampler = Resampler(IMAGES)
    found = resampler.class_means(hits, trials, labels)
    for row in (0, 1, 500, 1000):
        for i in range(CONDITIONS):
            count = np.where(np.isnan(hits[:, i]), 0, trials[:, i]) * resampler.weights[row]
            shares = [
                (np.nan_to_num(hits[:, i]) * count)[labels == label].sum() / count[labels == label].sum()
                for label in range(7)
                if count[labels == label].sum()
            ]
            wanted = np.mean(shares) if shares else np.nan
            close = 1e-12 if row == 0 and kind in ("whole", "labels are unknown") else 2e-6
            assert found[row, i] == pytest.approx(wanted, abs=close, nan_ok=True)
    filled = Resampler(IMAGES, filled=True).class_means(hits, trials, labels)
    assert np.array_equal(filled, np.where(np.isnan(found), found[0], found), equal_nan=True)


def test_no_known_label_gives_no_mean() -> None:
    hits, trials = made(3)
    assert np.isnan(Resampler(IMAGES).class_means(hits, trials, np.full(IMAGES, np.nan))).all()
