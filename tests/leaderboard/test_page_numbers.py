"""What a reader takes from the page: tables as CSV and JSON, the rows as Parquet, and SQL that makes tables of them."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from leaderboard.aggregate import boards
from leaderboard.beside import write_beside
from leaderboard.page import data
from leaderboard.read import read
from tests.leaderboard.browsing import NEEDS_CHROMIUM, embedded, find, press, visit
from tests.leaderboard.made import HOSTILE, sweep, write
from tests.leaderboard.plain import per_image
from tests.leaderboard.test_budget import chosen, made
from tests.leaderboard.test_numbers import unlike

CLOSE = 2e-6
"""The page rounds its numbers to six decimals."""
MEASURES = ("accuracy", "mean_degraded_accuracy", "mean_label_change", "worst_accuracy", "top5", "top5_degraded", "nll",
            "nll_degraded")  # fmt: skip


def whole(folder: Path) -> list[Path]:
    """Return a database with what `made.sweep` lacks, on two data sets."""
    rows = pd.concat([sweep("r1", "d", range(20), 0), sweep("r1", "e", range(9), 2, HOSTILE[:3])], ignore_index=True)
    return [write(folder, rows, {"r1": "p"})]


def under_unlike_conditions(folder: Path) -> list[Path]:
    return [write(folder, unlike(), {"r1": "p"})]


def on_budgets(folder: Path) -> list[Path]:
    """Return databases of two budgets, so that only shared cells are compared."""
    return [
        write(folder / "one", made("r1", 0, "torchvision/alexnet"), {"r1": "p"}, config={"budget": 1.0, "trials": 3}),
        write(folder / "other", chosen(made("r2", 1, "timm/b"), 0.3), {"r2": "p"}, config={"budget": 0.3, "trials": 3}),
    ]


@pytest.mark.parametrize("databases", [whole, under_unlike_conditions, on_budgets])
def test_sql_on_the_rows_gives_the_tables(databases: Any, tmp_path: Path) -> None:
    paths = databases(tmp_path)
    results = read(paths)
    found = boards(results, "torchvision/alexnet")
    write_beside(results, found, tmp_path / "data")
    content = data(results, "torchvision/alexnet", found)
    for board in content["boards"]:
        file = str(tmp_path / "data" / f"{board['id']}.parquet")

        def ask(name: str, file: str = file) -> dict[tuple, dict[str, Any]]:
            rows = duckdb.execute(content["sql"][name], {"file": file}).df()
            key = [column for column in ("model", "defense", "degradation", "level") if column in rows]
            return rows.set_index(key).to_dict("index")

        ranking, conditions, heat = ask("ranking"), ask("conditions"), ask("heat")
        assert len(ranking) == len(board["entrants"])
        for one in board["entrants"]:
            key = one["model"], one["defense"]
            for name in MEASURES:
                assert ranking[key][name] == pytest.approx(one["stats"][name][0], abs=CLOSE), name
            for i, condition in enumerate(board["conditions"]):
                row = conditions.get((*key, condition["degradation"], condition["level"]))
                assert (row is None) == (one["accuracy"][i] is None)
                if row:
                    assert row["accuracy"] == pytest.approx(one["accuracy"][i][0], abs=CLOSE)
                if one["change"][i]:
                    assert row["label_change"] == pytest.approx(one["change"][i][0], abs=CLOSE)
            for name, values in one["by_degradation"].items():
                found = heat[(*key, name)]
                assert [found["accuracy"], found["label_change"]] == pytest.approx(values, abs=CLOSE)
        fragile = duckdb.execute(content["sql"]["fragile"], {"file": file}).df()
        for one in board["entrants"]:
            own = fragile[(fragile["model"] == one["model"]) & (fragile["defense"] == one["defense"])]
            shares = {image: share for image, _, share in one["fragile"]}
            assert own["label_change"].tolist() == pytest.approx(list(shares.values()), abs=CLOSE)
            least = min(shares.values(), default=0)
            assert set(own["image_id"][own["label_change"] > least + CLOSE]) == {
                image for image, share in shares.items() if share > least + CLOSE
            }


def test_the_rows_are_those_of_the_predictions(tmp_path: Path) -> None:
    rows = sweep("r1", "d", range(30), 0)
    results = read([write(tmp_path, rows, {"r1": "p"})])
    write_beside(results, boards(results, "torchvision/alexnet"), tmp_path / "data")
    [file] = (tmp_path / "data").glob("*.parquet")
    found = pd.read_parquet(file)
    for (model, defense), own in rows.groupby(["model", "defense"]):
        wanted = per_image(own).set_index(["degradation", "level", "image_id"]).sort_index()
        there = found[(found["model"] == model) & (found["defense"] == defense)]
        there = there.astype({"degradation": str, "image_id": str}).set_index(["degradation", "level", "image_id"])
        there = there.sort_index()
        assert there.index.equals(wanted.index)
        for name, column in (("accuracy", "hit"), ("top5", "top5"), ("nll", "nll")):
            assert there[name].to_numpy() == pytest.approx(wanted[column].to_numpy(), rel=1e-6), name
        degraded = wanted.index.get_level_values(0) != "none"
        change = there["label_change"].to_numpy(), wanted["changed"].to_numpy()
        assert change[0][degraded] == pytest.approx(change[1][degraded], nan_ok=True)
        assert there["class_name"].iloc[0] == "class of " + there.index[0][2]


def taken(browser: Any, table: str) -> list[dict[str, str]]:
    """Return the rows of a table as the page writes them as CSV, which must be those that it writes as JSON."""
    text, content = browser.execute_script(
        "const rows = TABLES[arguments[0]](); return [csv(rows), json(arguments[0], rows)]", table
    )
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    same = json.loads(content)
    assert same["table"] == table
    assert len(rows) == len(same["rows"])
    for row, one in zip(rows, same["rows"], strict=True):
        assert list(row) == list(one)
        for name, value in one.items():
            text = "" if value is None else str(value).lower() if isinstance(value, bool) else value
            assert (float(row[name]) if isinstance(text, (int, float)) else row[name]) == text
    return rows


@NEEDS_CHROMIUM
def test_tables_as_csv_and_json(browser: Any, site: str) -> None:
    board = embedded(browser)["boards"][0]
    by_key = {(one["model"], one["defense"]): one for one in board["entrants"]}
    ranking = taken(browser, "ranking")
    assert {(row["model"], row["defense"]) for row in ranking} == set(by_key)
    for row in ranking:
        one = by_key[row["model"], row["defense"]]
        for name, (value, low, _) in one["stats"].items():
            assert float(row[name]) == value
            assert row[f"{name}_low"] == ("" if low is None else str(low)) or float(row[f"{name}_low"]) == low
    conditions = taken(browser, "conditions")
    assert len(conditions) == sum(found is not None for one in board["entrants"] for found in one["accuracy"])
    assert len(taken(browser, "heat")) == sum(len(one["by_degradation"]) for one in board["entrants"])
    assert len(taken(browser, "fragile")) == sum(len(one["fragile"]) for one in board["entrants"])
    assert any(row["on_front"] == "true" for row in taken(browser, "tradeoff"))
    assert taken(browser, "compare") == taken(browser, "images") == []
    hostile = embedded(browser)["boards"][1]
    visit(browser, f"{site}#board={hostile['id']}")
    assert {row["model"] for row in taken(browser, "ranking")} == set(HOSTILE)


@NEEDS_CHROMIUM
@pytest.mark.parametrize("measure", ["accuracy", "change"])
def test_the_comparison_as_csv_and_its_sql(
    browser: Any, site: str, measure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    board = embedded(browser)["boards"][0]
    a, b = (one["id"] for one in board["entrants"][:2])
    visit(browser, f"{site}#a={a}&b={b}&measure={measure}")
    WebDriverWait(browser, 20).until(lambda one: "better" in find(one, "#pairstatus").text)
    rows = taken(browser, "compare")
    press(browser, "[data-take='compare.sql']")
    assert find(browser, "[data-take='compare.sql']").get_attribute("aria-expanded") == "true"
    text = browser.execute_script("return document.querySelector('#pairresult .sqltext pre').textContent")
    monkeypatch.chdir(Path(site.removeprefix("file://")).parent)
    asked = duckdb.sql(text).df()
    assert len(asked) == len(rows)
    for row, wanted in zip(rows, asked.to_dict("records"), strict=True):
        for name, value in wanted.items():
            assert row[name] == value or float(row[name]) == pytest.approx(value, abs=1e-9), name
    listed = pd.DataFrame(taken(browser, "images"))
    counts = listed.groupby(["degradation", listed["level"].astype(float), "more"]).size()
    for row in rows:
        for side, name in (("A", "images_for_first"), ("B", "images_for_second")):
            assert counts.get((row["degradation"], float(row["level"]), side), 0) == int(row[name])
    browser.execute_script("const s = document.getElementById('pair-b'); s.value = arguments[0];"
                           "s.dispatchEvent(new Event('change'))", board["entrants"][2]["id"])  # fmt: skip
    assert find(browser, "[data-take='compare.sql']").get_attribute("aria-expanded") == "false"


@NEEDS_CHROMIUM
def test_a_table_is_downloaded(chromium: Any, site: str, tmp_path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    chromium.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    visit(chromium, site)
    for kind in ("csv", "json"):
        press(chromium, f"[data-take='ranking.{kind}']")
        file = tmp_path / f"d-ranking.{kind}"
        WebDriverWait(chromium, 10).until(lambda _, file=file: file.exists() and file.stat().st_size)
    assert file.read_text("utf-8").startswith("{")
    link = chromium.execute_script("return document.getElementById('parquet').href")
    assert Path(link.removeprefix("file://")).is_file()
    assert chromium.get_log("browser") == []
    chromium.get_log("performance")  # drops the requests of this test
