"""Figures 5 and 6, predictors and label change from a store, and the report that ends a run with scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console
from scipy import stats

from cnnsens_bench.figures.__main__ import main
from cnnsens_bench.figures.fragile import compare_hues
from cnnsens_bench.figures.label_change import label_change_check
from cnnsens_bench.figures.sensitivity_summary import sensitivity_report
from cnnsens_bench.measures.skill import brier_score, prediction_skill
from cnnsens_bench.store import Store
from tests.store.scored import IMAGES, predicted_rows, score_rows, scored_store, sweep_rows

FIGURES = ["fig5", "fig6", "predictors", "label-change"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("scored")
    scores = score_rows()
    made = scored_store(folder, sweep_rows(), scores, predicted_rows(scores))
    rng = np.random.default_rng(0)
    pictures = []
    for i in range(IMAGES):
        uri = folder / f"i{i}.png"
        if i:  # one is gone
            Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(uri)
        pictures.append(
            {"dataset": "d", "split": "test", "image_id": f"i{i}", "uri": str(uri), "label": 0, "class_name": "<b>bird",
             "box_x": 2.0, "box_y": 2.0, "box_w": 20.0, "box_h": 15.0, "width": 30, "height": 20,
             "hue_entropy": rng.random()}
        )  # fmt: skip
    made.put("images", pd.DataFrame(pictures))
    return made


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_each_is_drawn_from_the_store(store: Store, tmp_path: Path, figure: str, ending: str) -> None:
    out = tmp_path / f"figure.{ending}"
    assert main([figure, "--db", str(store.path), "--out", str(out)]) == 0
    assert out.stat().st_size > 5000


def test_titles_hold_the_correlations(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "fig6.svg"
    main(["fig6", "--db", str(store.path), "--out", str(out), "--output", "probability"])
    text = out.read_text()
    row = store.query(
        "FROM sensitivity_check WHERE degradation = 'gaussian_rgb' AND level = 4 AND output = 'probability'"
    ).iloc[0]
    assert f"r = {row['pearson']:.2f}, ρ = {row['spearman']:.2f}" in text


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            ["--model", "s/other"],
            "has 0 scored entrants that fit, choose one: model s/m, defense none, dataset d, protocol p",
        ),
        (["--protocol", "q"], "has 0 scored entrants that fit"),
        (["--defense", "moat"], "has 0 scored entrants that fit"),
    ],
)
def test_what_was_not_scored_is_one_sentence(
    store: Store, tmp_path: Path, figure: str, more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([figure, "--db", str(store.path), "--out", str(tmp_path / "a.png"), *more]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("figure", FIGURES)
def test_a_store_without_scores(tmp_path: Path, figure: str, capsys: pytest.CaptureFixture[str]) -> None:
    empty = Store(tmp_path / "empty")
    empty.open()
    assert main([figure, "--db", str(empty.path), "--out", str(tmp_path / "a.png")]) == 2
    assert "has no sensitivity scores: a run with sensitivity=on makes them" in capsys.readouterr().err


def test_the_hues_of_both_ends() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"hue_entropy": np.concatenate([rng.normal(6, 1, 400), rng.normal(5, 1, 400)])})
    many = compare_hues(table)
    least, most = table["hue_entropy"][:100], table["hue_entropy"][-100:]
    assert (many.n, many.least, many.most) == (100, pytest.approx(least.mean()), pytest.approx(most.mean()))
    expected = stats.mannwhitneyu(least, most, use_continuity=False, method="asymptotic").pvalue
    assert many.p == pytest.approx(expected, rel=1e-6)
    assert "sixths" not in many.sentence()
    few = compare_hues(table.iloc[::10])
    assert few.n == 80 // 6
    assert "(the outer sixths)" in few.sentence()
    with pytest.raises(ValueError, match="too few"):
        compare_hues(table.head(5))


def test_label_change_check_is_what_the_measures_say(store: Store) -> None:
    table = store.query("FROM predicted_label_change")
    check = label_change_check(table).set_index(["degradation", "level", "score"])
    own = table[(table["predictor"] == "gradient") & (table["degradation"] == "gaussian_rgb") & (table["level"] == 4)]
    row = check.loc[("gaussian_rgb", 4.0, "gradient")]
    own = own.sort_values("image_id")
    scores = {"gradient": own["predicted"], "confidence": -own["confidence"]}
    expected = prediction_skill(scores, "confidence", own["measured"], own["n_trials"])["gradient"]
    assert row["auroc"] == pytest.approx(expected.auroc)
    assert (row["low"], row["gain"], row["gain_high"]) == pytest.approx(
        (expected.low, expected.gain, expected.gain_high)
    )
    assert row["brier"] == pytest.approx(brier_score(own["predicted"], own["measured"], own["n_trials"]))
    mean = np.full(IMAGES, own["measured"].mean())
    assert row["skill"] == pytest.approx(1 - row["brier"] / brier_score(mean, own["measured"], own["n_trials"]))
    baseline = check.loc[("gaussian_rgb", 4.0, "confidence")]
    assert (baseline["gain"], baseline["gain_low"]) == (0, 0)
    assert label_change_check(table.assign(measured=0.0)).empty  # nothing changes: nothing to foretell


@pytest.mark.slow
def test_the_report_of_a_run(store: Store, tmp_path: Path) -> None:
    console = Console(width=120, record=True, highlight=False)
    files = sensitivity_report(console, store, "p", "d", tmp_path / "figures")
    said = console.export_text()
    assert sorted(file.name for file in files) == sorted(f"{name}-s_m.png" for name in FIGURES)
    assert all(file.stat().st_size > 5000 for file in files)
    for expected in ("standard deviation of the logit", "sampling(3)", "ceiling", "confidence", "rank-sum p"):
        assert expected in said
    assert max(len(line) for line in said.splitlines() if "figures" not in line and "rank-sum" not in line) <= 120
    assert sensitivity_report(console, store, "other", "d", tmp_path / "none") == []


def test_users_own_noises_and_several_protocols(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One predictor is of a user's degradation, and the same model was evaluated under two protocols."""
    scores = score_rows()
    rows = sweep_rows().replace({"degradation": {"flip_lr": "mine"}})
    own = predicted_rows(scores).assign(degradation="mine", level=0.0)
    made = scored_store(tmp_path / "store", rows, scores, pd.concat([predicted_rows(scores), own]))
    console = Console(width=120, record=True)
    files = sensitivity_report(console, made, "p", "d", tmp_path / "figures")
    assert len(files) == len(FIGURES) - 1  # fig5 has no pictures
    assert "mine" in console.export_text()
    made.begin_run("other", "test", "q", {}, {})
    with made.connect() as connection:
        for question in (
            "INSERT INTO sensitivity SELECT * REPLACE ('other' AS run_id) FROM sensitivity",
            "INSERT INTO predictions SELECT * REPLACE ('other' AS run_id) FROM predictions",
        ):
            connection.execute(question)
    out = tmp_path / "a.png"
    assert main(["fig6", "--db", str(made.path), "--out", str(out)]) == 2
    assert "has 2 scored entrants that fit, choose one: model s/m" in capsys.readouterr().err
    assert main(["fig6", "--db", str(made.path), "--out", str(out), "--protocol", "q", "--dataset", "d"]) == 0
