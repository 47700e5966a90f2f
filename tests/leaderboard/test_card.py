"""Cards say what the views say, in the fields that the hub's own library reads, and name what was not tested."""

import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import EvalResult, model_index_to_eval_results

from cnnsens_bench import open_results
from leaderboard.__main__ import main
from leaderboard.conditions import condition_text
from tests.leaderboard.made import sweep, write

NAME = "timm/c:median_filter(size=3)"
HOSTILE = "lab/x|`<img src=x onerror=alert(1)>`\n---\nevil: *yes*\u202e\x1b[31m$5 www.example.org"
LEVELS = {("gaussian_rgb", 4.0): 3, ("gaussian_rgb", 64.0): 3, ("pepper", 0.04): 2, ("flip_lr", 0.0): 1}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets; one run is budgeted, images failed, and timm/c lacks pepper noise."""
    rows = [sweep("r1", "d", range(60), 0, conditions=LEVELS), sweep("r2", "e", range(20), 1, conditions=LEVELS)]
    failures = pd.DataFrame(
        [("r1", "d", f"f{image}", "decode", "broken") for image in range(3)],
        columns=["run_id", "dataset", "image_id", "stage", "error"],
    )
    config = {"budget": 0.5, "dataset": {"name": "parquet", "options": {"hf": "lab/birds", "config": "small"}}}
    folder = tmp_path_factory.mktemp("store")
    return write(folder, pd.concat(rows), {"r1": "p", "r2": "q"}, failures=failures, config=config)


@pytest.fixture(scope="module")
def folder(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("card") / "new"
    assert main(["card", NAME, "--db", str(store), "--out", str(out), "--url", "https://example.org/board"]) == 0
    return out


@pytest.fixture(scope="module")
def results(folder: Path) -> list[EvalResult]:
    name, found = model_index_to_eval_results(json.loads((folder / "model-index.json").read_text())["model-index"])
    assert name == NAME
    return found


def test_the_library_of_the_hub_reads_the_card(folder: Path, results: list[EvalResult]) -> None:
    card = ModelCard.load(folder / "README.md")
    assert card.data.eval_results == results
    assert {(one.dataset_name, one.dataset_type, one.dataset_config, one.dataset_split) for one in results} == {
        ("d", "lab/birds", "small", "test"), ("e", "lab/birds", "small", "test"),
    }  # fmt: skip
    assert {one.source_url for one in results} == {"https://example.org/board"}
    front = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert front == json.loads((folder / "model-index.json").read_text())


def test_the_card_repeats_lists_instead_of_naming_them(folder: Path) -> None:
    front = (folder / "README.md").read_text("utf-8").split("---")[1]
    assert front.count("conditions:") > 1
    assert "&id" not in front


def test_the_numbers_are_those_of_the_views(store: Path, results: list[EvalResult]) -> None:
    views = open_results(store)
    for measure in ("accuracy", "label_change"):
        view = getattr(views, measure).query("model == 'timm/c' and defense != 'none' and degradation != 'none'")
        wanted = {
            (row.dataset, row.degradation, row.level): (row.value, row.low, row.high) for row in view.itertuples()
        }
        found = {
            (one.dataset_name, one.metric_args["degradation"], one.metric_args["level"]): (
                one.metric_value, one.metric_args["low"], one.metric_args["high"]
            )
            for one in results
            if one.metric_type == measure and "degradation" in one.metric_args
        }  # fmt: skip
        assert set(found) == set(wanted)
        for key, numbers in wanted.items():
            assert found[key] == pytest.approx(numbers, abs=1e-6)
    leaders = views.leaderboard.query("model == 'timm/c' and defense != 'none'").set_index("dataset")
    for one in results:
        if one.metric_type in ("mean_degraded_accuracy", "mean_label_change"):
            assert one.metric_value == pytest.approx(leaders.loc[one.dataset_name, one.metric_type], abs=1e-6)


def test_means_are_over_the_conditions_that_are_named(store: Path, results: list[EvalResult]) -> None:
    accuracy = open_results(store).accuracy.query("model == 'timm/c' and defense != 'none' and dataset == 'd'")
    texts = [condition_text(row.degradation, row.level) for row in accuracy.itertuples()]
    values = accuracy.assign(text=texts).set_index("text")
    [mean] = [one for one in results if (one.dataset_name, one.metric_type) == ("d", "mean_degraded_accuracy")]
    over = values.loc[mean.metric_args["conditions"]]
    assert mean.metric_value == pytest.approx(over.groupby("degradation")["value"].mean().mean(), abs=1e-6)
    assert results[0].metric_type == "accuracy"


def test_failure_points_are_those_of_the_database(store: Path, results: list[EvalResult]) -> None:
    own = open_results(store).failure_points().query("model == 'timm/c' and defense != 'none'")
    wanted = {
        (row.dataset, row.criterion): row.level
        for row in own.itertuples()
        if not math.isnan(row.level) and row.degradation == "gaussian_rgb"
    }
    found = {
        (one.dataset_name, one.metric_args["criterion"]): one.metric_value
        for one in results
        if one.metric_type == "failure_point"
    }
    assert set(found) == set(wanted)
    for key, level in wanted.items():
        if math.isinf(level):
            assert found[key].startswith("beyond σ=64")
        else:
            assert found[key] == pytest.approx(level, rel=1e-5)


def test_what_was_not_tested_is_said(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    first, second = text.split("\n## ")[1:]
    assert "conditions that this one lacks: pepper p=0.04." in first
    assert "3 images failed while they were processed (stage decode)." in first
    assert "failed while" not in second
    assert "of the degraded cells (image, degradation, level, trial) are evaluated" in first
    assert "has the status running" in first
    for heading in ("ECE", "NLL", "Failure points", "Seed: 0" if "Seed: 0" in first else "Seed"):
        assert heading in first
    rows = re.findall(r"^\| gaussian\\_rgb σ=4 \| 60 \| ", first, re.MULTILINE)
    assert len(rows) == 1


def test_hostile_names(tmp_path: Path) -> None:
    rows = sweep("r", "d|`e`\n# big", range(10, 20), 0, (HOSTILE,), ("none",), LEVELS)
    path = write(tmp_path, rows, {"r": "p"})
    assert main(["card", HOSTILE, "--db", str(path), "--out", str(tmp_path / "card")]) == 0
    card = ModelCard.load(tmp_path / "card" / "README.md")
    assert card.data.eval_results[0].dataset_name == r"d|`e`\n# big"
    assert set(card.data.to_dict()) == {"tags", "model-index"}
    heading = next(line for line in card.text.splitlines() if line.startswith("# Robustness"))
    assert "\\<img src=x" in heading
    assert "\\|\\`" in heading
    assert "www\\.example" in heading
    assert not re.search(r"(?<!\\)<img|\x1b|\u202e|^evil", card.text, re.MULTILINE)
    for table in re.findall(r"(?:^\|.*\n)+", card.text, re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1, table


def test_wrong_requests(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", "timm/d", "--db", str(store), "--out", str(tmp_path)]) == 2
    assert "unknown entrant 'timm/d': did you mean" in capsys.readouterr().err
    (tmp_path / "README.md").write_text("# My project\n")
    assert main(["card", NAME, "--db", str(store), "--out", str(tmp_path)]) == 2
    assert "was not written by this command: choose another --out" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == "# My project\n"
    assert main(["card", NAME, "--db", str(store), "--out", str(tmp_path / "README.md" / "x")]) == 2
    assert "choose another --out" in capsys.readouterr().err


def test_a_card_is_written_again(store: Path, folder: Path) -> None:
    before = (folder / "README.md").read_text()
    assert main(["card", NAME, "--db", str(store), "--out", str(folder), "--url", "https://example.org/board"]) == 0
    assert (folder / "README.md").read_text() == before
