"""Selective prediction equals plain computations: areas, accuracies at coverage, thresholds and curves."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score

from cnnsens_bench import Results, UserError, open_results
from cnnsens_bench.figures.__main__ import main
from cnnsens_bench.measures.selective import accuracy_threshold, risk_coverage_curve, selection
from tests.leaderboard.made import sweep, write
from tests.store.scored import predicted_rows, score_rows, scored_store, sweep_rows

CONDITIONS = {("gaussian_rgb", 8.0): 3, ("gaussian_rgb", 16.0): 3, ("jpeg", 30.0): 1, ("flip_lr", 0.0): 1}
PROTOCOLS = {"r1": "p", "r2": "p", "r3": "q"}
ENTRANT = ["protocol", "dataset", "model", "defense"]
CONDITION = [*ENTRANT, "degradation", "level"]
SCORED = {"protocol": "p", "dataset": "d", "model": "s/m", "defense": "none"}


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Return rows of three runs. Those of the second have a budget: half of the degraded cells, by chance."""
    parts = [
        sweep("r1", "d", range(15), 0, ("timm/b",), conditions=CONDITIONS),
        sweep("r2", "d", range(15, 30), 1, ("timm/b",), conditions=CONDITIONS),
        sweep("r1", "e", range(9), 2, ("timm/c",), ("none",), conditions=CONDITIONS),
        sweep("r3", "d", range(12), 3, ("timm/b",), ("none",), conditions=CONDITIONS),
    ]
    table = pd.concat(parts, ignore_index=True)
    taken = np.random.default_rng(0).random(len(table)) < np.where(table["run_id"] == "r2", 0.5, 1)
    table = table[taken | (table["degradation"] == "none")].reset_index(drop=True)
    # Rounded confidences are often equal, and are the same number as float32.
    return table.assign(confidence=(table["confidence"] * 16).round() / 16)


@pytest.fixture(scope="module")
def results(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Results:
    failures = pd.DataFrame({"run_id": "r1", "dataset": "d", "image_id": ["i900"], "stage": "decode", "error": "no"})
    return open_results(write(tmp_path_factory.mktemp("selective"), rows, PROTOCOLS, failures=failures))


@pytest.fixture(scope="module")
def table(results: Results) -> pd.DataFrame:
    return results.selective_accuracy(accuracy=0.85, resamples=60)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return results with scores, of a network that is wrong on every fourth undegraded image."""
    sweep_table, scores = sweep_rows(), score_rows()
    undegraded = sweep_table["degradation"] == "none"
    wrong = undegraded & (sweep_table["image_id"].str[1:].astype(int) % 4 == 0)
    sweep_table.loc[wrong, "prediction"] = 1
    scores = scores[scores["image_id"] != "i5"]  # an image without a score
    return open_results(
        scored_store(tmp_path_factory.mktemp("scored"), sweep_table, scores, predicted_rows(scores)).path
    )


def plain(values: np.ndarray, wrong: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return kept weight and errors after each prediction, which share the errors of their tie, and the order."""
    order = sorted(range(len(values)), key=lambda i: -values[i])
    errors = []
    for i in order:
        tie = np.flatnonzero(values == values[i])
        errors.append(weights[i] * (wrong[tie] * weights[tie]).sum() / weights[tie].sum())
    return np.cumsum(weights[order]), np.cumsum(errors), np.array(order)


def plain_area(values: np.ndarray, wrong: np.ndarray, weights: np.ndarray) -> float:
    kept, errors, order = plain(values, wrong, weights)
    return float((weights[order] * errors / kept).sum() / kept[-1])


def plain_accuracy(values: np.ndarray, wrong: np.ndarray, weights: np.ndarray, coverage: float) -> float:
    kept, errors, _ = plain(values, wrong, weights)
    wanted = coverage * kept[-1]
    return float(1 - np.interp(wanted, [0, *kept], [0, *errors]) / wanted)


def parts(own: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    own = own.sort_values(["image_id", "trial"])
    weights = 1 / own.groupby("image_id")["trial"].transform("count").to_numpy()
    return own["confidence"].to_numpy(), (own["prediction"] != own["label"]).to_numpy(), weights


def test_ties_count_as_in_any_order_on_average() -> None:
    score, wrong = np.array([0.9, 0.5, 0.5, 0.5, 0.5, 0.2]), np.array([0, 1, 0, 0, 1, 1])
    areas, accuracies = [], []
    for order in itertools.permutations(range(1, 5)):
        errors = np.cumsum(wrong[[0, *order, 5]])
        areas.append(np.mean(errors / np.arange(1, 7)))
        accuracies.append(1 - errors[2] / 3)
    found = selection(score, wrong, np.ones(6), coverage=0.5)
    assert found.aurc == pytest.approx(np.mean(areas))
    assert found.accuracy == pytest.approx(np.mean(accuracies))


def test_without_ties_it_is_the_accuracy_of_the_first() -> None:
    rng = np.random.default_rng(0)
    label, score = rng.integers(0, 3, 200), rng.permutation(200) / 200
    prediction = np.where(rng.random(200) < score, label, (label + 1) % 3)
    kept = np.argsort(-score)[:180]
    found = selection(score, prediction != label, np.ones((2, 200)))
    assert found.accuracy.tolist() == pytest.approx([accuracy_score(label[kept], prediction[kept])] * 2)
    errors = np.cumsum((prediction != label)[np.argsort(-score)])
    assert found.aurc[1] == pytest.approx(np.mean(errors / np.arange(1, 201)))
    risk, threshold = risk_coverage_curve(score, prediction != label, np.ones(200), np.array([0.05, 0.9, 1]))
    assert risk.tolist() == pytest.approx([errors[9] / 10, errors[179] / 180, errors[-1] / 200])
    assert threshold.tolist() == pytest.approx(np.sort(score)[::-1][[9, 179, 199]].tolist())


def test_a_certain_error_leaves_no_threshold() -> None:
    threshold, kept = accuracy_threshold(np.array([0.9, 0.8]), np.array([True, False]), np.ones(2), 0.8)
    assert np.isnan(threshold)
    assert kept == 0


def test_tables_view_and_curves_equal_a_plain_computation(
    results: Results, table: pd.DataFrame, rows: pd.DataFrame
) -> None:
    own_rows = rows.assign(protocol=rows["run_id"].map(PROTOCOLS))
    expected = {key: parts(own) for key, own in own_rows.groupby(CONDITION)}
    view = results.confidence_selection.set_index(CONDITION)
    confident = table[table["score"] == "confidence"].set_index(CONDITION)
    curves = results.risk_coverage()
    curves = curves[curves["score"] == "confidence"].set_index([*CONDITION, "coverage"])
    assert set(view.index) == set(confident.index) == set(expected)
    for key, given in expected.items():
        area, accuracy = plain_area(*given), plain_accuracy(*given, 0.9)
        assert view.loc[key, ["aurc", "accuracy_at_90"]].tolist() == pytest.approx([area, accuracy])
        assert confident.loc[key, ["aurc", "accuracy", "gain"]].tolist() == pytest.approx([area, accuracy, 0])
        assert confident["low"][key] <= area <= confident["high"][key]
        assert view["n_images"][key] == confident["n_images"][key] == round(given[2].sum())
        for coverage in (0.2, 0.55, 1.0):
            assert curves["risk"][(*key, coverage)] == pytest.approx(1 - plain_accuracy(*given, coverage))


def test_thresholds_equal_a_plain_computation(table: pd.DataFrame, rows: pd.DataFrame) -> None:
    own_rows = rows.assign(protocol=rows["run_id"].map(PROTOCOLS), wrong=rows["prediction"] != rows["label"])
    own_rows["weight"] = 1 / own_rows.groupby([*CONDITION, "image_id"])["trial"].transform("count")
    found = table[table["score"] == "confidence"].set_index(CONDITION)
    refused = 0
    for entrant, own in own_rows.groupby(ENTRANT):
        before = own[own["degradation"] == "none"]
        enough = [
            t for t in before["confidence"].unique() if before.loc[before["confidence"] >= t, "wrong"].mean() <= 0.15
        ]
        threshold = min(enough, default=np.nan)
        for condition, part in own.groupby(["degradation", "level"]):
            row, kept = found.loc[(*entrant, *condition)], part[part["confidence"] >= threshold]
            assert row["threshold"] == pytest.approx(threshold, nan_ok=True)
            assert row["kept_undegraded"] == pytest.approx((before["confidence"] >= threshold).mean())
            assert row["kept"] == pytest.approx(kept["weight"].sum() / part["weight"].sum())
            accuracy = 1 - np.average(kept["wrong"], weights=kept["weight"]) if len(kept) else np.nan
            assert row["kept_accuracy"] == pytest.approx(accuracy, nan_ok=True)
            refused += 0 < row["kept"] < 1
    assert refused > 10


def test_intervals_are_those_of_a_loop_over_resamples(scored: Results) -> None:
    key = {**SCORED, "degradation": "gaussian_rgb", "level": 4.0}
    found = scored.selective_accuracy(accuracy=0.9, resamples=50)
    row = found[(found[list(key)] == list(key.values())).all(axis=1) & (found["score"] == "margin")].squeeze()
    own = scored.query("FROM predictions WHERE degradation = 'gaussian_rgb' AND level = 4 AND image_id <> 'i5'")
    margin = scored.query("FROM sensitivity WHERE output = 'margin'").set_index("image_id")["margin"]
    images = sorted(own["image_id"].unique())
    own = own.sort_values(["image_id", "trial"])
    wrong, number = (own["prediction"] != own["label"]).to_numpy(), own["image_id"].map(images.index).to_numpy()
    scores = own["image_id"].map(margin).to_numpy(), own["confidence"].to_numpy(float)
    draws = np.random.default_rng(0).multinomial(len(images), np.full(len(images), 1 / len(images)), 50)
    areas = np.array([[plain_area_drawn(one, wrong, counts[number]) for one in scores] for counts in draws])
    value, baseline = (plain_area(one, wrong, np.full(len(own), 0.1)) for one in scores)
    gains = areas[:, 1] - areas[:, 0]
    assert [row["aurc"], row["gain"]] == pytest.approx([value, baseline - value])
    low, high = np.quantile(areas[:, 0], [0.025, 0.975])
    assert [row["low"], row["high"]] == pytest.approx([min(low, value), max(high, value)])
    low, high = np.quantile(gains, [0.025, 0.975])
    assert [row["gain_low"], row["gain_high"]] == pytest.approx([min(low, row["gain"]), max(high, row["gain"])])


def plain_area_drawn(values: np.ndarray, wrong: np.ndarray, counts: np.ndarray) -> float:
    drawn = counts > 0
    return plain_area(values[drawn], wrong[drawn], 0.1 * counts[drawn])


def test_scores_of_the_gradient(scored: Results) -> None:
    """A predictor's score is the label change that it expects; images without a score are left out."""
    found = scored.selective_accuracy(accuracy=0.8, resamples=0)
    assert found[["low", "high", "gain_low", "accuracy_high"]].isna().all(axis=None)
    found = found[(found["degradation"] == "gaussian_rgb") & (found["level"] == 4)].set_index("score")
    assert list(found.index) == ["confidence", "undegraded_confidence", "margin", "gradient", "sampling(copies=3)"]
    assert found["n_images"].tolist() == [40, 40, 39, 39, 39]
    expected = scored.query("FROM predicted_label_change WHERE degradation = 'gaussian_rgb' AND level = 4")
    own = scored.query("FROM predictions WHERE degradation IN ('none', 'gaussian_rgb') AND level IN (0, 4)")
    for predictor in ("gradient", "sampling(copies=3)"):
        change = expected[expected["predictor"] == predictor].set_index("image_id")["predicted"]
        here = own.assign(value=-own["image_id"].map(change), wrong=own["prediction"] != own["label"]).dropna(
            subset="value"
        )
        before, rows = here[here["level"] == 0], here[here["level"] == 4].sort_values(["image_id", "trial"])
        given = rows["value"].to_numpy(), rows["wrong"].to_numpy(), np.full(len(rows), 0.1)
        assert found["aurc"][predictor] == pytest.approx(plain_area(*given))
        threshold = min(t for t in before["value"] if before.loc[before["value"] >= t, "wrong"].mean() <= 0.2)
        assert found["threshold"][predictor] == pytest.approx(threshold)
        kept = rows[rows["value"] >= threshold]
        assert found["kept"][predictor] == pytest.approx(len(kept) / len(rows))
        assert found["kept_accuracy"][predictor] == pytest.approx(1 - kept["wrong"].mean())


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"accuracy": 95}, "accuracy=95 is not in"),
        ({"coverage": 0}, "coverage=0 is not in"),
        ({"model": "timm/x"}, "has no model 'timm/x': it has timm/b, timm/c"),
        ({"dataset": "e", "model": "timm/b"}, "has no model 'timm/b' of the dataset 'e': it has timm/c"),
    ],
)
def test_wrong_requests_are_one_sentence(results: Results, wanted: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        results.selective_accuracy(resamples=0, **wanted)


def test_an_entrant_can_be_chosen(results: Results) -> None:
    found = results.selective_accuracy(resamples=0, model="timm/b", dataset="d", defense="none", protocol="q")
    assert len(found) == len(CONDITIONS) * 2 + 1
    assert set(found["protocol"]) == {"q"}


def test_the_figure(scored: Results, results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, database = tmp_path / "figure.svg", str(scored.database)
    assert main(["risk-coverage", "--db", database, "--out", str(out)]) == 0
    text = out.read_text()
    for name in ("by confidence", "by gradient", "σ=4", "flip_lr"):
        assert f"<!-- {name} -->" in text
    assert main(["risk-coverage", "--db", database, "--out", str(out), "--score", "margins"]) == 2
    assert "has no score 'margins' of s/m: it has confidence, gradient, margin" in capsys.readouterr().err
    assert main(["risk-coverage", "--db", str(results.database), "--out", str(out)]) == 2
    assert "entrants that fit, choose one: model timm/b, defense none, dataset d, protocol p" in capsys.readouterr().err
    assert main(["risk-coverage", "--db", str(results.database), "--out", str(out), "--dataset", "e"]) == 0
    text = out.read_text()
    assert [name in text for name in ("<!-- jpeg -->", "<!-- by confidence -->", "by gradient")] == [True, True, False]
