"""Failure points of networks and images equal a plain computation, on several data sets with missing cells."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cnnsens_bench import Results, UserError, open_results
from cnnsens_bench.measures.failure_points import failure_points, failure_text
from cnnsens_bench.store import Store
from tests.leaderboard.made import sweep, write

CONDITIONS = {
    **{("gaussian_rgb", level): 3 for level in (4.0, 8.0, 32.0)},
    **{("pepper(0.02) + jpeg", level): 1 for level in (90.0, 50.0, 10.0)},
    **{("shot_noise", level): 2 for level in (1000.0, 100.0)},
    **{("common:fog", level): 2 for level in (1.0, 3.0, 5.0)},
    **{("white_balance", level): 1 for level in (-4000.0, -1000.0, 2000.0)},
    ("jpeg(30) + stored:fog", 2.0): 1,
    ("flip_lr", 0.0): 1,
}
MODELS = ("timm/b", "timm/c")
PROTOCOLS = {"r1": "p", "r2": "p", "r3": "q"}
ENTRANT = ["protocol", "dataset", "model", "defense"]
CURVE = [*ENTRANT, "degradation", "direction", "criterion"]


def made_rows() -> pd.DataFrame:
    """Return rows of three runs. Those of the second have a budget: a third of the degraded cells, by chance."""
    parts = [
        sweep("r1", "d", range(20), 0, MODELS, conditions=CONDITIONS),
        sweep("r2", "d", range(20, 40), 1, MODELS, conditions=CONDITIONS),
        sweep("r1", "e", range(9), 2, MODELS, ("none",), conditions=CONDITIONS),
        sweep("r3", "d", range(12), 3, models=("timm/b",), defenses=("none",), conditions=CONDITIONS),
    ]
    rows = pd.concat(parts, ignore_index=True)
    taken = np.random.default_rng(0).random(len(rows)) < np.where(rows["run_id"] == "r2", 0.34, 0.97)
    rows = rows[taken | (rows["degradation"] == "none")]
    return rows[~((rows["image_id"] == "i005") & (rows["degradation"] == "common:fog"))].reset_index(drop=True)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return made_rows().assign(protocol=lambda table: table["run_id"].map(PROTOCOLS))


@pytest.fixture(scope="module")
def results(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Results:
    failures = pd.DataFrame(
        {"run_id": "r1", "dataset": "d", "image_id": ["i005"], "stage": "degrade", "error": "broken"}
    )
    path = write(tmp_path_factory.mktemp("points"), rows.drop(columns="protocol"), PROTOCOLS, failures=failures)
    known = {"model": "timm/b", "dataset": "d", "defense": "none", "classes": 50, "trained_by": "r3"}
    Store(path.parent).put("models", pd.DataFrame([known]))
    return open_results(path)


@pytest.fixture(scope="module")
def points(results: Results) -> pd.DataFrame:
    return results.failure_points(resamples=100).set_index(CURVE)


def test_classes_are_those_that_the_model_chooses_among(results: Results, points: pd.DataFrame) -> None:
    found = results.entrant_classes.set_index(ENTRANT)
    assert found["n_classes"]["q", "d", "timm/b", "none"] == 50
    assert set(found["n_classes"].drop(("q", "d", "timm/b", "none"))) == {5}  # another protocol wrote those of p
    assert found["chance"].tolist() == pytest.approx((1 / found["n_classes"]).tolist())
    assert set(points["n_classes"]) == {5, 50}


def strength(degradation: str, level: float) -> float:
    return -level if level < 0 or degradation in ("pepper(0.02) + jpeg", "shot_noise") else level


def plain_level(degradation: str, levels: list[float], values: list[float], start: float, threshold: float) -> float:
    """Return where a falling curve first meets a threshold; `levels` ascend in strength."""
    falls = strength(degradation, levels[0]) < 0 or levels[0] < 0
    before, level_before = start, {"pepper(0.02) + jpeg": 100.0, "shot_noise": math.inf}.get(degradation, 0.0)
    for number, (level, value) in enumerate(zip(levels, values, strict=True)):
        if value <= threshold + 1e-9:
            share = (before - threshold) / (before - value)
            if degradation.startswith(("common:", "jpeg(30) + stored:")) or (
                number == 0 and degradation != "shot_noise"
            ):
                return level_before + share * (level - level_before)
            if number == 0:
                return level / share
            return math.copysign(2 ** np.interp(share, [0, 1], np.log2(np.abs([level_before, level]))), level)
        before, level_before = value, level
    return -math.inf if falls else math.inf


def per_image(own: pd.DataFrame) -> pd.DataFrame:
    """Return hits and changes of each (degradation, level, image)."""
    undegraded = own[own["degradation"] == "none"].set_index("image_id")["prediction"]
    reference = own["image_id"].map(undegraded)
    changed = (own["prediction"] != reference).astype(float).where(reference.notna())
    own = own.assign(hit=(own["prediction"] == own["label"]).astype(float), changed=changed)
    return own.groupby(["degradation", "level", "image_id"])[["hit", "changed"]].mean()


def plain_points(
    shares: pd.DataFrame, classes: int, counts: pd.Series | None = None
) -> Iterator[tuple[tuple, float, float]]:
    """Yield (degradation, direction, criterion), threshold and level; `counts`: how often each image is drawn."""
    drawn = 1.0 if counts is None else counts[shares.index.get_level_values(2)].to_numpy()[:, None]
    keys = ["degradation", "level"]
    weighted = (shares * drawn).groupby(keys).sum() / (shares.notna() * drawn).groupby(keys).sum()
    start = weighted["hit"]["none", 0]
    half = (start + 1 / classes) / 2
    for degradation in weighted.index.get_level_values(0).unique().difference(["none", "flip_lr"]):
        curve = weighted.loc[degradation].sort_index(key=lambda levels: [strength(degradation, one) for one in levels])
        for rising in (True, False):
            side = curve[[(strength(degradation, level) == level) == rising for level in curve.index]]
            if side.empty:
                continue
            levels, which = side.index.tolist(), (degradation, "rising" if rising else "falling")
            right = plain_level(degradation, levels, side["hit"].tolist(), start, half)
            kept = plain_level(degradation, levels, (1 - side["changed"]).tolist(), 1, 0.9)
            yield from (((*which, "half_accuracy"), half, right), ((*which, "label_change"), 0.1, kept))


def test_points_equal_a_plain_computation_and_the_view(
    results: Results, points: pd.DataFrame, rows: pd.DataFrame
) -> None:
    view = results.entrant_failure_points.set_index(CURVE)
    assert set(points.index) == set(view.index)
    expected = {
        (*entrant, *key): (threshold, level)
        for entrant, own in rows.groupby(ENTRANT)
        for key, threshold, level in plain_points(per_image(own), 50 if entrant == ("q", "d", "timm/b", "none") else 5)
    }
    assert set(points.index) == set(expected)
    for key, (threshold, level) in expected.items():
        row, in_sql = points.loc[key], view.loc[key]
        assert row["level"] == pytest.approx(level), key
        assert row["threshold"] == pytest.approx(threshold)
        assert row["low"] <= row["level"] <= row["high"]
        reached = math.isfinite(level)
        assert (in_sql["level"] == pytest.approx(level)) if reached else pd.isna(in_sql["level"])
        assert in_sql["threshold"] == pytest.approx(threshold)
        assert in_sql[["strongest", "n_levels"]].tolist() == row[["strongest", "n_levels"]].tolist()
    assert 0.3 < np.isfinite(points["level"]).mean() < 1
    assert set(points.index.get_level_values("direction")) == {"rising", "falling"}


def test_intervals_are_those_of_a_loop_over_resamples(points: pd.DataFrame, rows: pd.DataFrame) -> None:
    entrant = ("p", "e", "timm/b", "none")
    own = rows.set_index(ENTRANT).loc[[entrant]]
    own = own[own["degradation"].isin(["none", "gaussian_rgb", "shot_noise"])]
    shares = per_image(own)
    images = sorted(own["image_id"].unique())
    draws = np.random.default_rng(0).multinomial(len(images), np.full(len(images), 1 / len(images)), 100)
    whole = {key: level for key, _, level in plain_points(shares, 5)}
    samples: dict[tuple, list[float]] = {key: [] for key in whole}
    for counts in draws:
        for key, threshold, level in plain_points(shares, 5, pd.Series(counts, images)):
            if threshold > 0.2 or key[2] == "label_change":
                samples[key].append(level)
    for key, levels in samples.items():
        ordered = sorted(levels)
        low, high = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.025, 0.975))
        falls = key[1] == "falling"
        row = points.loc[(*entrant, *key)]
        if falls:  # the order statistics are those of strength
            high, low = (ordered[len(ordered) - math.ceil(share * len(ordered))] for share in (0.025, 0.975))
        assert (row["low"], row["high"]) == pytest.approx((min(low, whole[key]), max(high, whole[key]))), key


def test_of_images(results: Results, rows: pd.DataFrame) -> None:
    """The view of images equals a loop over each image's levels."""
    undegraded = rows[rows["degradation"] == "none"].set_index([*ENTRANT, "image_id"])[["prediction", "label"]]
    swept = rows[~rows["degradation"].isin(["none", "flip_lr"])].copy()
    swept["strength"] = [strength(*pair) for pair in zip(swept["degradation"], swept["level"], strict=True)]
    swept["direction"] = np.where(swept["strength"] == swept["level"], "rising", "falling")
    swept = swept.join(undegraded["prediction"].rename("reference"), on=[*ENTRANT, "image_id"])
    swept["wrong"], swept["changed"] = (swept["prediction"] != swept[name] for name in ("label", "reference"))
    keys = [*ENTRANT, "degradation", "direction"]
    levels = {key: sorted(own.unique()) for key, own in swept.groupby(keys)["strength"]}
    means = swept.groupby([*keys, "image_id", "strength"])[["wrong", "changed"]].mean()
    cells: dict[tuple, dict[float, tuple[float, float]]] = {}
    for (*key, level), wrong, changed in zip(means.index, means["wrong"], means["changed"], strict=True):
        cells.setdefault(tuple(key), {})[level] = wrong, changed
    predicted = {key: (one, label) for key, one, label in undegraded.itertuples(name=None)}
    found = {
        tuple(row[key] for key in [*keys, "image_id"]): row
        for row in results.query("FROM failure_points").to_dict("records")
    }
    assert set(found) == set(cells)
    for key, known in cells.items():
        row, every = found[key], levels[key[:-1]]
        prediction, label = predicted.get((*key[:4], key[-1]), (None, None))
        for number, event in enumerate(("wrong", "changed")):
            happened = {level: shares[number] >= 0.5 for level, shares in known.items()}
            ends = [next((one for one in every if happened.get(one, absent)), None) for absent in (True, False)]
            if event == "changed" and prediction is None:
                ends = [None, None]
            values = [row[f"{event}_{end}"] for end in ("low", "high")]
            assert [None if pd.isna(one) else strength(key[4], one) for one in values] == ends
        assert (row["n_evaluated"], row["n_levels"]) == (len(known), len(every))
        assert (
            pd.isna(row["undegraded_wrong"]) if prediction is None else row["undegraded_wrong"] == (prediction != label)
        )
    assert sum(len(known) < len(levels[key[:-1]]) for key, known in cells.items()) > 100
    assert any((*key[:4], key[-1]) not in predicted for key in cells)


def test_levels_that_do_not_matter(tmp_path: Path) -> None:
    """Without levels, or without an undegraded prediction, there is no failure point; guessing has none either."""
    conditions = pd.DataFrame({"degradation": ["none", "flip_lr", "rotation"], "level": [0.0, 0.0, 45.0]})
    hit = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    changed = np.array([[np.nan, 1.0, 0.0], [np.nan, 1.0, 1.0]])
    points = failure_points(conditions, hit, changed, chance=0.1, resamples=100).set_index("criterion")
    assert points["degradation"].tolist() == ["rotation", "rotation"]
    assert points["level"].tolist() == pytest.approx([45 * 0.2 / 0.5, 45 * 0.1 / 0.5])
    guessing = failure_points(conditions, hit, changed, chance=0.5, resamples=100).set_index("criterion")
    assert guessing.loc["half_accuracy", ["threshold", "level", "low", "high"]].isna().all()
    degraded = failure_points(conditions[1:], hit[:, 1:], np.full((2, 2), np.nan), 0.1, resamples=100)
    assert degraded["level"].isna().all()
    assert degraded["n_levels"].tolist() == [1, 0]
    with pytest.raises(ValueError, match="no images"):
        failure_points(conditions, hit[:0], changed[:0], 0.1)


def test_a_wrong_share_is_one_sentence(results: Results) -> None:
    with pytest.raises(UserError, match="change=10 is not between 0 and 1"):
        results.failure_points(change=10)


def test_another_share_of_changes(results: Results, points: pd.DataFrame) -> None:
    few = points["level"]
    many = results.failure_points(0.5, resamples=100).set_index(CURVE)["level"]
    rising = few.index.get_level_values("direction") == "rising"
    change = few.index.get_level_values("criterion") == "label_change"
    assert (few <= many)[rising & change].all()
    assert (few < many)[rising & change].any()
    assert (few >= many)[~rising & change].all()
    assert few[~change].equals(many[~change])


def test_images_without_labels_have_changes_alone(tmp_path: Path) -> None:
    rows = sweep("r1", "d", range(5), 0, ("timm/b",), ("none",), {("gaussian_rgb", 8.0): 2})
    results = open_results(write(tmp_path, rows.assign(label=None), {"r1": "p"}))
    images = results.query("FROM failure_points")
    assert len(images) == 5
    assert images[["undegraded_wrong", "wrong_low", "wrong_high"]].isna().all(axis=None)
    points = results.failure_points(resamples=100).set_index("criterion")
    assert points["level"].isna().tolist() == [True, False]
    assert results.confidence_selection.empty
    assert results.selective_accuracy().empty


def test_text() -> None:
    assert failure_text("shot_noise", 1234.6, 900.0, 5000.4, 10) == "1230 e⁻ [900 – 5000]"
    assert failure_text("common:fog", math.inf, 3.2, math.inf, 5) == "beyond 5 [3.2 – beyond 5]"
    assert failure_text("common:fog", math.inf, math.inf, math.inf, 5) == "beyond 5"
    assert failure_text("pepper", 0.0212, math.nan, math.nan, 0.32) == "p=0.0212"
    assert failure_text("pepper", *[math.nan] * 4) == "–"
