"""Paired differences of means over conditions: intervals that cover, and entrants that are told apart."""

import numpy as np
import pytest

from cnnsens_bench.measures import accuracy_gain
from cnnsens_bench.measures.intervals import Z, bootstrap
from cnnsens_bench.measures.paired import board_mean, difference_bounds, difference_variances, separated
from cnnsens_bench.measures.spec import mean_over_conditions

NAMES = np.repeat(["noise", "blur", "flip"], [3, 2, 1])


def shares_of(rng: np.random.Generator, images: int, budget: float = 1.0, gain: float = 0.0) -> np.ndarray:
    """Return hits of a network that is right with a chance of each image's own, NaN where a cell is left out."""
    chance = rng.beta(0.6, 0.6, images)[:, None] * np.linspace(1, 0.6, len(NAMES)) + gain
    hits = (rng.random((images, len(NAMES))) < chance).astype(float)
    return np.where(rng.random(hits.shape) < budget, hits, np.nan)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_a_single_condition_is_the_gain_of_a_comparison(shift: float) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 4, 50) / 3 for _ in range(2))
    first = np.clip(first + shift, 0, 1)
    expected = accuracy_gain(np.arange(50), first, second)
    mean = board_mean((first - second)[:, None], ["noise"])
    low, high = difference_bounds(np.array(mean.value), np.array(mean.variance), 50)
    assert mean.value == pytest.approx(expected.value, abs=1e-12)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_influences_add_up_to_nothing_and_give_the_variance_of_the_bootstrap() -> None:
    shares = shares_of(np.random.default_rng(1), 200, budget=0.4)
    mean = board_mean(shares, NAMES)
    [weights] = bootstrap(200, 2000)
    there = ~np.isnan(shares)
    resampled = mean_over_conditions(
        (weights @ np.where(there, shares, 0)) / (weights @ there), NAMES, np.ones(6, bool)
    )
    assert mean.value == pytest.approx(np.nanmean(shares, 0) @ np.repeat([1 / 9, 1 / 6, 1 / 3], [3, 2, 1]))
    assert mean.influence.sum() == pytest.approx(0, abs=1e-9)
    assert mean.variance == pytest.approx(resampled.var(), rel=0.1)


def test_a_condition_without_an_image_has_no_mean() -> None:
    shares = np.array([[1.0, np.nan], [0.0, np.nan]])
    assert np.isnan(board_mean(shares, ["noise", "blur"]).value)


def test_the_interval_of_a_difference_on_a_budget_covers() -> None:
    """Networks share the images' difficulty and the choice of cells, and one of them is right in 6 % more."""
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(400):
        chance = rng.beta(0.6, 0.6, 120)[:, None] * 0.9 + np.zeros(len(NAMES))
        hits = [(rng.random(chance.shape) < p).astype(float) for p in (chance + 0.06, chance)]
        differences = np.where(rng.random(chance.shape) < 0.3, hits[0] - hits[1], np.nan)
        mean = board_mean(differences, NAMES)
        low, high = difference_bounds(np.array(mean.value), np.array(mean.variance), 120)
        inside += bool(low <= 0.06 <= high)
    assert 0.93 <= inside / 400 <= 0.985


def test_variances_of_pairs_are_those_of_numpy_where_resamples_are_missing() -> None:
    rng = np.random.default_rng(3)
    samples = rng.normal(size=(4, 50)) + 5 * rng.normal(size=50)
    samples[1, :9] = samples[2, 5:20] = np.nan
    samples[3, 1:] = np.nan
    found = difference_variances(samples)
    for a in range(3):
        for b in range(3):
            assert found[a, b] == pytest.approx(np.nanvar(samples[a] - samples[b], ddof=1), abs=1e-12)
    assert np.isnan(found[3]).all()
    assert not separated(np.arange(4.0), found, 100)[3].any()


def test_shared_images_tell_entrants_apart_whose_intervals_overlap() -> None:
    rng = np.random.default_rng(4)
    hits = (rng.random(300) < 0.6).astype(float)
    better = np.where(rng.random(300) < 0.05, 1.0, hits)
    tables = np.stack([better, hits, hits])
    means = [board_mean(table[:, None], ["noise"]) for table in tables]
    ends = [(mean.value - Z * mean.variance**0.5, mean.value + Z * mean.variance**0.5) for mean in means]
    assert ends[0][0] < ends[1][1]
    variances = np.array([[board_mean((a - b)[:, None], ["noise"]).variance for b in tables] for a in tables])
    found = separated(np.array([mean.value for mean in means]), variances, 300)
    assert found.tolist() == [[False, True, True], [False] * 3, [False] * 3]
    assert not separated(np.array([mean.value for mean in means]), variances, 300, z=9.0).any()
