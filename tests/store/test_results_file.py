"""The file `results.json` follows the published schema, has the numbers of the views, and hides folders."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest

from cnnsens_bench.store import Store
from cnnsens_bench.store.results_file import current_schema, results_json, results_schema
from tests.leaderboard.made import sweep, timings, write

CONFIG = {
    "seed": 0, "study": "birds", "data_root": "/home/maker/data", "output": "/home/maker/runs",
    "models": [{"name": "timm/b", "weights": "/home/maker/b.pth"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of two boards; image 7 has no undegraded row, timm/c no pepper."""
    rows = pd.concat([sweep("r1", "birds", range(9), 0), sweep("r2", "pets", range(4), 1, models=["timm/b"])])
    failures = pd.DataFrame(
        [("r1", "birds", "i90", "decode", "x"), ("r1", "birds", "", "train", "y")],
        columns=["run_id", "dataset", "image_id", "stage", "error"],
    )
    folder = tmp_path_factory.mktemp("results")
    write(folder, rows, {"r1": "p1", "r2": "p1"}, failures=failures, config=CONFIG, speed=timings(rows))
    found = Store(folder)
    found.finish_run("r1", "incomplete")
    return found


@pytest.fixture(scope="module")
def content(store: Store) -> dict[str, Any]:
    return json.loads(results_json(store))


def test_it_follows_the_published_schema(content: dict[str, Any]) -> None:
    assert results_schema() == current_schema(), "write current_schema() to store/results.schema.json"
    schema = json.loads(results_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(content, schema)
    for change in ({"format": "other"}, {"more": 1}, {"boards": [{"protocol": "p"}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(content | change, schema)


def test_its_numbers_are_those_of_the_views(store: Store, content: dict[str, Any]) -> None:
    shown = 0
    for view, column in (("accuracy", "accuracy"), ("label_change", "label_change")):
        rows = store.query(f"FROM {view}").set_index(["dataset", "model", "defense", "degradation", "level"])
        for board in content["boards"]:
            for one in board["entrants"]:
                for condition in one["conditions"]:
                    key = (board["dataset"], one["model"], one["defense"])
                    key += (condition["degradation"], condition["level"])
                    found = [condition[name] for name in (column, f"{column}_low", f"{column}_high")]
                    if key not in rows.index:
                        assert found == [None] * 3
                        continue
                    assert found == pytest.approx(rows.loc[key, ["value", "low", "high"]].tolist(), abs=1e-8)
                    shown += 1
        assert shown == len(rows) > 20
        shown = 0
    leaders = store.query("FROM leaderboard").set_index(["dataset", "model", "defense"])
    for board in content["boards"]:
        means = [one["mean_degraded_accuracy"] for one in board["entrants"]]
        assert means == sorted(means, reverse=True)
        for one in board["entrants"]:
            row = leaders.loc[(board["dataset"], one["model"], one["defense"])]
            for column in ("mean_degraded_accuracy", "mean_label_change", "worst_accuracy", "images_per_second"):
                assert one[column] == pytest.approx(row[column], abs=1e-8)
            assert one["weights_sha256"] == f"w{one['model']}{one['defense']}"


def test_runs_and_boards_are_there_and_folders_are_not(content: dict[str, Any], store: Store) -> None:
    assert [(board["protocol"], board["dataset"]) for board in content["boards"]] == [("p1", "birds"), ("p1", "pets")]
    first, second = content["runs"]
    assert (first["run_id"], first["status"], first["study"], first["failed_images"]) == (
        "r1",
        "incomplete",
        "birds",
        1,
    )
    assert (second["status"], second["finished_at"], second["failed_images"]) == ("running", None, 0)
    assert first["started_at"] <= first["finished_at"]
    assert first["config"]["data_root"] == "<folder>/data"
    assert "maker" not in results_json(store).decode()
    assert {run for one in content["boards"][1]["entrants"] for run in one["runs"]} == {"r2"}


def test_an_empty_store_has_a_file_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    content = json.loads(results_json(store))
    jsonschema.validate(content, json.loads(results_schema()))
    assert (content["runs"], content["boards"]) == ([], [])
