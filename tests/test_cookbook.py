"""Every query of the SQL cookbook runs on a made-up store and gives what pandas gives."""

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from tests.leaderboard.made import sweep, write

COOKBOOK = Path(__file__).parents[1] / "docs" / "howto" / "sql-cookbook.md"
QUERIES = dict(
    re.findall(
        r"^\*\*(\d)\. [^`]*?(?:`[^`\n]+`[^`]*?)*^```sql\n(.*?)^```$", COOKBOOK.read_text(encoding="utf-8"), re.M | re.S
    )
)
MODELS = ("torchvision/alexnet", "torchvision/googlenet", "timm/c")
CONDITIONS = {
    **{("gaussian_rgb", level): 2 for level in (8.0, 16.0, 32.0)},
    **{("pepper", level): 2 for level in (0.04, 0.16)},
    ("flip_lr", 0.0): 1,
}


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return pd.concat(
        [
            sweep("r1", "birds", range(7), 0, models=MODELS, conditions=CONDITIONS),
            sweep("r2", "birds", range(5), 1, models=MODELS, conditions=CONDITIONS),
        ]
    )


@pytest.fixture(scope="module")
def database(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    path = write(tmp_path_factory.mktemp("cookbook"), rows, {"r1": "p1", "r2": "p2"})
    with duckdb.connect(str(path), read_only=True) as connection:
        yield connection


def test_there_are_eight_with_an_answer_each() -> None:
    assert list(QUERIES) == [str(number) for number in range(1, 9)]
    text = COOKBOOK.read_text(encoding="utf-8")
    assert text.count("```sql") == 8
    for query in QUERIES.values():
        answer = text.split(query + "```\n\n")[1].split("\n\n")[0].splitlines()
        assert 3 <= len(answer) <= 10
        assert all(line.startswith(("| ", "|---")) for line in answer)


@pytest.mark.parametrize("number", QUERIES)
def test_each_gives_rows_and_never_mixes_protocols(database: duckdb.DuckDBPyConnection, number: str) -> None:
    found = database.execute(QUERIES[number]).df()
    assert {"protocol", "dataset"} <= set(found.columns)
    if number != "3":  # the five most fragile images may all be of one protocol
        assert set(found["protocol"]) == {"p1", "p2"}
    assert len(found)


def undefended(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the undefended rows of the run r1, with hits and changes."""
    chosen = rows[(rows["run_id"] == "r1") & (rows["defense"] == "none")].copy()
    chosen["hit"] = (chosen["prediction"] == chosen["label"]).astype(float)
    undegraded = chosen[chosen["degradation"] == "none"].set_index(["model", "image_id"])["prediction"]
    index = pd.MultiIndex.from_frame(chosen[["model", "image_id"]])
    chosen["changed"] = (chosen["prediction"].to_numpy() != undegraded.reindex(index).to_numpy()).astype(float)
    return chosen


def answer(database: duckdb.DuckDBPyConnection, number: int) -> pd.DataFrame:
    found = database.execute(QUERIES[str(number)]).df()
    return found[found["protocol"] == "p1"]


def test_accuracy_lost_and_first_level(database: duckdb.DuckDBPyConnection, rows: pd.DataFrame) -> None:
    cells = ["architecture", "degradation", "level"]
    share = undefended(rows).groupby([*cells, "image_id"])["hit"].mean().groupby(cells).mean().reset_index()
    clean = share[share["degradation"] == "none"].set_index("architecture")["hit"]
    share["lost"] = 100 * (share["architecture"].map(clean) - share["hit"])
    lost = share[share["degradation"] != "none"].groupby(["degradation", "architecture"])["lost"].mean().unstack()
    found = answer(database, 1).set_index("degradation")
    np.testing.assert_allclose(found["loses"], lost.min(axis=1)[found.index].round(1), atol=0.051)
    np.testing.assert_allclose(found["loses_most"], lost.max(axis=1)[found.index].round(1), atol=0.051)
    below = share[(share["hit"] < 0.8) & (share["level"] > 0)].groupby(["architecture", "degradation"])["level"].min()
    table = answer(database, 2).set_index("architecture")
    for architecture in table.index:
        for degradation in ("gaussian_rgb", "pepper"):
            level = table.loc[architecture, degradation]
            assert below.get((architecture, degradation), np.nan) == pytest.approx(level, nan_ok=True)


def test_fragile_images_and_classes(database: duckdb.DuckDBPyConnection, rows: pd.DataFrame) -> None:
    chosen = undefended(rows)
    cells = ["image_id", "model", "degradation", "level"]
    degraded = chosen[chosen["degradation"] != "none"]
    fragile = degraded.groupby(cells)["changed"].mean().groupby("image_id").mean()
    found = answer(database, 3).set_index("image_id")["label_change"]
    np.testing.assert_allclose(found, fragile[found.index], atol=6e-4)
    noisy = chosen[(chosen["degradation"] == "gaussian_rgb") & (chosen["level"] == 32)]
    share = noisy.groupby(["image_id", "model"])["hit"].mean().groupby("image_id").mean()
    classes = answer(database, 4).set_index("class_name")["noisy"]
    np.testing.assert_allclose(classes, 100 * share[classes.index.str.removeprefix("class of ")], atol=0.051)


def test_pairs_calibration_and_mce(database: duckdb.DuckDBPyConnection, rows: pd.DataFrame) -> None:
    chosen = undefended(rows)
    sums = chosen.groupby(["degradation", "level", "image_id", "model"])["hit"].sum().unstack()
    for row in answer(database, 6).itertuples():
        pair = sums.loc[(row.degradation, row.level)]
        more = (pair["torchvision/alexnet"] > pair["torchvision/googlenet"]).sum()
        less = (pair["torchvision/alexnet"] < pair["torchvision/googlenet"]).sum()
        assert (row.alexnet, row.googlenet) == (more, less)
        assert row.p == pytest.approx(binomtest(int(more), int(more + less)).pvalue if more + less else 1)
    table = answer(database, 7).set_index("architecture")
    for (architecture, level), cell in chosen[chosen["degradation"].isin(["none", "gaussian_rgb"])].groupby(
        ["architecture", "level"]
    ):
        bins = np.ceil(cell["confidence"].astype(np.float32) * np.float32(15))
        gaps = (cell["hit"] - cell["confidence"]).groupby(bins).sum().abs().sum() / len(cell)
        assert table.loc[architecture, str(int(level))] == pytest.approx(gaps, abs=6e-4)
    every = rows[rows["run_id"] == "r1"].assign(wrong=lambda t: (t["prediction"] != t["label"]).astype(float))
    cells = ["model", "defense", "degradation", "level"]
    errors = every[every["degradation"] != "none"].groupby([*cells, "image_id"])["wrong"].mean().groupby(cells).mean()
    sums = errors.groupby(cells[:3]).sum().unstack()
    ratio = 100 * (sums / sums.loc[("torchvision/alexnet", "none")]).mean(axis=1)
    found = answer(database, 8).set_index(["model", "defense"])["mce"]
    np.testing.assert_allclose(found, ratio[found.index], atol=0.051)
