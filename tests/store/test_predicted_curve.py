"""Predicted curves, the figure of them, and recalibrated predictions, from a store of invented rows and scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cnnsens_bench import open_results
from cnnsens_bench.figures.__main__ import main
from cnnsens_bench.store import Store
from tests.store.scored import IMAGES, LEVELS, predicted_rows, score_rows, scored_store, sweep_rows


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    return score_rows()


@pytest.fixture(scope="module")
def store(scores: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two networks are scored. Only the first has degraded passes, and only half of its images has them at σ=1."""
    rows = sweep_rows()
    left_out = (
        (rows["degradation"] == "gaussian_rgb") & (rows["level"] == 1) & rows["image_id"].str.endswith(tuple("13579"))
    )
    both = pd.concat([scores, scores.assign(model="s/other")])
    return scored_store(tmp_path_factory.mktemp("curve"), rows[~left_out], both, predicted_rows(scores))


def test_a_curve_is_the_mean_over_images(store: Store, scores: pd.DataFrame) -> None:
    curve = store.query("FROM predicted_curve").set_index(["model", "predictor", "degradation", "level"]).sort_index()
    margins = scores[scores["output"] == "margin"]
    for sigma in (1.0, 4.0, 64.0):
        each = stats.norm.cdf(-margins["margin"] / (sigma * np.sqrt(margins["grad_sq_norm"])))
        row = curve.loc[("s/m", "gradient", "gaussian_rgb", sigma)]
        assert row["value"] == pytest.approx(each.mean(), abs=1e-6)
        assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * each.std(ddof=1) / IMAGES**0.5, rel=1e-3)
        assert (row["passes"], row["n_images"]) == (2, IMAGES)
    assert set(curve.index.get_level_values("predictor")) == {"gradient", "sampling(copies=3)"}
    assert len(curve.loc[("s/m", "gradient", "translation")]) == 6


def test_it_has_the_measured_value_where_there_is_one(store: Store) -> None:
    curve = store.query("FROM predicted_curve").set_index(["model", "predictor", "degradation", "level"]).sort_index()
    measured = store.query("FROM label_change").set_index(["degradation", "level"])
    for degradation, level in (("gaussian_rgb", 4.0), ("pepper_pixel", 0.01)):
        row, own = curve.loc[("s/m", "gradient", degradation, level)], measured.loc[(degradation, level)]
        assert tuple(row[["measured", "measured_low", "measured_high"]]) == pytest.approx(
            tuple(own[["value", "low", "high"]])
        )
        assert row["error"] == pytest.approx(row["value"] - own["value"])
    assert curve.loc["s/other"]["measured"].isna().all()
    seen = curve.loc[("s/m", "gradient")].dropna(subset=["measured"])
    assert set(seen.index) == {(n, level) for n, levels in LEVELS.items() if n != "flip_lr" for level in levels}


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_figure_says_how_far_predictions_are_off(store: Store, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"figure.{ending}"
    assert main(["predicted-curves", "--db", str(store.path), "--out", str(out)]) == 0
    assert out.stat().st_size > 5000
    if ending == "svg":
        error = store.query("SELECT avg(abs(error)) AS e FROM predicted_curve WHERE predictor = 'gradient'")["e"][0]
        text = out.read_text()
        assert f"s/m: off by {100 * error:.1f} points on average" in text
        assert "s/other: not measured" in text


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--defense", "moat"], "has no sensitivity scores for the defense 'moat'"),
        (["--dataset", "e"], "has no sensitivity scores for the defense 'none' on 'e': it has d"),
        (["--predictor", "oracle"], "has no scores of the predictor 'oracle': known are gradient, sampling(copies=3)"),
    ],
)
def test_what_was_not_scored_is_one_sentence(
    store: Store, tmp_path: Path, more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predicted-curves", "--db", str(store.path), "--out", str(tmp_path / "a.png"), *more]) == 2
    assert sentence in capsys.readouterr().err


def test_images_without_trials_are_recalibrated_too(store: Store) -> None:
    table = open_results(store.path).recalibrated_label_change()
    own = table[
        (table["predictor"] == "gradient") & (table["degradation"] == "gaussian_rgb") & (table["model"] == "s/m")
    ]
    assert len(own) == 2 * IMAGES
    assert own["measured"].isna().sum() == IMAGES // 2
    assert (own["n_trials"] == 0).sum() == IMAGES // 2
    assert own["recalibrated"].between(0, 1).all()
    seen = own.dropna(subset=["measured"])
    error, before = ((seen[name] - seen["measured"]).abs().mean() for name in ("recalibrated", "predicted"))
    assert error < before
    other = table[table["model"] == "s/other"]
    assert (other["recalibrated"] == other["predicted"]).all()
