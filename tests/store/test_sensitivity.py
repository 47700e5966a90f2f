"""Macros and views of sensitivity against Python, NumPy and SciPy."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from scipy import stats
from scipy.special import polygamma

from cnnsens_bench.sensitivity.gradients import FIRST_ORDER, OUTPUTS, first_order
from cnnsens_bench.sensitivity.predictors import label_change
from cnnsens_bench.store import Store, new_attempt, write_part
from tests.store.part_schemas import SENSITIVITY, SENSITIVITY_PREDICTIONS
from tests.store.scored import FREE, IMAGES, LEVELS, TRIALS, predicted_rows, score_rows, scored_store, sweep_rows

KEY = ["output", "predictor", "degradation", "level"]


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return sweep_rows()


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    return score_rows()


@pytest.fixture(scope="module")
def predicted(scores: pd.DataFrame) -> pd.DataFrame:
    return predicted_rows(scores)


@pytest.fixture(scope="module")
def store(
    rows: pd.DataFrame, scores: pd.DataFrame, predicted: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Store:
    return scored_store(tmp_path_factory.mktemp("store"), rows, scores, predicted)


def columns_of(scores: pd.DataFrame) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(scores[name].to_numpy().reshape(IMAGES, 3).T.copy()) for name in FREE}


@pytest.mark.parametrize("degradation", FIRST_ORDER)
def test_first_order_in_sql_is_that_of_python(store: Store, scores: pd.DataFrame, degradation: str) -> None:
    for level in LEVELS[degradation]:
        change = first_order(columns_of(scores), degradation, level)
        found = store.query(
            "FROM predicted_change WHERE degradation = ? AND level = ? AND predictor = 'gradient'", [degradation, level]
        ).set_index(["image_id", "output"])
        paper = store.query(
            "FROM predicted_change WHERE degradation = ? AND level = ? AND predictor = 'paper'", [degradation, level]
        ).set_index(["image_id", "output"])
        assert len(found) == IMAGES * 3
        for k, output in enumerate(OUTPUTS):
            for i in range(IMAGES):
                key = (f"i{i}", output)
                mean, deviation = float(change.mean[k, i]), float(change.deviation[k, i])
                assert found["mean_change"][key] == pytest.approx(mean, abs=1e-12)
                assert found["deviation"][key] == pytest.approx(deviation, rel=1e-12)
                assert paper["deviation"][key] == pytest.approx(np.hypot(mean, deviation), rel=1e-12)


def empirical(rows: pd.DataFrame, output: str, degradation: str, level: float) -> pd.DataFrame:
    rows = rows.astype({"reference_logit": np.float32, "reference_probability": np.float32})
    f = rows.set_index("image_id")[f"reference_{output}"].astype(float)
    still = f[rows.set_index("image_id")["degradation"] == "none"]
    here = rows[(rows["degradation"] == degradation) & (rows["level"] == level)]
    change = here[f"reference_{output}"].astype(float) - still[here["image_id"]].to_numpy()
    grouped = change.groupby(here["image_id"])
    return pd.DataFrame({"deviation": grouped.std(), "rms": grouped.apply(lambda c: np.sqrt(np.mean(c**2)))})


def test_the_measured_change(store: Store, rows: pd.DataFrame) -> None:
    view = (
        store.query("FROM empirical_sensitivity").set_index(["degradation", "level", "output", "image_id"]).sort_index()
    )
    assert len(view) == IMAGES * 5 * 2
    for degradation, level, output in (("gaussian_rgb", 4.0, "logit"), ("translation", 0.5, "probability")):
        expected = empirical(rows, output, degradation, level)
        own = view.loc[(degradation, level, output)].loc[expected.index]
        np.testing.assert_allclose(own["deviation"], expected["deviation"], rtol=1e-9)
        np.testing.assert_allclose(own["rms_change"], expected["rms"], rtol=1e-9)
        assert (own["n_trials"] == TRIALS).all()


def test_the_check_of_every_predictor(store: Store, rows: pd.DataFrame) -> None:
    check = store.query("FROM predictor_check").set_index(KEY)
    changes = store.query("FROM predicted_change").set_index([*KEY, "image_id"]).sort_index()
    assert len(check) == 2 * (2 * 4 + 1)
    for key, row in check.iterrows():
        output, _, degradation, level = key
        measured = empirical(rows, output, degradation, level)
        own = changes.loc[key].loc[measured.index]
        x, y = own["deviation"].to_numpy(), measured["deviation"].to_numpy()
        rms = np.sqrt(own["mean_change"] ** 2 + own["deviation"] ** 2)
        pearson, spearman = stats.pearsonr(x, y), stats.spearmanr(x, y)
        assert row["n"] == IMAGES
        assert row["pearson"] == pytest.approx(pearson.statistic, abs=1e-9)
        assert row["spearman"] == pytest.approx(spearman.statistic, abs=1e-9)
        assert row["pearson_rms"] == pytest.approx(stats.pearsonr(rms, measured["rms"]).statistic, abs=1e-9)
        assert row["spearman_rms"] == pytest.approx(stats.spearmanr(rms, measured["rms"]).statistic, abs=1e-9)
        interval = pearson.confidence_interval(0.95)
        assert (row["pearson_low"], row["pearson_high"]) == pytest.approx((interval.low, interval.high), abs=1e-9)
        z, half = (
            np.arctanh(spearman.statistic),
            1.959963984540054 * np.sqrt((1 + spearman.statistic**2 / 2) / (IMAGES - 3)),
        )
        assert (row["spearman_low"], row["spearman_high"]) == pytest.approx((np.tanh(z - half), np.tanh(z + half)))
        slope = np.linalg.lstsq(x[:, None], y, rcond=None)[0].item()
        residual = y - slope * x
        error = np.sqrt((x**2 * residual**2).sum() * IMAGES / (IMAGES - 1)) / (x**2).sum()
        assert row["slope"] == pytest.approx(slope, rel=1e-9)
        assert row["slope_high"] - row["slope_low"] == pytest.approx(2 * 1.959963984540054 * error, rel=1e-6)


def test_the_ceiling_of_the_trials(tmp_path: Path) -> None:
    """The ceiling is the correlation of known deviations with measured ones, for few and for many trials."""
    rng = np.random.default_rng(4)
    images, found = 400, []
    truth = np.exp(rng.normal(0, 0.3, images))
    for level, trials in ((1.0, 5), (2.0, 10), (4.0, 40)):
        values = rng.normal(size=(images, trials)) * truth[:, None]
        found += [
            {"run_id": "r", "dataset": "d", "image_id": f"i{i}", "model": "s/m", "architecture": "m", "defense": "none",
             "degradation": "g", "level": level, "trial": t, "label": 0, "prediction": 0, "confidence": 0.5,
             "true_probability": 0.5, "true_rank": 1, "reference_logit": values[i, t], "reference_probability": 0.5}
            for i in range(images) for t in range(trials)
        ]  # fmt: skip
    empty = pd.DataFrame(columns=SENSITIVITY.names), pd.DataFrame(columns=SENSITIVITY_PREDICTIONS.names)
    store = scored_store(tmp_path, pd.DataFrame(found), *empty)
    view = store.query("FROM trial_ceiling WHERE output = 'logit' ORDER BY level")
    measured = store.query("FROM empirical_sensitivity WHERE output = 'logit'")
    for row in view.itertuples():
        own = measured[measured["level"] == row.level]
        order = own["image_id"].str[1:].astype(int)
        agreement = stats.pearsonr(np.log(truth[order]), np.log(own["deviation"])).statistic
        assert row.ceiling == pytest.approx(agreement, abs=0.05)
        assert row.n == images
    assert view["ceiling"].is_monotonic_increasing
    # All probabilities are equal: without variance there is nothing to rank.
    assert store.query("FROM trial_ceiling WHERE output = 'probability'").empty


@pytest.mark.parametrize("x", [1.0, 2.0, 4.5, 30.0])
def test_trigamma(store: Store, x: float) -> None:
    assert store.query("SELECT trigamma(?) AS y", [x])["y"][0] == pytest.approx(
        polygamma(1, x), rel=2e-2 if x < 2 else 2e-4
    )


def test_undefined_correlations_have_no_interval(store: Store) -> None:
    row = store.query(
        "SELECT correlation_bound('nan'::DOUBLE, 100, -1, 1) AS a, correlation_bound(NULL, 100, 1, 1) AS b"
    )
    assert row.isna().all().all()


def test_the_check_of_the_paper_is_its_row(store: Store) -> None:
    own = store.query("FROM sensitivity_check ORDER BY output, degradation, level")
    row = store.query("FROM predictor_check WHERE predictor = 'paper' ORDER BY output, degradation, level")
    pd.testing.assert_frame_equal(own, row[own.columns])


def test_the_predicted_label_change(store: Store, rows: pd.DataFrame, scores: pd.DataFrame) -> None:
    view = store.query("FROM predicted_label_change")
    view = view.set_index(["predictor", "degradation", "level", "image_id"]).sort_index()
    assert len(view) == IMAGES * 9
    margin = scores[scores["output"] == "margin"]["margin"].to_numpy().copy()
    ids = [f"i{i}" for i in range(IMAGES)]
    for degradation in FIRST_ORDER:
        level = LEVELS[degradation][0]
        change = first_order(columns_of(scores), degradation, level)
        own = view.loc[("gradient", degradation, level)].loc[ids]
        np.testing.assert_allclose(own["predicted"], label_change(torch.from_numpy(margin), change), atol=2e-7)
        here = rows[(rows["degradation"] == degradation) & (rows["level"] == level)]
        measured = here.groupby("image_id")["prediction"].apply(lambda p: (p != 0).mean())[ids]
        np.testing.assert_allclose(own["measured"], measured, rtol=1e-12)
        np.testing.assert_allclose(own["confidence"], 0.5 + np.arange(IMAGES) / 100, rtol=1e-6)


@pytest.mark.parametrize("z", [-40.0, -8.0, -3.0, -0.5, 0.0, 0.7, 2.0, 9.0])
def test_the_normal_distribution(store: Store, z: float) -> None:
    found = store.query("SELECT normal_cdf(?) AS p", [z])["p"][0]
    assert found == pytest.approx(stats.norm.cdf(z), abs=1e-7)


def test_scores_of_a_resumed_run_count_once(
    store: Store, scores: pd.DataFrame, predicted: pd.DataFrame, tmp_path: Path
) -> None:
    other = Store(tmp_path)
    other.open()
    for run_id, protocol in (("r", "p"), ("again", "p"), ("other", "q")):
        other.begin_run(run_id, "test", protocol, {}, {})
    for run_id in ("r", "again", "other"):
        parts = new_attempt(tmp_path)
        for kind, table, schema in (
            ("sensitivity", scores, SENSITIVITY),
            ("sensitivity_predictions", predicted, SENSITIVITY_PREDICTIONS),
        ):
            table = pa.Table.from_pandas(table.assign(run_id=run_id), preserve_index=False).select(schema.names)
            write_part(parts, kind, "a", table)
            write_part(parts, kind, "b", table)
        if run_id != "again":
            other.ingest()
    other.ingest()
    for question in (
        "SELECT run_id, count(*) AS n FROM sensitivity GROUP BY ALL ORDER BY run_id",
        "SELECT run_id, count(*) AS n FROM sensitivity_predictions GROUP BY ALL ORDER BY run_id",
    ):
        counts = other.query(question)
        assert counts["n"].tolist() == [IMAGES * 3] * 2
        assert counts["run_id"].tolist() == ["other", "r"]


def test_what_is_missing(store: Store) -> None:
    wanted = pd.DataFrame(
        [
            ("s/m", "none", "", "none", 0.0),
            ("s/m", "none", "sampling(copies=3)", "gaussian_rgb", 4.0),
            ("s/m", "none", "sampling(copies=3)", "gaussian_rgb", 1.0),
            ("s/m", "none", "cubature", "translation", 0.5),
        ],
        columns=["model", "defense", "predictor", "degradation", "level"],
    )
    missing = store.missing("p", "d", ["i0", "new"], wanted)
    found = set(missing[["image_id", "predictor", "degradation", "level"]].itertuples(index=False, name=None))
    absent = {("sampling(copies=3)", "gaussian_rgb", 1.0), ("cubature", "translation", 0.5)}
    both = {("", "none", 0.0), ("sampling(copies=3)", "gaussian_rgb", 4.0)}
    assert found == {("i0", *c) for c in absent} | {("new", *c) for c in absent | both}
