"""The views against independent computations with pandas, scipy and `measures`."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from cnnsens_bench import measures
from cnnsens_bench.measures.intervals import clustered_share
from cnnsens_bench.store import Store, new_attempt, write_part
from tests.store.empty import empty_store
from tests.store.part_schemas import PREDICTIONS

GROUP = ["protocol", "dataset", "model", "defense", "degradation", "level"]


def frame() -> pd.DataFrame:
    """Return rows of two protocols (one over two runs), two data sets, models and defenses, with missing conditions."""
    rng = np.random.default_rng(0)
    rows = []
    runs = [("r1", "d", range(30)), ("r2", "d", range(30, 40)), ("r3", "d", range(25)), ("r1", "e", range(9))]
    for run_id, dataset, images in runs:
        for model in ("s/a", "s/b"):
            for defense in ("none", "f(x=1)"):
                for image in images:
                    label = image % 4
                    fragile = rng.random()
                    conditions = [
                        ("none", 0.0, 1),
                        ("gaussian_rgb", 4.0, 3),
                        ("gaussian_rgb", 8.0, 3),
                        ("flip_lr", 0.0, 1),
                    ]
                    for degradation, level, trials in conditions:
                        if (model == "s/b" and level == 8) or (degradation == "none" and image == 7 and dataset == "d"):
                            continue
                        for trial in range(trials - (image == 3)):
                            wrong = rng.random() < fragile * (0.2 + level / 10)
                            key = (run_id, dataset, f"i{image}", model, defense, degradation, level, trial)
                            predicted = (label + wrong * rng.integers(1, 4)) % 4
                            rows.append((*key, label, predicted, rng.random(), rng.normal()))
    names = [
        "run_id",
        "dataset",
        "image_id",
        "model",
        "defense",
        "degradation",
        "level",
        "trial",
        "label",
        "prediction",
    ]
    table = pd.DataFrame(rows, columns=[*names, "reference_probability", "reference_logit"])
    return table.assign(architecture=table["model"].str[2:], confidence=0.5, true_probability=0.5, true_rank=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = empty_store(tmp_path_factory.mktemp("views"))
    for run_id, protocol in (("r1", "p"), ("r2", "p"), ("r3", "q")):
        made.begin_run(run_id, "test", protocol, {}, {})
    rows = frame().reindex(columns=PREDICTIONS.names)
    write_part(new_attempt(made.output), "predictions", "a", pa.Table.from_pandas(rows, preserve_index=False))
    made.ingest()
    made.put("models", pd.DataFrame([{"model": "s/a", "dataset": "d", "defense": "none", "num_parameters": 12}]))
    return made


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return frame().assign(protocol=lambda t: t["run_id"].map({"r1": "p", "r2": "p", "r3": "q"}))


def test_agreement_is_the_share_of_equal_labels_under_the_same_draw(store: Store, table: pd.DataFrame) -> None:
    key = ["protocol", "dataset", "image_id", "degradation", "level", "trial"]
    reference = table[(table["model"] == "s/a") & (table["defense"] == "none")][[*key, "prediction"]]
    others = table[(table["model"] != "s/a") | (table["defense"] != "none")]
    pairs = others.merge(reference, on=key, suffixes=("", "_reference"))
    expected = {
        group: clustered_share(own["image_id"], own["prediction"] == own["prediction_reference"])
        for group, own in pairs.groupby(GROUP)
    }
    found = store.query("FROM agreement('s/a')")
    check(found, expected)
    assert list(found.columns) == list(store.query("FROM label_change").columns)
    assert found["value"].between(0, 1).all()
    assert found["value"].nunique() > 5
    assert store.query("FROM agreement('s/none')").empty


def check(view: pd.DataFrame, expected: dict[tuple, measures.IntervalEstimate]) -> None:
    assert len(view) == len(expected)
    for row in view.itertuples():
        estimate = expected[tuple(getattr(row, key) for key in GROUP)]
        found = (row.value, row.low, row.high, row.n_images, row.n_trials)
        assert found == pytest.approx(
            (estimate.value, estimate.low, estimate.high, estimate.n_images, estimate.n_trials)
        )


def test_accuracy(store: Store, table: pd.DataFrame) -> None:
    expected = {key: measures.accuracy(g["image_id"], g["label"], g["prediction"]) for key, g in table.groupby(GROUP)}
    check(store.query("FROM accuracy"), expected)


def test_label_change(store: Store, table: pd.DataFrame) -> None:
    keys = ["protocol", "dataset", "model", "defense", "image_id"]
    reference = table[table["degradation"] == "none"].set_index(keys)["prediction"].rename("reference")
    joined = table[table["degradation"] != "none"].join(reference, on=keys, how="inner")
    assert "i7" not in set(joined.loc[joined["dataset"] == "d", "image_id"])
    expected = {
        key: measures.label_change(g["image_id"], g["prediction"], g["reference"]) for key, g in joined.groupby(GROUP)
    }
    check(store.query("FROM label_change"), expected)


def test_leaderboard(store: Store, table: pd.DataFrame) -> None:
    view = store.query("FROM leaderboard").set_index(["protocol", "dataset", "model", "defense"])
    assert len(view) == len(table[["protocol", "dataset", "model", "defense"]].drop_duplicates())
    for key, row in view.iterrows():
        mine = table.set_index(["protocol", "dataset", "model", "defense"]).loc[[key]]
        right = (
            (mine["label"] == mine["prediction"]).groupby([mine["degradation"], mine["level"], mine["image_id"]]).mean()
        )
        by_level = right.groupby(level=[0, 1]).mean()
        degraded = by_level.drop(index="none", level=0)
        assert row["accuracy"] == pytest.approx(by_level["none", 0.0])
        assert row["mean_degraded_accuracy"] == pytest.approx(degraded.groupby(level=0).mean().mean())
        assert row["worst_accuracy"] == pytest.approx(degraded.min())
        assert row["n_conditions"] == len(degraded)
        assert degraded[row["worst_degradation"], row["worst_level"]] == pytest.approx(degraded.min())
    assert view.loc[("p", "d", "s/a", "none"), "num_parameters"] == 12
    assert pd.isna(view.loc[("p", "e", "s/a", "none"), "num_parameters"])


def test_of_equal_conditions_the_first_is_the_worst(tmp_path: Path) -> None:
    """Equal means of accuracies differ by rounding, as threads add the images' shares in any order."""
    rng, conditions = np.random.default_rng(0), [(name, level) for name in "cab" for level in (2.0, 1.0)]
    right = rng.random((300, 3)) < 0.5  # (image, trial): the same under every condition, for images in another order
    rows = [(f"i{image}", "none", 0.0, 0, 1) for image in range(300)]
    for name, level in conditions:
        for image, hits in enumerate(rng.permutation(right)):
            rows += [(f"i{image}", name, level, trial, int(hit)) for trial, hit in enumerate(hits)]
    table = pd.DataFrame(rows, columns=["image_id", "degradation", "level", "trial", "prediction"])
    table = table.assign(run_id="r", dataset="d", model="s/a", defense="none", label=1)
    made = empty_store(tmp_path, "r")
    with made.connect() as connection:
        connection.register("rows", table)
        connection.execute("INSERT INTO predictions BY NAME SELECT * FROM rows")
    for threads in (1, 2, 4):
        made.settings = {"threads": threads}
        worst = made.query("SELECT worst_degradation, worst_level, worst_accuracy FROM leaderboard")
        assert worst.values.tolist() == [["a", 1.0, pytest.approx(right.mean())]]


def test_defense_gain(store: Store, table: pd.DataFrame) -> None:
    """The view agrees with pairing by pandas, trial by trial, and each condition's estimate with `measures`."""
    hit = table.assign(hit=table["label"] == table["prediction"])
    pair = ["protocol", "dataset", "model", "degradation", "level", "image_id", "trial"]
    without = hit[hit["defense"] == "none"].set_index(pair)["hit"].rename("reference")
    paired = hit[hit["defense"] != "none"].join(without, on=pair, how="inner")
    expected = {
        key: measures.accuracy_gain(g["image_id"], g["hit"], g["reference"]) for key, g in paired.groupby(GROUP)
    }
    view = store.query("FROM defense_gain")
    assert set(view["defense"]) == {"f(x=1)"}
    check(view.rename(columns={"gain": "value"}), expected)
    for _, rows in view.groupby(["protocol", "dataset", "model", "defense"]):
        undegraded = rows.loc[rows["degradation"] == "none", "gain"].item()
        assert rows["undegraded_cost"].tolist() == pytest.approx([-undegraded] * len(rows))
    accuracy = store.query("FROM accuracy").set_index(GROUP)["value"]
    for row in view.itertuples():
        key = (row.protocol, row.dataset, row.model)
        condition = (row.degradation, row.level)
        difference = accuracy[(*key, row.defense, *condition)] - accuracy[(*key, "none", *condition)]
        assert row.gain == pytest.approx(difference)


def test_protocols_are_not_mixed(store: Store, table: pd.DataFrame) -> None:
    view = store.query("SELECT n_images FROM accuracy WHERE protocol = 'q' AND degradation = 'none'")
    assert set(view["n_images"]) == {23}  # 25 less one without and one with too few trials


def test_sensitivity_check(tmp_path: Path) -> None:
    """The view agrees with SciPy for each degradation that it covers, also with ties."""
    store = empty_store(tmp_path, "r")
    rng = np.random.default_rng(1)
    levels = {"gaussian_rgb": 4.0, "pepper_pixel": 0.01, "translation": 2.0}
    rows = [
        {"run_id": "r", "dataset": "d", "image_id": f"i{i}", "model": "s/m", "architecture": "m", "defense": "none",
         "degradation": name, "level": level, "trial": trial, "label": 0, "prediction": 0, "confidence": 0.5,
         "true_probability": 0.5, "true_rank": 1, "reference_logit": rng.normal() * (1 + i % 5),
         "reference_probability": rng.random()}
        for i in range(40) for name, level in levels.items() for trial in range(10)
    ]  # fmt: skip
    write_part(new_attempt(tmp_path), "predictions", "a", pa.Table.from_pylist(rows, schema=PREDICTIONS))
    store.ingest()
    scores = pd.DataFrame(rng.random((40, 5)).round(1), columns=["grad_sq_norm", "pepper_sum", "pepper_sq_norm", "shift_x", "shift_y"])  # fmt: skip  # noqa: E501
    scores = scores.assign(run_id="r", dataset="d", image_id=[f"i{i}" for i in range(40)], model="s/m", defense="none")
    insert_sensitivity(store, scores)
    check = store.query("FROM sensitivity_check").set_index(["output", "degradation"])
    assert len(check) == 6
    table = pd.DataFrame(rows).astype({"reference_logit": np.float32, "reference_probability": np.float32})
    s = scores.set_index("image_id")
    variance = {
        "gaussian_rgb": 16 * s["grad_sq_norm"],
        "pepper_pixel": 1e-4 * s["pepper_sum"] ** 2 + 0.0099 * s["pepper_sq_norm"],
        "translation": 4 * (s["shift_x"] ** 2 + s["shift_y"] ** 2),
    }
    for (output, degradation), row in check.iterrows():
        here = table[table["degradation"] == degradation]
        empirical = here.groupby("image_id")[f"reference_{output}"].std()
        predicted = np.sqrt(variance[degradation])[empirical.index]
        assert row["n"] == 40
        assert row["pearson"] == pytest.approx(stats.pearsonr(predicted, empirical).statistic, abs=1e-5)
        assert row["spearman"] == pytest.approx(stats.spearmanr(predicted, empirical).statistic, abs=1e-6)


def insert_sensitivity(store: Store, scores: pd.DataFrame) -> None:
    with store.connect() as connection:
        for output in ("logit", "probability"):
            connection.register("scores", scores.assign(output=output))
            connection.execute("INSERT INTO sensitivity BY NAME SELECT * FROM scores")
