"""Measures equal those of scikit-learn and scipy, worked examples, and the SQL of the store."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import brier_score_loss, roc_auc_score

from cnnsens_bench.measures import intervals, predictions, skill
from cnnsens_bench.store import Store
from tests.leaderboard.made import sweep, write


@given(hits=st.lists(st.booleans(), min_size=2, max_size=200))
@settings(deadline=None)
def test_one_trial_an_image_is_wilsons_interval(hits: list[bool]) -> None:
    n, k = len(hits), sum(hits)
    estimate = intervals.clustered_share(np.arange(n), np.array(hits))
    assert estimate.value == pytest.approx(k / n)
    # With one trial an image the effective size is n − 1 (the sample variance), or n at the ends.
    size = n if k in (0, n) else n - 1
    centre = stats.binomtest(k, n).proportion_ci(method="wilson")
    low, high = wilson(k / n, size)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-9)
    if k in (0, n):
        assert (estimate.low, estimate.high) == pytest.approx((centre.low, centre.high), abs=1e-9)


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return the roots of (share − p)² = z²·p(1 − p)/n."""
    z2 = stats.norm.ppf(0.975) ** 2
    low, high = sorted(np.roots([1 + z2 / n, -(2 * share + z2 / n), share**2]).real)
    return max(low, 0.0), min(high, 1.0)


def test_identical_trials_count_as_one() -> None:
    """Ten copies of each image's outcome carry no more information than one."""
    hits = np.random.default_rng(0).random(60) < 0.7
    one = intervals.clustered_share(np.arange(60), hits)
    ten = intervals.clustered_share(np.repeat(np.arange(60), 10), np.repeat(hits, 10))
    assert (ten.value, ten.low, ten.high) == pytest.approx((one.value, one.low, one.high))
    assert ten.n_trials == 10


def test_the_interval_covers_as_it_says() -> None:
    """Images differ in how fragile they are: 95 % intervals contain the truth in about 95 % of repetitions."""
    rng = np.random.default_rng(1)
    inside = naive_inside = 0
    for _ in range(600):
        fragility = rng.beta(0.5, 0.8, 80)  # mean 0.3846
        hits = rng.random((80, 10)) < fragility[:, None]
        estimate = intervals.clustered_share(np.repeat(np.arange(80), 10), hits.ravel())
        inside += estimate.low <= 0.5 / 1.3 <= estimate.high
        low, high = wilson(hits.mean(), 800)
        naive_inside += low <= 0.5 / 1.3 <= high
    assert 0.92 <= inside / 600 <= 0.98
    assert naive_inside / 600 < 0.7


def test_accuracy_and_label_change() -> None:
    image = np.array(["a", "a", "b", "b"])
    assert predictions.accuracy(image, np.array([1, 1, 2, 2]), np.array([1, 0, 2, 2])).value == 0.75
    assert predictions.label_change(image, np.array([1, 0, 2, 2]), np.array([0, 0, 0, 0])).value == 0.75


def test_calibration_error_of_a_worked_example() -> None:
    # Bins of 0.1: 0.95 twice (right once), 0.55 twice (right twice): (2·|0.5−0.95| + 2·|1−0.55|)/4
    assert predictions.expected_calibration_error(
        np.array([0.95, 0.95, 0.55, 0.55]), np.array([1, 0, 1, 1]), bins=10
    ) == pytest.approx(0.45)
    assert predictions.expected_calibration_error(np.array([1.0, 0.0]), np.array([1, 0])) == 0


NAMES = np.array(["none", "noise", "noise", "blur", "blur", "flip"])
OWN = np.array([0.1, 0.2, 0.4, 0.3, 0.5, 0.1])
REFERENCE = np.array([0.2, 0.4, 0.8, 0.6, 0.4, 0.2])


def test_corruption_errors_of_a_worked_example() -> None:
    # noise 0.6/1.2, blur 0.8/1.0, flip 0.1/0.2
    assert predictions.mce(OWN, REFERENCE, NAMES) == pytest.approx((0.5 + 0.8 + 0.5) / 3)
    # (0.6 − 0.2)/(1.2 − 0.4), (0.8 − 0.2)/(1.0 − 0.4); under the flip the reference makes no more errors
    assert predictions.relative_mce(OWN, REFERENCE, NAMES) == pytest.approx((0.5 + 1.0) / 2)
    assert predictions.mean_flip_rate(OWN, REFERENCE, NAMES) == pytest.approx((0.5 + 0.8 + 0.5) / 3)
    for function in (predictions.mce, predictions.relative_mce, predictions.mean_flip_rate):
        assert function(REFERENCE, REFERENCE, NAMES) == pytest.approx(1)


def test_corruption_errors_over_what_both_have() -> None:
    gap = np.array([0, 0, np.nan, 0, 0, np.nan])
    # noise 0.2/0.4, blur 0.8/1.0, no flip
    assert predictions.mce(OWN + gap, REFERENCE, NAMES) == pytest.approx((0.5 + 0.8) / 2)
    assert predictions.mce(OWN, REFERENCE + gap, NAMES) == pytest.approx((0.5 + 0.8) / 2)
    assert predictions.relative_mce(OWN + gap, REFERENCE, NAMES) == pytest.approx((0.1 / 0.2 + 1.0) / 2)
    assert np.isnan(predictions.relative_mce(OWN[1:], REFERENCE[1:], NAMES[1:]))  # there is no undegraded condition
    assert np.isnan(predictions.mce(OWN, np.zeros(6), NAMES))  # the reference makes no errors
    assert np.isnan(predictions.mean_flip_rate(OWN[:1], REFERENCE[:1], NAMES[:1]))
    assert predictions.ratios_by_degradation(OWN[:1], REFERENCE[:1], NAMES[:1]).shape == (0,)


def test_ratios_of_many_resamples_at_once() -> None:
    rng = np.random.default_rng(0)
    own, reference = rng.random((7, 6)), rng.random((7, 6))
    own[2, 1] = reference[4, 3] = np.nan
    found = predictions.ratios_by_degradation(own, reference, NAMES)
    assert found.shape == (7, 3)
    for one, mine, theirs in zip(found, own, reference, strict=True):
        assert one == pytest.approx(predictions.ratios_by_degradation(mine, theirs, NAMES))


def test_a_gain_and_its_interval() -> None:
    """Check Agresti & Min's formula for one trial, in which n11, n12, n21 and n22 each grow by 1/2."""
    rng = np.random.default_rng(0)
    image = np.arange(60)
    hit, reference = rng.random(60) < 0.7, rng.random(60) < 0.5
    b, c = (hit & ~reference).sum() + 0.5, (~hit & reference).sum() + 0.5
    n = 62
    centre, half = (b - c) / n, intervals.Z * np.sqrt((b + c) - (b - c) ** 2 / n) / n
    found = intervals.accuracy_gain(image, hit, reference)
    assert found.value == pytest.approx(hit.mean() - reference.mean())
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half))
    nothing = intervals.accuracy_gain(image, hit, hit)
    assert nothing.value == 0
    assert nothing.low == pytest.approx(-nothing.high)
    assert 0 < nothing.high < 0.06
    certain = intervals.accuracy_gain(image, np.ones(60), np.zeros(60))
    assert (certain.value, certain.high) == (1, 1)
    assert 0.9 < certain.low < 1
    with pytest.raises(ValueError, match="no images"):
        intervals.accuracy_gain(np.array([]), np.array([]), np.array([]))


def test_the_interval_of_a_gain_covers() -> None:
    """With trials nested in images, the 95 % interval contains a true gain of 0.1 in about 95 % of repetitions."""
    rng = np.random.default_rng(1)
    image = np.repeat(np.arange(50), 3)
    covered = 0
    for _ in range(400):
        chance = np.repeat(rng.uniform(0, 0.9, 50), 3)
        hit, reference = (rng.random(150) < p for p in (chance + 0.1, chance))
        estimate = intervals.accuracy_gain(image, hit, reference)
        covered += estimate.low <= 0.1 <= estimate.high
    assert 0.92 <= covered / 400 <= 0.99


def trials_of(rng: np.random.Generator, n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    score = rng.random(n).round(1)  # with ties
    trials = rng.integers(1, 11, n)
    return score, rng.binomial(trials, score * 0.8) / trials, trials


def test_auroc_is_scikit_learns() -> None:
    score, share, trials = trials_of(np.random.default_rng(0))
    events = [np.repeat([1, 0], [round(s * t), t - round(s * t)]) for s, t in zip(share, trials, strict=True)]
    expected = roc_auc_score(np.concatenate(events), np.repeat(score, trials))
    assert skill.auroc(score, share * trials, (1 - share) * trials) == pytest.approx(expected, rel=1e-12)
    several = np.stack([share * trials, (1 - share) * trials])
    both = skill.auroc(score, several, several[::-1])
    assert both == pytest.approx([expected, 1 - expected])


def test_auroc_without_positives_and_with_ties_alone() -> None:
    assert np.isnan(skill.auroc(np.arange(3.0), np.zeros(3), np.ones(3)))
    assert skill.auroc(np.ones(3), np.ones(3), np.ones(3)) == 0.5


def test_prediction_skill_and_its_intervals() -> None:
    """An informed score beats noise and is no better than itself; the interval covers in 95 % of repetitions."""
    rng = np.random.default_rng(1)
    score, share, trials = trials_of(rng)
    noise = rng.random(len(score))
    found = skill.prediction_skill({"own": score, "noise": noise}, "noise", share, trials)["own"]
    assert found.low < found.auroc < found.high
    assert found.gain == pytest.approx(found.auroc - skill.auroc(noise, share * trials, (1 - share) * trials).item())
    assert found.gain_low > 0
    same = skill.prediction_skill({"own": score}, "own", share, trials)["own"]
    assert (same.gain, same.gain_low, same.gain_high) == (0, 0, 0)
    population = trials_of(np.random.default_rng(2), 20_000)
    truth = skill.auroc(population[0], population[1] * population[2], (1 - population[1]) * population[2]).item()
    covered = []
    for seed in range(60):
        score, share, trials = trials_of(np.random.default_rng(100 + seed))
        one = skill.prediction_skill({"own": score}, "own", share, trials, resamples=300)["own"]
        covered.append(one.low <= truth <= one.high)
    assert np.mean(covered) > 0.85


def test_brier_score_is_scikit_learns() -> None:
    score, share, trials = trials_of(np.random.default_rng(3))
    events = [np.repeat([1, 0], [round(s * t), t - round(s * t)]) for s, t in zip(share, trials, strict=True)]
    expected = brier_score_loss(np.concatenate(events), np.repeat(score, trials))
    assert skill.brier_score(score, share, trials) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("case", ["complete", "missing conditions", "no undegraded rows"])
def test_sql_equals_measures(case: str, tmp_path: Path) -> None:
    """The views and the macro of the store give the measures' numbers, on two data sets and two protocols."""
    rows = pd.concat(
        [sweep("r1", "d", range(15), 0), sweep("r2", "d", range(9), 1), sweep("r1", "e", range(6), 2)],
        ignore_index=True,
    )
    if case == "missing conditions":
        reference = (rows["model"] == "torchvision/alexnet") & (rows["defense"] == "none")
        rows = rows[~(reference & (rows["level"] == 4)) & ~((rows["model"] == "timm/b") & (rows["level"] == 8))]
    elif case == "no undegraded rows":
        rows = rows[~((rows["model"] == "timm/b") & (rows["degradation"] == "none"))]
    store = Store(write(tmp_path, rows, {"r1": "p", "r2": "q"}).parent)
    rows = rows.assign(protocol=rows["run_id"].map({"r1": "p", "r2": "q"}))
    entrant = ["protocol", "dataset", "model", "defense"]
    key, condition = [*entrant, "image_id"], [*entrant, "degradation", "level"]
    undegraded = rows[rows["degradation"] == "none"].set_index(key)["prediction"].rename("reference")
    changes = rows[rows["degradation"] != "none"].join(undegraded, on=key, how="inner")
    arrays = {
        "accuracy": {
            name: predictions.accuracy(own["image_id"], own["label"], own["prediction"])
            for name, own in rows.groupby(condition)
        },
        "label_change": {
            name: predictions.label_change(own["image_id"], own["prediction"], own["reference"])
            for name, own in changes.groupby(condition)
        },
    }
    values = {}
    for view, expected in arrays.items():
        found = store.query(f"FROM {view}").set_index(condition)
        assert set(found.index) == set(expected)
        for name, estimate in expected.items():
            assert found.loc[name, ["value", "low", "high"]].tolist() == pytest.approx(
                [estimate.value, estimate.low, estimate.high], abs=1e-12
            )
        values[view] = pd.Series({name: one.value for name, one in expected.items()}).unstack(level=[4, 5])
    macro = store.query("FROM mce('torchvision/alexnet')").set_index(entrant)
    assert set(macro.index) == set(values["accuracy"].index)
    for name, row in macro.iterrows():
        base = (*name[:2], "torchvision/alexnet", "none")
        errors = [1 - values["accuracy"].loc[which] for which in (name, base)]
        shifts = [values["label_change"].reindex(values["accuracy"].index).loc[which] for which in (name, base)]
        expected = [
            predictions.mce(*errors, errors[0].index.get_level_values(0)),
            predictions.relative_mce(*errors, errors[0].index.get_level_values(0)),
            predictions.mean_flip_rate(*shifts, shifts[0].index.get_level_values(0)),
        ]
        found = row[["mce", "relative_mce", "mean_flip_rate"]].astype(float).tolist()
        assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)
