"""Recalibration of probabilities by isotonic regression, cross-fitted over images."""

import numpy as np
import pytest
from scipy import stats

from cnnsens_bench.measures.isotonic import FEWEST, recalibrate

IMAGES = [f"image {number}" for number in range(400)]


def test_a_wrong_scale_is_mended_from_few_trials() -> None:
    rng = np.random.default_rng(0)
    truth = rng.beta(0.4, 1.0, len(IMAGES))
    predicted = stats.norm.cdf(stats.norm.ppf(np.clip(truth, 1e-9, 1 - 1e-9)) * 0.4 - 0.5)
    trials = np.where(rng.random(len(IMAGES)) < 0.5, 2, 0)
    share = rng.binomial(2, truth) / 2
    found = recalibrate(predicted, share, trials, IMAGES)
    unseen = trials == 0
    assert np.abs(found - truth)[unseen].mean() < 0.6 * np.abs(predicted - truth)[unseen].mean()
    order = np.argsort(predicted)
    assert np.corrcoef(predicted[order], found[order])[0, 1] > 0.8


def test_an_image_has_no_part_in_its_own_map() -> None:
    rng = np.random.default_rng(1)
    predicted, share, trials = rng.random(400), rng.random(400), np.full(400, 5)
    found = recalibrate(predicted, share, trials, IMAGES)
    for image in range(0, 400, 40):
        other = share.copy()
        other[image] = 1 - other[image]
        again = recalibrate(predicted, other, trials, IMAGES)
        assert again[image] == found[image]
    assert (again != found).any()


def test_rows_of_an_image_share_its_fold() -> None:
    """The second half repeats the images of the first one with other levels."""
    rng = np.random.default_rng(2)
    predicted, share = rng.random(400), rng.random(400)
    ids = IMAGES[:200] * 2
    found = recalibrate(predicted, share, np.ones(400), ids)
    other = share.copy()
    other[200] = 1 - other[200]
    assert recalibrate(predicted, other, np.ones(400), ids)[0] == found[0]


def test_few_trials_change_nothing() -> None:
    predicted = np.linspace(0, 1, 60)
    trials = (np.arange(60) < FEWEST).astype(float)
    np.testing.assert_array_equal(recalibrate(predicted, 1 - predicted, trials, IMAGES[:60]), predicted)
    with pytest.raises(ValueError, match="at least 2 folds"):
        recalibrate(predicted, predicted, trials, IMAGES[:60], folds=1)
