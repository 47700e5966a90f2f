"""The intervals of the SQL views and of `measures` are equal. Trials are nested in images."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from cnnsens_bench import measures
from cnnsens_bench.store import Store, new_attempt, write_part
from tests.store.part_schemas import PREDICTIONS


def test_sql_and_python_agree_at_the_edges(tmp_path: Path) -> None:
    """The cases: all right, none right, one image, equal thirds (whose variance is only rounding), unequal trials."""
    cases = {
        "all": [[1, 1], [1, 1]],
        "none": [[0], [0], [0]],
        "one image": [[1]],
        "one image, trials": [[1, 0, 1]],
        "thirds": [[1, 0, 0]] * 11,
        "opposite": [[1, 1], [0, 0], [1, 1]],
        "less than binomial": [[1, 0]] * 9 + [[1, 1]],
        "unequal": [[1], [0, 1, 1], [0], [1, 0]],
    }
    store = Store(tmp_path)
    store.open()
    store.begin_run("r", "test", "p", {}, {})
    rows = [
        dict.fromkeys(PREDICTIONS.names)
        | {"run_id": "r", "dataset": "d", "image_id": f"i{i}", "model": model, "architecture": "m", "defense": "none"}
        | {"degradation": "g", "level": 1.0, "trial": trial, "label": 1, "prediction": hit}
        for model, images in cases.items()
        for i, trials in enumerate(images)
        for trial, hit in enumerate(trials)
    ]
    write_part(new_attempt(tmp_path), "predictions", "a", pa.Table.from_pylist(rows, schema=PREDICTIONS))
    store.ingest()
    view = store.query("FROM accuracy").set_index("model")
    for model, images in cases.items():
        means = np.array([np.mean(trials) for trials in images])
        expected = measures.clustered_interval(means, max(map(len, images)))
        row = view.loc[model]
        found = (row["value"], row["low"], row["high"], row["n_images"], row["n_trials"])
        assert found == pytest.approx(
            (expected.value, expected.low, expected.high, expected.n_images, expected.n_trials)
        ), model
        assert 0 <= expected.low <= expected.value <= expected.high <= 1


def test_one_trial_an_image_is_nearly_wilsons_interval() -> None:
    """It is so nearly: the sample variance divides by n − 1."""
    hits = np.random.default_rng(0).random(4000) < 0.3
    estimate = measures.clustered_interval(hits.astype(float), 1)
    wilson = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((wilson.low, wilson.high), abs=1e-5)


def test_equal_images_are_as_many_as_there_are() -> None:
    thirds = measures.clustered_interval(np.full(11, 1 / 3), 3)
    assert (thirds.low, thirds.high) == pytest.approx(stats_wilson(1 / 3, 11))


def stats_wilson(share: float, n: float) -> tuple[float, float]:
    z = stats.norm.ppf(0.975)
    centre, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)


def test_the_bootstrap_over_images_agrees() -> None:
    rng = np.random.default_rng(3)
    means = rng.binomial(10, rng.beta(0.5, 0.8, 400)) / 10
    estimate = measures.clustered_interval(means, 10)
    resampled = means[rng.integers(0, 400, (4000, 400))].mean(axis=1)
    assert (estimate.low, estimate.high) == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.006)


def test_no_images_have_no_share() -> None:
    with pytest.raises(ValueError, match="no images"):
        measures.clustered_interval(np.array([]), 1)


def test_a_score_computed_twice_counts_once(tmp_path: Path) -> None:
    """The scores come from a run and from its resumption under another id."""
    store = Store(tmp_path)
    store.open()
    rng = np.random.default_rng(0)
    for run_id in ("a", "b"):
        store.begin_run(run_id, "test", "p", {}, {})
    rows = [
        dict.fromkeys(PREDICTIONS.names)
        | {"run_id": "a", "dataset": "d", "image_id": f"i{i}", "model": "m", "architecture": "m", "defense": "none"}
        | {"degradation": "gaussian_rgb", "level": 4.0, "trial": trial, "reference_logit": rng.normal()}
        for i in range(9)
        for trial in range(4)
    ]
    write_part(new_attempt(tmp_path), "predictions", "a", pa.Table.from_pylist(rows, schema=PREDICTIONS))
    store.ingest()
    scores = pd.DataFrame({"dataset": "d", "image_id": [f"i{i}" for i in range(9)], "model": "m", "defense": "none"})
    scores = scores.assign(output="logit", grad_sq_norm=rng.random(9))
    with store.connect() as connection:
        for run_id in ("a", "b"):
            connection.register("scores", scores.assign(run_id=run_id))
            connection.execute("INSERT INTO sensitivity BY NAME SELECT * FROM scores")
    assert store.query("SELECT n FROM sensitivity_check")["n"].tolist() == [9]
