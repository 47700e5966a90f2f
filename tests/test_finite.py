"""Intervals for these very images: exact on small tables, equal to the views, and covering over choices of cells."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from cnnsens_bench.engine.budget import CellChoice
from cnnsens_bench.engine.sweep import Condition, Sweep
from cnnsens_bench.measures import clustered_interval
from cnnsens_bench.measures.finite import FinitePopulation
from cnnsens_bench.measures.spec import mean_over_conditions
from cnnsens_bench.store import Store
from tests.leaderboard.budgeted import chosen, made
from tests.leaderboard.made import write
from tests.leaderboard.plain import per_image

SWEPT = Sweep("r", "d", (), tuple(Condition(name, (1.0, 2.0, 3.0), 1) for name in ("a", "b", "c", "d")), budget=0.3)
NAMES = np.array([cell.degradation for cell in SWEPT.cells()[1:]])


def one_trial(shares: np.ndarray) -> FinitePopulation:
    return FinitePopulation(shares, np.ones(shares.shape), np.ones(shares.shape[1]))


def test_the_variance_is_the_mean_of_all_choices() -> None:
    """Over all choices of 4 of 7 images, the estimated variance is on average the variance of the estimates."""
    truth = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    values, variances = [], []
    for images in itertools.combinations(range(7), 4):
        shares = np.full((7, 1), np.nan)
        shares[list(images), 0] = truth[list(images)]
        found = one_trial(shares).condition(0)
        values.append(found.value)
        own = shares[list(images), 0]
        variances.append((1 - 4 / 7) * own.var(ddof=1) / 4)
        if 0 < found.value < 1:
            size = found.value * (1 - found.value) / variances[-1]
            assert found.high == pytest.approx(wilson_high(found.value, size))
    assert np.mean(values) == pytest.approx(truth.mean())
    assert np.mean(variances) == pytest.approx(np.var(values))


def wilson_high(share: float, n: float) -> float:
    """Return the upper root of (share − p)² = z²·p(1 − p)/n."""
    z2 = 1.959963984540054**2
    return max(np.roots([1 + z2 / n, -(2 * share + z2 / n), share**2]).real)


def test_one_trial_is_wilsons_interval_with_the_corrected_size() -> None:
    """At 0 and 1 the size is n/(1 − f); everywhere it is that of the population's interval, divided by 1 − f."""
    shares = np.full((40, 2), np.nan)
    shares[:10, 0] = 1.0
    shares[:10, 1] = [0.0] * 4 + [1.0] * 6
    found = one_trial(shares)
    ones, mixed = found.condition(0), found.condition(1)
    assert (ones.value, ones.high) == (1, 1)
    assert 1 - ones.low == pytest.approx(1 - 1 / (1 + 1.959963984540054**2 / (10 / 0.75)))
    assert mixed.high == pytest.approx(wilson_high(0.6, 9 / 0.75))
    assert mixed.high < clustered_interval(shares[:10, 1], 1).high


def test_whole_tables_of_one_trial_have_no_width_and_trials_give_one() -> None:
    rng = np.random.default_rng(0)
    shares = rng.integers(0, 5, (50, 12)) / 4
    whole = one_trial(shares)
    assert whole.condition(3).low == whole.condition(3).high == whole.condition(3).value
    assert len({round(bound, 12) for bound in whole.mean(NAMES)}) == 1
    four = FinitePopulation(shares, np.full((50, 12), 4), np.full(12, 4))
    own = shares[:, 3]
    variance = (4 * own * (1 - own)).sum() / 150 / 4 / 50
    size = own.mean() * (1 - own.mean()) / variance
    assert four.condition(3).high == pytest.approx(wilson_high(own.mean(), size))
    assert four.condition(3).high < clustered_interval(own, 4).high
    low, high = four.mean(NAMES)[1:]
    assert 0 < high - low < 0.2
    alike = FinitePopulation(np.ones((50, 1)), np.full((50, 1), 4), np.full(1, 4)).condition(0)
    assert 1 - alike.low == pytest.approx(1 - 1 / (1 + 1.959963984540054**2 / 200))
    with pytest.raises(ValueError, match="no images"):
        one_trial(np.full((3, 1), np.nan)).condition(0)
    assert np.isnan(one_trial(np.full((3, 1), np.nan)).mean(["a"])).all()


def test_intervals_cover_the_whole_table_over_choices_of_cells() -> None:
    rng = np.random.default_rng(1)
    chance = rng.beta(0.6, 0.6, 150)[:, None] * np.linspace(1, 0.5, 12)
    table = (rng.random(chance.shape) < chance).astype(float)
    truth = table.mean(0)
    board = mean_over_conditions(truth[None], NAMES, np.ones(12, bool))[0]
    of_means, of_conditions, errors = [], [], []
    for seed in range(250):
        cells = CellChoice(dataclasses.replace(SWEPT, seed=seed)).of([str(image) for image in range(150)])[:, 1:]
        found = one_trial(np.where(cells, table, np.nan))
        value, low, high = found.mean(NAMES)
        of_means.append(low <= board <= high)
        errors.append(value - board)
        each = [found.condition(condition) for condition in range(12)]
        of_conditions.append([one.low <= true <= one.high for one, true in zip(each, truth, strict=True)])
    assert 0.92 <= np.mean(of_means) <= 0.985
    assert 0.93 <= np.mean(of_conditions) <= 0.98
    assert np.mean(of_conditions, 0).min() > 0.88
    assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(250)


@pytest.mark.parametrize("budget", [0.15, 1.0])
def test_the_views_compute_the_same(budget: float, tmp_path: Path) -> None:
    rows = chosen(made("r1", 0, "timm/a", "timm/b"), budget) if budget < 1 else made("r1", 0, "timm/a", "timm/b")
    rows = rows[~((rows["model"] == "timm/b") & (rows["image_id"] < "i010") & (rows["degradation"] == "pepper"))]
    write(tmp_path, rows, {"r1": "p"}, config={"budget": budget})
    store = Store(tmp_path)
    leaders = store.query("FROM leaderboard_of_images").set_index("model")
    population = store.query("FROM leaderboard").set_index("model")
    for model, own in rows.groupby("model"):
        shares = per_image(own)
        counts = own.groupby(["degradation", "level", "image_id"])["trial"].count().unstack([0, 1])
        planned = own.groupby(["degradation", "level"])["trial"].max() + 1
        for view, column, name in (
            ("accuracy", "hit", "mean_degraded_accuracy"),
            ("label_change", "changed", "mean_label_change"),
        ):
            table = shares.pivot(index="image_id", columns=["degradation", "level"], values=column)
            table = table.drop(columns="none", level=0) if column == "changed" else table
            keys = list(table.columns)
            images = FinitePopulation(table.to_numpy(), counts[keys].to_numpy(), planned[keys].to_numpy())
            found = store.query(f"FROM {view}_of_images WHERE model = ?", [model]).set_index(["degradation", "level"])
            usual = store.query(f"FROM {view} WHERE model = ?", [model]).set_index(["degradation", "level"])
            assert set(found.index) == set(keys) == set(usual.index)
            for number, key in enumerate(keys):
                one = images.condition(number)
                assert found.loc[key, ["value", "low", "high"]].tolist() == pytest.approx(
                    [one.value, one.low, one.high]
                )
                assert found.loc[key, "part"] == pytest.approx(one.n_images / table.shape[0])
                assert found.loc[key, "value"] == pytest.approx(usual.loc[key, "value"])
                assert found.loc[key, "n_images"] == usual.loc[key, "n_images"]
            degraded = np.array([key[0] != "none" for key in keys])
            names = [key[0] for key in keys if key[0] != "none"]
            columns = [name, f"{name}_low", f"{name}_high"]
            assert leaders.loc[model, columns].tolist() == pytest.approx(list(images.of(degraded).mean(names)))
            assert leaders.loc[model, name] == pytest.approx(population.loc[model, name])
