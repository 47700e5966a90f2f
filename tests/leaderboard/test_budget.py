"""The page of entrants on a budget: which cells are compared, what is unbiased, and what it says."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cnnsens_bench.store import Store
from leaderboard.page import data
from leaderboard.read import read
from tests.leaderboard.budgeted import CELLS, IMAGES, chosen, made
from tests.leaderboard.made import write
from tests.leaderboard.plain import per_image


def board_of(*paths: Path) -> dict:
    [board] = data(read(paths), "torchvision/alexnet")["boards"]
    return board


def stat(board: dict, model: str, name: str) -> list[float]:
    [one] = [one for one in board["entrants"] if one["model"] == model]
    return one["stats"][name]


def test_entrants_of_different_budgets_are_compared_on_the_cells_that_they_share(tmp_path: Path) -> None:
    large, small = made("r1", 0, "torchvision/alexnet"), chosen(made("r2", 1, "timm/b"), 0.3)
    one = write(tmp_path / "one", large, {"r1": "p"}, config={"budget": 1.0, "trials": 3})
    other = write(tmp_path / "other", small, {"r2": "p"}, config={"budget": 0.3, "trials": 3})
    board = board_of(one, other)
    shared = large.merge(small[["image_id", "degradation", "level", "trial"]])
    for model, rows in (("torchvision/alexnet", shared), ("timm/b", small)):
        means = per_image(rows).groupby(["degradation", "level"])[["hit", "changed"]].mean().drop("none", level=0)
        hit, changed = (means[name].groupby(level=0).mean().mean() for name in ("hit", "changed"))
        assert stat(board, model, "mean_degraded_accuracy")[0] == pytest.approx(hit, abs=2e-6)
        assert stat(board, model, "mean_label_change")[0] == pytest.approx(changed, abs=2e-6)
    share = (len(small) - len(IMAGES)) / (CELLS * len(IMAGES))
    assert [one["share"] for one in board["entrants"]] == pytest.approx([share, 1], abs=1e-6)
    assert board["budget"].startswith(f"{100 * share:.1f} to 100.0 % of the degraded cells")
    assert f"compared on the cells that they share, {100 * share:.1f} %." in board["budget"]
    assert dict(board["terms"])["Trials"].startswith("4 for each image and level; 3 for gaussian_rgb; 5 for rotation")
    for entrant in board["entrants"]:
        for name, (value, low, high) in entrant["of_images"].items():
            usual = entrant["stats"][name]
            assert value == pytest.approx(usual[0], abs=2e-6)
            assert usual[1] < low < value < high < usual[2]
        assert len(entrant["of_images"]) == 2
    whole = board_of(one)
    assert whole["entrants"][0]["of_images"] == {}
    assert whole["budget"] is None
    assert whole["entrants"][0]["share"] is None
    alone = per_image(large).groupby(["degradation", "level"])["hit"].mean().drop("none", level=0)
    assert stat(whole, "torchvision/alexnet", "mean_degraded_accuracy")[0] == pytest.approx(
        alone.groupby(level=0).mean().mean(), abs=2e-6
    )


def test_entrants_of_a_run_in_rounds_are_compared_with_all_of_their_cells(tmp_path: Path) -> None:
    parts = made("r1", 0, "torchvision/alexnet"), chosen(made("r1", 1, "timm/b"), 0.3)
    board = board_of(write(tmp_path, pd.concat(parts), {"r1": "p"}, config={"budget": 1.0, "until": "ranked"}))
    for model, rows in zip(("torchvision/alexnet", "timm/b"), parts, strict=True):
        means = per_image(rows).groupby(["degradation", "level"])["hit"].mean().drop("none", level=0)
        value, low, high = stat(board, model, "mean_degraded_accuracy")
        assert value == pytest.approx(means.groupby(level=0).mean().mean(), abs=2e-6)
        assert low < value < high
    share = (len(parts[1]) - len(IMAGES)) / (CELLS * len(IMAGES))
    assert [one["share"] for one in board["entrants"]] == pytest.approx([share, 1], abs=1e-6)
    assert "Rounds ended earlier for some entrants: each is compared with all of its cells." in board["budget"]
    alike = board_of(write(tmp_path / "alike", parts[0], {"r1": "p"}, config={"budget": 1.0, "until": 2.5}))
    assert alike["budget"].startswith("100.0 % of the degraded cells")
    assert "Rounds" not in alike["budget"]


def test_every_mean_has_an_interval_where_few_images_have_a_condition(tmp_path: Path) -> None:
    rows = chosen(made("r1", 0, "torchvision/alexnet", "timm/b"), 0.15)
    few = rows[rows["image_id"].isin(sorted(rows["image_id"].unique())[:12])]
    board = board_of(write(tmp_path, few, {"r1": "p"}, config={"budget": 0.15}))
    for model in ("torchvision/alexnet", "timm/b"):
        value, low, high = stat(board, model, "mean_degraded_accuracy")
        assert low < value < high
        one = next(one for one in board["entrants"] if one["model"] == model)
        columns = ["mean_degraded_accuracy", "mean_degraded_accuracy_low", "mean_degraded_accuracy_high"]
        row = Store(tmp_path).query("FROM leaderboard_of_images").set_index("model").loc[model, columns]
        assert one["of_images"]["mean_degraded_accuracy"] == pytest.approx(row.tolist(), abs=2e-6)
    assert "of the degraded cells" in board["budget"]
    assert "compared on" not in board["budget"]


def test_means_are_unbiased_over_the_seeds_of_the_choice(tmp_path: Path) -> None:
    """The mean of 100 replays is as close to the whole table as its standard error allows, for each condition."""
    table = made("r", 3, "timm/b")
    levels = per_image(table).groupby(["degradation", "level"])[["hit", "changed"]].mean()
    replays = [
        per_image(chosen(table, 0.2, seed)).groupby(["degradation", "level"])[["hit", "changed"]].mean()
        for seed in range(100)
    ]
    for name in ("hit", "changed"):
        found = pd.concat([replay[name] for replay in replays], axis=1).drop("none", level=0)
        error = (found.mean(axis=1) - levels[name]) / (found.std(axis=1) / np.sqrt(100))
        assert error.drop("none", level=0).abs().max() < 4
        assert (found.std(axis=1) > 0.01).all()


def test_the_views_compute_what_pandas_computes(tmp_path: Path) -> None:
    rows = chosen(made("r1", 0, "timm/b"), 0.3)
    write(tmp_path, rows, {"r1": "p"}, config={"budget": 0.3})
    store = Store(tmp_path)
    expected = per_image(rows).groupby(["degradation", "level"])[["hit", "changed"]].mean()
    for view, name in (("accuracy", "hit"), ("label_change", "changed")):
        found = store.query(f"FROM {view} WHERE degradation <> 'none'").set_index(["degradation", "level"])
        assert found["value"].to_dict() == pytest.approx(expected[name].drop("none", level=0).to_dict())
        assert (found["low"] <= found["value"]).all()
        assert (found["value"] <= found["high"]).all()
    [leader] = store.query("FROM leaderboard").to_dict("records")
    means = expected.drop("none", level=0).groupby(level=0).mean().mean()
    assert leader["mean_degraded_accuracy"] == pytest.approx(means["hit"])
    assert leader["mean_label_change"] == pytest.approx(means["changed"])
