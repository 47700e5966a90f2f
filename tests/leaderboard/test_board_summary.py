"""Mean ranks over several boards equal a plain computation, and only entrants that meet have them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cnnsens_bench.measures.intervals import bootstrap
from leaderboard.aggregate import boards
from leaderboard.board_summary import _shared_boards, board_summary
from leaderboard.ids import board_id
from leaderboard.read import read
from tests.leaderboard.made import sweep, write
from tests.leaderboard.plain import per_image

CONDITIONS = {("gaussian_rgb", 4.0): 2, ("gaussian_rgb", 8.0): 2, ("flip_lr", 0.0): 1}
MODELS = ("timm/a", "timm/b", "timm/d", "timm/e")
IMAGES = [number for number in range(30) if number != 7]


def rows_of(run_id: str, dataset: str, seed: int, models: tuple[str, ...], images: list[int]) -> pd.DataFrame:
    return sweep(run_id, dataset, images, seed, models, ("none",), CONDITIONS)


def resampled_ranks(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rank of each model over all images, and over each resample of them."""
    images = sorted(rows["image_id"].unique())
    weights = np.vstack([np.ones(len(images)), *bootstrap(len(images), 1000)])
    found = {}
    for model, own in rows.groupby("model"):
        shares = per_image(own).pivot(index="image_id", columns=["degradation", "level"], values="hit").loc[images]
        means = pd.DataFrame(weights @ shares.to_numpy() / len(images), columns=shares.columns)
        by_degradation = means.drop(columns="none", level=0).T.groupby(level=0).mean()
        found[model] = by_degradation.mean()
    return pd.DataFrame(found).round(6).rank(axis=1, ascending=False)


def test_mean_ranks_equal_a_plain_computation(tmp_path: Path) -> None:
    parts = [
        rows_of("r1", "d", 0, MODELS, IMAGES),
        rows_of("r2", "e", 1, MODELS[:3], IMAGES[:20]),
        rows_of("r3", "f", 2, ("timm/a", "timm/z"), IMAGES[:6]),  # of the others, one alone is on this board
    ]
    results = read([write(tmp_path, pd.concat(parts, ignore_index=True), {"r1": "p", "r2": "p", "r3": "q"})])
    summary = board_summary(results, boards(results, ""))
    assert summary
    assert summary["boards"] == [board_id("p", "d"), board_id("p", "e")]
    assert summary["left_out"] == 2
    ranks = [resampled_ranks(part[part["model"].isin(MODELS[:3])]) for part in parts[:2]]
    means = (ranks[0] + ranks[1]) / 2
    for one in summary["entrants"]:
        value, low, high = one["mean_rank"]
        own = means[one["model"]]
        assert one["ranks"] == [table.loc[0, one["model"]] for table in ranks]
        assert value == own[0]
        wanted = min(value, own[1:].quantile(0.025)), max(value, own[1:].quantile(0.975))
        assert [low, high] == pytest.approx(wanted, abs=1e-3)
    assert [one["model"] for one in summary["entrants"]] == means.loc[0].sort_values(kind="stable").index.tolist()
    assert any(high > low for _, low, high in (one["mean_rank"] for one in summary["entrants"]))


@pytest.mark.parametrize(
    ("sets", "wanted"),
    [
        ([{1, 2, 3}, {2, 3, 4}], {2, 3}),  # neither is on all boards of the other
        ([{1, 2, 3, 4, 5, 6}, {1, 2}, {1, 2}], {1, 2}),  # one alone has no rank
        ([{1, 2, 3}, {1, 2, 3}, {1, 2}, {1, 2}], {1, 2, 3}),
        ([{1, 2, 3}, {1, 2, 3}, *[{1, 2}] * 3], {1, 2}),
        ([{1, 2}, {3, 4}], set()),
        ([{1}, {1, 2}, set()], set()),
        ([], set()),
    ],
)
def test_the_boards_are_those_on_which_entrants_meet(sets: list[set[int]], wanted: set[int]) -> None:
    assert _shared_boards([frozenset(own) for own in sets]) == wanted


def test_without_a_meeting_there_is_no_mean_rank(tmp_path: Path) -> None:
    alone = rows_of("r1", "d", 0, MODELS[:2], IMAGES[:5])
    results = read([write(tmp_path / "one", alone, {"r1": "p"})])
    assert board_summary(results, boards(results, "")) is None
    for number, models in enumerate([MODELS[2:], MODELS[1:]]):  # none of them is on both boards, and one is
        rows = pd.concat([alone, rows_of("r1", "e", 1, models, IMAGES[:5])], ignore_index=True)
        results = read([write(tmp_path / str(number), rows, {"r1": "p"})])
        summary = board_summary(results, boards(results, ""))
        assert summary == {"boards": [], "entrants": [], "left_out": 4}
