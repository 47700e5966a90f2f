"""Decisions after rounds of a growing budget: error rates under the stopping, predictions of ties, and widths."""

import numpy as np
import pandas as pd
import pytest

from cnnsens_bench.measures.sequential import (
    SEPARATED,
    TIED,
    UNDECIDED,
    Looks,
    critical_values,
    mean_of_cells,
    planned_shares,
    variance_at,
)

SHARES = (0.025, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
BETWEEN, WITHIN = 1e-4, 1e-5
"""The variance of a mean is BETWEEN + WITHIN / share."""


def looks(gaps: list[float], seed: int, until: int = len(SHARES), budget: float = 1.0) -> Looks:
    """Return the looks at entrants whose true means are so many standard errors of the whole budget below the first."""
    rng = np.random.default_rng(seed)
    variances = BETWEEN + WITHIN / np.array(SHARES)
    steps = np.sqrt(np.diff(variances[::-1], prepend=0))[:, None] * rng.normal(size=(len(SHARES), len(gaps)))
    values = 0.5 - np.array(gaps) * np.sqrt(2 * variances[-1]) + steps.cumsum(axis=0)[::-1]
    covariances = variances[:, None, None] * np.eye(len(gaps))
    return Looks(SHARES[:until], values[:until], covariances[:until], 5000, budget)


def pairs(states: np.ndarray) -> np.ndarray:
    return states[np.triu_indices(len(states), 1)]


@pytest.mark.parametrize(("ratios", "spent"), [
    ((0.5, 0.5, 0.5, 0.57, 0.7), (0.0025, 0.005, 0.01, 0.02, 0.035, 0.05)),
    ((0.9, 0.95, 0.95), (0.025, 0.04, 0.045, 0.05)),
    ((0.05, 0.3), (0.0025, 0.02, 0.05)),
])  # fmt: skip
def test_bounds_spend_what_they_shall(ratios: tuple[float, ...], spent: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    z, passed, shares = rng.normal(size=400_000), np.zeros(400_000, bool), []
    for bound, ratio in zip(critical_values(ratios, spent), (*ratios, 1.0), strict=True):
        passed |= np.abs(z) > bound
        shares.append(passed.mean())
        z = np.sqrt(ratio) * z + np.sqrt(1 - ratio) * rng.normal(size=len(z))
    assert shares == pytest.approx(spent, abs=0.0011)


def test_equal_entrants_are_separated_in_one_pair_of_twenty_at_most() -> None:
    states = np.concatenate([pairs(looks([0.0] * 40, seed).pair_states()) for seed in range(8)])
    assert 0.02 < (states == SEPARATED).mean() < 0.055
    assert (states != UNDECIDED).all()


def test_most_pairs_that_all_cells_separate_are_separated_and_few_are_called_tied_too_early() -> None:
    found, by_all = [], []
    for seed in range(8):
        one = looks(list(np.linspace(0, 12, 40)), seed)
        found.append(pairs(one.pair_states()))
        differences = np.abs(one.values[-1][:, None] - one.values[-1])
        by_all.append(pairs(differences > 1.96 * np.sqrt(2 * one.covariances[-1, 0, 0])))
    states, separated = np.concatenate(found), np.concatenate(by_all)
    assert ((states == SEPARATED) & separated).sum() / separated.sum() > 0.95
    assert ((states == SEPARATED) & ~separated).sum() / (states == SEPARATED).sum() < 0.03


def test_clear_differences_and_clear_ties_are_known_early() -> None:
    one = looks([0, 0, 9], 3, until=3)
    values = np.tile([0.5, 0.5001, 0.36], (3, 1))
    states = Looks(one.shares, values, one.covariances, 5000, 1.0).pair_states()
    assert states.tolist() == [[TIED, TIED, SEPARATED], [TIED, TIED, SEPARATED], [SEPARATED, SEPARATED, TIED]]
    between = Looks(one.shares, np.tile([0.5, 0.47], (3, 1)), one.covariances[:, :2, :2], 5000, 1.0)
    assert between.pair_states()[0, 1] == UNDECIDED


def test_a_state_stays_and_the_last_round_decides() -> None:
    one = looks([0, 0], 0)
    values = np.full((7, 2), 0.5)
    values[1:3, 1] = 0.36
    assert Looks(SHARES, values, one.covariances, 5000, 1.0).pair_states()[0, 1] == SEPARATED
    values[1:] = [0.5, 0.475]
    for until, expected in ((4, UNDECIDED), (7, TIED)):
        part = Looks(SHARES[:until], values[:until], one.covariances[:until], 5000, 1.0)
        assert part.pair_states()[0, 1] == expected
    small = Looks(SHARES[:4], values[:4], one.covariances[:4], 5000, budget=0.2)
    assert small.pair_states()[0, 1] == TIED


def test_few_images_need_larger_differences() -> None:
    one = looks([0, 0], 0, until=2)
    values = np.tile([0.5, 0.427], (2, 1))
    states = [Looks(one.shares, values, one.covariances, n, 1.0).pair_states()[0, 1] for n in (5000, 5)]
    assert states == [SEPARATED, UNDECIDED]


def test_entrants_that_never_differ_are_tied_at_once() -> None:
    same = np.full((2, 2, 2), 1e-4)
    assert Looks((0.1, 0.2), np.full((2, 2), 0.7), same, 100, 1.0).pair_states()[0, 1] == TIED


def test_who_left_earlier_is_compared_by_the_rounds_of_both() -> None:
    one = looks([0, 9, 0.5], 1)
    values = one.values.copy()
    values[2:, 1] = np.nan
    states = Looks(SHARES, values, one.covariances, 5000, 1.0).pair_states()
    early = Looks(SHARES[:2], values[:2], one.covariances[:2], 5000, 1.0).pair_states()
    assert states[0, 1] == early[0, 1] == SEPARATED
    assert states[0, 2] != UNDECIDED
    assert Looks(SHARES, values, one.covariances, 5000, 1.0).order()[-1] == 1
    missing = np.full((7, 3), np.nan)
    assert (pairs(Looks(SHARES, missing, one.covariances, 5000, 1.0).pair_states()) == UNDECIDED).all()


def test_variances_are_extrapolated_by_what_lies_between_images() -> None:
    variances = BETWEEN + WITHIN / np.array([0.05, 0.1])
    assert variance_at(1.0, (0.05, 0.1), variances) == pytest.approx(BETWEEN + WITHIN)
    assert variance_at(0.4, (0.05, 0.1), variances) == pytest.approx(BETWEEN + WITHIN / 0.4)
    # Noise never makes it larger than it was, nor smaller than cells alone could.
    assert variance_at(1.0, (0.05, 0.1), np.array([1.0, 1.2])) == 1.2
    assert variance_at(1.0, (0.05, 0.1), np.array([9.0, 1.0])) == pytest.approx(0.1)
    assert variance_at(1.0, (0.05, 0.1), np.array([np.nan, 1.0])) == pytest.approx(0.1)


def test_a_pair_is_not_tied_by_the_variance_of_a_share_that_lacks_conditions() -> None:
    covariances = np.array([1e-5, 1e-3])[:, None, None] * np.eye(2)
    values = np.array([[np.nan, np.nan], [0.7, 0.65]])
    assert Looks((0.1, 0.2), values, covariances, 40, 1.0).pair_states()[0, 1] == UNDECIDED
    # Without the cells of a round, the pair takes part from the next one on.
    values = np.array([[np.nan] * 2, [np.nan] * 2, [0.7, 0.65], [0.7, 0.5]])
    covariances = np.array([1e-5, 1e-5, 1e-3, 1e-3])[:, None, None] * np.eye(2)
    shares = (0.1, 0.2, 0.4, 1.0)
    assert Looks(shares[:3], values[:3], covariances[:3], 40, 1.0).pair_states()[0, 1] == UNDECIDED
    assert Looks(shares, values, covariances, 40, 1.0).pair_states()[0, 1] == SEPARATED


@pytest.mark.parametrize(("budget", "cells", "expected"), [
    (1.0, 750, (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)), (0.1, 75, (0.05, 0.1)), (1.0, 12, (0.4, 0.7, 1.0)),
    (0.02, 75, (0.02,)), (1.0, 1, (1.0,)),
])  # fmt: skip
def test_rounds_begin_with_some_cells_and_end_with_the_budget(budget: float, cells: int, expected: tuple) -> None:
    assert planned_shares(budget, cells) == expected


def test_a_mean_of_cells_is_that_of_the_leaderboard_and_its_variance_that_of_samples() -> None:
    rng = np.random.default_rng(0)
    conditions = [("noise", 1.0), ("noise", 2.0)] * 3 + [("blur", 1.0)]
    chances = rng.beta(0.7, 0.7, (4000, 1)) * np.linspace(1, 0.5, 7)

    def drawn(images: np.ndarray) -> np.ndarray:
        hits = (rng.random((len(images), 7)) < chances[images]).astype(np.float32)
        return np.where(rng.random(hits.shape) < 0.15, hits, np.nan)

    one = drawn(np.arange(60))
    rows = pd.DataFrame(one, columns=pd.MultiIndex.from_tuples([(*c, n) for n, c in enumerate(conditions)]))
    means = rows.T.groupby(level=[0, 1]).mean().mean(axis=1).groupby(level=0).mean()
    assert mean_of_cells(one, conditions).value == pytest.approx(means.mean())
    found = [mean_of_cells(drawn(rng.integers(0, 4000, size=60)), conditions) for _ in range(1500)]
    variance = np.mean([mean.variance for mean in found])
    assert variance == pytest.approx(np.var([mean.value for mean in found]), rel=0.12)


def test_a_condition_of_one_image_gives_no_mean() -> None:
    outcomes = np.array([[1, np.nan], [0, 1], [1, np.nan]])
    assert np.isnan(mean_of_cells(outcomes, [("noise", 1.0), ("blur", 1.0)]).value)
