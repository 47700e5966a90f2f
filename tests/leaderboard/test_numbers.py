"""Every number of the page equals an independent computation from the predictions, with pandas and scikit-learn."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from cnnsens_bench.measures import measures
from cnnsens_bench.measures.predictions import expected_calibration_error, mce, mean_flip_rate, relative_mce
from cnnsens_bench.store import Store
from leaderboard.aggregate import Resampler
from leaderboard.page import data
from leaderboard.read import read
from tests.leaderboard.made import CONDITIONS, DEFENSES, MODELS, sweep, timings, write
from tests.leaderboard.plain import (
    PROTOCOLS,
    averaged,
    chosen,
    entrants,
    images_per_second,
    per_image,
    relative_measures,
)

CLOSE = 2e-6
"""The page rounds its numbers to six decimals."""


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    parts = [
        sweep("r1", "d", range(30), 0),
        sweep("r2", "d", range(30, 41), 1),  # the same protocol, in a second run
        sweep("r1", "e", range(12), 2),
        sweep("r3", "d", range(20), 3),
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def speed(rows: pd.DataFrame) -> pd.DataFrame:
    return timings(rows)


@pytest.fixture(scope="module")
def store(rows: pd.DataFrame, speed: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    failures = pd.DataFrame(
        {"run_id": "r1", "dataset": "d", "image_id": ["i007", "i900"], "stage": "decode", "error": "broken"}
    )
    return write(tmp_path_factory.mktemp("store"), rows, PROTOCOLS, failures=failures, speed=speed)


@pytest.fixture(scope="module")
def content(store: Path) -> dict[str, Any]:
    return data(read([store]), "torchvision/alexnet")


def test_all_boards_and_entrants_are_there(content: dict[str, Any], rows: pd.DataFrame) -> None:
    assert sorted((b["protocol"], b["dataset"]) for b in content["boards"]) == [("p", "d"), ("p", "e"), ("q", "d")]
    for board in content["boards"]:
        assert len(board["entrants"]) == 6
        assert board["has_reference"]
        wanted = {(c["degradation"], c["level"]): c["trials"] for c in board["conditions"]}
        assert wanted == {("none", 0): 1, ("gaussian_rgb", 4): 3, ("gaussian_rgb", 8): 3, ("pepper", 0.04): 2,
                          ("flip_lr", 0): 1}  # fmt: skip
    board = next(b for b in content["boards"] if (b["protocol"], b["dataset"]) == ("p", "d"))
    assert board["failures"] == [{"run": "r1", "stage": "decode", "images": 2}]
    assert board["n_images"] == 41


def test_values(content: dict[str, Any], rows: pd.DataFrame, speed: pd.DataFrame) -> None:
    check_values(content, rows, speed)


def unlike() -> pd.DataFrame:
    """Return rows of entrants under unlike conditions.

    Defenses have one degradation, two networks three, one of these a fourth, and another network one.
    """
    few, most = ({key: CONDITIONS[key] for key in list(CONDITIONS)[:many]} for many in (2, 4))
    filters = ("closing(size=3)", "median_filter(size=3)", "mean_filter(size=3)")
    parts = [
        sweep("r1", "d", range(20), 0, MODELS[:1], ("none",), {**most, ("pepper_pixel", 0.1): 2}),
        sweep("r1", "d", range(20), 1, MODELS[1:2], ("none",), most),
        sweep("r1", "d", range(20), 2, ("timm/d",), ("none",), few),
        sweep("r1", "d", range(20), 3, MODELS[:1], filters, few),
    ]
    return pd.concat(parts, ignore_index=True)


def test_values_where_conditions_differ(tmp_path: Path) -> None:
    """Networks are ranked by the conditions that they share, though most entrants share fewer and one has more."""
    rows = unlike()
    speed = timings(rows)
    content = data(read([write(tmp_path, rows, {"r1": "p"}, speed=speed)]), "torchvision/alexnet")
    check_values(content, rows, speed)
    (board,) = content["boards"]
    ranked = [board["conditions"][i] for i in board["ranked"]]
    assert {(one["degradation"], one["level"]) for one in ranked} == set(CONDITIONS)
    names = {(one["model"], one["defense"]) for one in board["entrants"] if "mean_degraded_accuracy" in one["ranks"]}
    assert names == {("torchvision/alexnet", "none"), ("timm/b", "none")}
    first = next(one for one in board["entrants"] if one["reference"])
    assert first["stats"]["mce"][0] == 1
    assert "pepper_pixel" in first["by_degradation"]  # it is shown, but it is no part of the means
    assert None not in first["accuracy"]


def check_values(content: dict[str, Any], rows: pd.DataFrame, speed: pd.DataFrame) -> None:
    for board, one, own, every in entrants(content, rows):
        averaged_over, ranked = chosen(every, own)
        assert one["comparable"] == ranked
        conditions = own.groupby(["degradation", "level"])
        shares = per_image(own).groupby(["degradation", "level"])[["hit", "changed", "top5", "nll"]].mean()
        by_class = conditions[["label", "prediction"]].apply(
            lambda part: balanced_accuracy_score(part["label"], part["prediction"])
        )
        ece = conditions[["confidence", "label", "prediction"]].apply(
            lambda part: expected_calibration_error(
                part["confidence"].astype("float32").to_numpy(), (part["label"] == part["prediction"]).to_numpy()
            )
        )
        still = own[own["degradation"] == "none"]
        used = [key in averaged_over or key[0] == "none" for key in shares.index]
        worst = shares["hit"][used].drop("none", level=0).min()
        wanted = {
            "accuracy": accuracy_score(still["label"], still["prediction"]),
            "mean_degraded_accuracy": averaged(shares["hit"][used]),
            "mean_label_change": averaged(shares["changed"][used]),
            "worst_accuracy": worst,
            "top5": (still["true_rank"] <= 5).mean(),
            "top5_degraded": averaged(shares["top5"][used]),
            "mean_per_class": by_class["none", 0],
            "mean_per_class_degraded": averaged(by_class[used]),
            "ece": ece["none", 0],
            "ece_degraded": averaged(ece[used]),
            "nll": shares["nll"]["none", 0],
            "nll_degraded": averaged(shares["nll"][used]),
            "images_per_second": images_per_second(board, one, speed)[0],
            "parameters": 1000 * len(one["model"]),
            **relative_measures(shares[used], every),
        }
        found = {name: value[0] for name, value in one["stats"].items()}
        assert found == pytest.approx(wanted, abs=CLOSE)
        assert one["device"] == images_per_second(board, one, speed)[1]
        worst_condition = board["conditions"][one["worst"]]
        assert shares["hit"][worst_condition["degradation"], worst_condition["level"]] == pytest.approx(worst)
        assert one["parameters"] == 1000 * len(one["model"])
        assert one["images"] == own["image_id"].nunique()
        for name, (accuracy, change) in one["by_degradation"].items():
            assert (accuracy, change) == pytest.approx(shares.loc[name][["hit", "changed"]].mean().tolist(), abs=CLOSE)
        there = set(shares.index)
        missing = [c for c in board["conditions"] if (c["degradation"], c["level"]) not in there]
        assert [board["conditions"][i] for i in one["missing"]] == missing


def test_conditions_equal_the_views(content: dict[str, Any], rows: pd.DataFrame, store: Path) -> None:
    """The page equals the store's views: accuracy, p_Δ, their intervals, and the means of the view `leaderboard`."""
    db = Store(store.parent)
    views = {"accuracy": db.query("SELECT * FROM accuracy"), "change": db.query("SELECT * FROM label_change")}
    leaders = db.query("SELECT * FROM leaderboard").set_index(["protocol", "dataset", "model", "defense"])
    for board, one, _, _ in entrants(content, rows):
        for series, view in views.items():
            own = view[(view["protocol"] == board["protocol"]) & (view["dataset"] == board["dataset"])]
            own = own[(own["model"] == one["model"]) & (own["defense"] == one["defense"])]
            wanted = own.set_index(["degradation", "level"])[["value", "low", "high"]].T.to_dict("list")
            found = {
                (c["degradation"], c["level"]): value
                for c, value in zip(board["conditions"], one[series], strict=True)
                if value is not None
            }
            assert set(found) == set(wanted)
            for key, value in found.items():
                assert value == pytest.approx(wanted[key], abs=CLOSE)
        row = leaders.loc[(board["protocol"], board["dataset"], one["model"], one["defense"])]
        for name in ("mean_degraded_accuracy", "mean_label_change", "worst_accuracy", "accuracy"):
            assert one["stats"][name][0] == pytest.approx(row[name], abs=CLOSE)
        assert one["stats"]["images_per_second"][0] == pytest.approx(row["images_per_second"], rel=1e-6)
        assert one["device"] == row["device"] + ("" if pd.isna(row["threads"]) else ", 2 threads")
        # Where several conditions are equally bad, rounding decides which one is named.
        assert one["accuracy"][one["worst"]][0] == pytest.approx(row["worst_accuracy"], abs=CLOSE)


def test_bootstrap_over_images(content: dict[str, Any], rows: pd.DataFrame) -> None:
    """Intervals equal those of a plain loop over resamples of a table of images × conditions."""
    for board, one, own, every in entrants(content, rows)[::5]:
        images = sorted(every["image_id"].unique())
        draws = np.random.default_rng(0).multinomial(len(images), np.full(len(images), 1 / len(images)), 1000)
        shares = per_image(own)
        for column, name in (
            ("hit", "mean_degraded_accuracy"),
            ("changed", "mean_label_change"),
            ("nll", "nll_degraded"),
        ):
            degraded = shares[shares["degradation"] != "none"]
            table = degraded.pivot(index="image_id", columns=["degradation", "level"], values=column).reindex(images)
            means = [
                table.mul(counts, axis=0).sum().to_numpy() / table.notna().mul(counts, axis=0).sum().to_numpy()
                for counts in draws[:200]
            ]
            by_level = pd.DataFrame(means, columns=table.columns).T
            averages = by_level.groupby(level=0).mean().mean()
            ours = Resampler(len(images)).means(table.to_numpy())
            assert ours[1:201] == pytest.approx(np.array(means), abs=1e-6)
            # The page has 1000 resamples, so these 200 of them agree with it only roughly.
            low, high = np.quantile(averages, [0.025, 0.975])
            assert one["stats"][name][1:] == pytest.approx([low, high], abs=0.35 * (high - low))
            assert board["n_images"] == len(images)


def test_intervals_hold_their_values_and_ranks_are_the_places_that_are_possible(
    content: dict[str, Any], rows: pd.DataFrame
) -> None:
    for board in content["boards"]:
        tables = _tables(board, rows)
        usual = [one for one in board["entrants"] if one["comparable"]]
        assert {one["model"] for one in usual} == {"torchvision/alexnet", "timm/b"}  # timm/c lacks a degradation
        for name, spec in measures.items():
            if spec.ranked_among is None:
                continue
            ranked = board["entrants"] if spec.ranked_among == "same_images" else usual
            if name == "images_per_second":
                assert board["device"] == "A processor, 2 threads"
                ranked = [one for one in board["entrants"] if one["model"] != "timm/b"]
            for one in board["entrants"]:
                value, low, high = one["stats"][name]
                if name.startswith("ece"):
                    assert (low, high) == (None, None)
                    assert name not in one["ranks"]
                    continue
                assert low <= value <= high
                if one not in ranked:
                    assert name not in one["ranks"]
                    continue
                first, last = one["ranks"][name]
                others = [other["stats"][name] for other in ranked]
                if name in ("images_per_second", "worst_accuracy"):
                    above, below = sum(o[1] > high for o in others), sum(o[2] < low for o in others)
                    better, worse = (above, below) if spec.higher_is_better else (below, above)
                    assert [first, last] == [better + 1, len(ranked) - worse]
                    continue
                sign = -1 if spec.higher_is_better else 1
                place = sorted(sign * other[0] for other in others).index(sign * value) + 1
                assert 1 <= first <= place <= last <= len(ranked)
                if name in PAIRED:
                    signs = [paired_order(one, other, board, tables, name) for other in ranked]
                    unsure = signs.count(None)
                    assert signs.count(1) <= first - 1 <= signs.count(1) + unsure
                    assert signs.count(-1) <= len(ranked) - last <= signs.count(-1) + unsure


PAIRED = {"mean_degraded_accuracy": "hit", "mean_label_change": "changed", "nll_degraded": "nll", "accuracy": "hit"}
"""Measures that are means over conditions, and the column of `per_image` that they are means of."""


def _tables(board: dict, rows: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Return the shares of each image under each condition, by the model and defense of an entrant."""
    rows = rows[(rows["dataset"] == board["dataset"]) & (rows["run_id"].map(PROTOCOLS) == board["protocol"])]
    of_entrants = rows.groupby(["model", "defense"])
    return {
        entrant: per_image(own).pivot(index="image_id", columns=["degradation", "level"])
        for entrant, own in of_entrants
    }


def paired_order(one: dict, other: dict, board: dict, tables: dict, name: str) -> int | None:
    """Return 1 where the other is surely better by a measure, -1 where it is surely worse, 0 for a tie.

    Near the bound of the interval the result is None: the page's variance is that of a bootstrap, and this one is not.
    """
    ours, theirs = (tables[entrant["model"], entrant["defense"]][PAIRED[name]] for entrant in (one, other))
    ranked = [board["conditions"][i] for i in board["ranked"]]
    keys = [("none", 0.0)] if name == "accuracy" else [(one["degradation"], one["level"]) for one in ranked]
    difference = (theirs - ours)[keys] if measures[name].higher_is_better else (ours - theirs)[keys]
    residuals = ((difference - difference.mean()) * (len(difference) / difference.count())).fillna(0)
    value = difference.mean().groupby(level=0).mean().mean()
    influence = residuals.T.groupby(level=0).mean().mean()
    n = len(difference)
    centre = n * value / (n + 2)
    half = 1.96 * np.sqrt((influence**2).sum() + 1 + 2 * n * value**2 / (n + 2)) / (n + 2)
    if 0.85 < abs(centre) / half < 1.15:
        return None
    return int(np.sign(centre)) if abs(centre) > half else 0


def test_fragile_images(content: dict[str, Any], rows: pd.DataFrame) -> None:
    for _, one, own, _ in entrants(content, rows):
        shares = per_image(own)
        shares = shares[shares["degradation"] != "none"].groupby(["image_id", "degradation"])["changed"].mean()
        wanted = shares.groupby("image_id").mean().dropna().sort_values(ascending=False, kind="stable")
        assert [share for _, _, share in one["fragile"]] == pytest.approx(wanted.head(8).tolist(), abs=CLOSE)
        for image, name, share in one["fragile"]:
            assert name == f"class of {image}"
            assert wanted[image] == pytest.approx(share, abs=CLOSE)


def test_merged_databases_give_what_one_would(
    rows: pd.DataFrame, speed: pd.DataFrame, content: dict[str, Any], tmp_path: Path
) -> None:
    """The databases split the runs and share half of one: each image and each timed batch counts once."""
    first = write(
        tmp_path / "a", rows[rows["run_id"] != "r2"], {"r1": "p", "r3": "q"}, speed=speed[speed["run_id"] != "r2"]
    )
    overlap = rows[(rows["run_id"] == "r2") | ((rows["run_id"] == "r1") & (rows["image_id"] < "i015"))]
    second = write(tmp_path / "b", overlap, {"r1": "p", "r2": "p"}, speed=speed[speed["run_id"] != "r3"])
    merged = data(read([first, second]), "torchvision/alexnet")
    for one, other in zip(merged["boards"], content["boards"], strict=True):
        assert {**one, "failures": []} == {**other, "failures": []}


def test_entrants_summed_a_few_at_a_time(store: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Large databases are summed up in several statements to save memory, which gives the same numbers."""
    monkeypatch.setattr("leaderboard.read.AT_ONCE", 300)
    assert data(read([store]), "torchvision/alexnet")["boards"] == content["boards"]


def test_the_same_name_with_other_weights_is_another_entrant(rows: pd.DataFrame, tmp_path: Path) -> None:
    some = rows[(rows["run_id"] == "r3") & rows["defense"].eq(DEFENSES[0])]
    first = write(tmp_path / "a", some, {"r3": "q"}, weights="aaaaaaaa")
    second = write(tmp_path / "b", some, {"r3": "q"}, weights="bbbbbbbb")
    (board,) = data(read([first, second]), "torchvision/alexnet")["boards"]
    assert len(board["entrants"]) == 6
    assert not board["has_reference"]  # it would be chance which of the two is meant
    (named,) = data(read([first, second]), "torchvision/alexnet@aaaaaaaa")["boards"]
    assert named["has_reference"]
    assert {one["model"] for one in board["entrants"] if "timm/b" in one["model"]} == {
        "timm/b@aaaaaaaa",
        "timm/b@bbbbbbbb",
    }
    unknown = [write(tmp_path / name, some, {"r3": "q"}, weights=None) for name in "cd"]
    assert len(data(read(unknown), "timm/b")["boards"][0]["entrants"]) == 6


def test_no_reference_no_mce(rows: pd.DataFrame, tmp_path: Path) -> None:
    path = write(tmp_path, rows[rows["model"] != "torchvision/alexnet"], PROTOCOLS)
    for board in data(read([path]), "torchvision/alexnet")["boards"]:
        assert not board["has_reference"]
        assert not any({"mce", "relative_mce", "mean_flip_rate"} & set(one["stats"]) for one in board["entrants"])
    assert Store(path.parent).query("FROM mce('torchvision/alexnet')").empty


@pytest.mark.parametrize("case", ["as it is", "levels missing", "a perfect reference", "no undegraded rows"])
def test_page_measures_and_macro_say_the_same(rows: pd.DataFrame, case: str, tmp_path: Path) -> None:
    """mCE, relative mCE and mean flip rate are equal in Python, SQL and pandas."""
    own = rows[rows["run_id"] != "r2"].copy()
    reference = (own["model"] == "torchvision/alexnet") & (own["defense"] == "none")
    if case == "levels missing":
        own = own[~(reference & (own["level"] == 4)) & ~((own["model"] == "timm/b") & (own["level"] == 8))]
        own = own[~((own["model"] == "timm/c") & own["degradation"].isin(["flip_lr", "gaussian_rgb"]))]
    elif case == "a perfect reference":
        right = reference & own["degradation"].isin(["none", "pepper"])
        own["prediction"] = own["prediction"].where(~right, own["label"])
    elif case == "no undegraded rows":
        own = own[~((own["model"] == "timm/b") & (own["degradation"] == "none"))]
    path = write(tmp_path, own, {"r1": "p", "r3": "q"})
    content = data(read([path]), "torchvision/alexnet")
    names = ["mce", "relative_mce", "mean_flip_rate"]
    macro = Store(path.parent).query("FROM mce('torchvision/alexnet')")
    assert len(macro) == sum(len(board["entrants"]) for board in content["boards"])
    macro = macro.set_index(["protocol", "dataset", "model", "defense"])
    found = 0
    for board, one, mine, every in entrants(content, own):
        shares = per_image(mine).groupby(["degradation", "level"])[["hit", "changed"]].mean()
        wanted = {name: float("nan") for name in names} | relative_measures(shares, every)
        row = macro.loc[(board["protocol"], board["dataset"], one["model"], one["defense"])]
        assert row[names].to_dict() == pytest.approx(wanted, nan_ok=True)
        page = {name: one["stats"].get(name, [float("nan")])[0] for name in names}
        over, _ = chosen(every, mine)
        used = [key in over or key[0] == "none" for key in shares.index]
        of_page = {name: float("nan") for name in names} | relative_measures(shares[used], every)
        assert page == pytest.approx(of_page, nan_ok=True, abs=CLOSE)
        base = next(other for other in board["entrants"] if other["reference"])
        arrays = [
            [np.array([np.nan if value is None else value[0] for value in which[series]]) for which in (one, base)]
            for series in ("accuracy", "change")
        ]
        degradation = np.array([condition["degradation"] for condition in board["conditions"]])
        calls = {
            "mce": mce(1 - arrays[0][0], 1 - arrays[0][1], degradation),
            "relative_mce": relative_mce(1 - arrays[0][0], 1 - arrays[0][1], degradation),
            "mean_flip_rate": mean_flip_rate(*arrays[1], degradation),
        }
        assert calls == pytest.approx(wanted, nan_ok=True, abs=1e-4)  # the page has rounded its numbers
        if all(used):
            assert row["degradations"] == one["relative_of"]["mce"]
        found += sum(not np.isnan(value) for value in wanted.values())
    assert found > 3 * len(macro) / 2


def test_the_least_there_can_be(rows: pd.DataFrame, tmp_path: Path) -> None:
    """A board may have one model, one image and no degradation, or only degraded predictions."""
    one = rows[(rows["image_id"] == "i001") & (rows["run_id"] == "r3") & (rows["model"] == "timm/b")]
    for name, part in (("a", one[one["degradation"] == "none"]), ("b", one[one["degradation"] != "none"])):
        (board,) = data(read([write(tmp_path / name, part, {"r3": "q"})]), "timm/b")["boards"]
        assert len(board["entrants"]) == 2
