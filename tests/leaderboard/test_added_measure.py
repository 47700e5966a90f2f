"""A measure is one decorated function: ranking, page and summary then have it."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from cnnsens_bench.figures.summary import print_summary
from cnnsens_bench.measures import EntrantResults, measure, measures
from cnnsens_bench.store import Store
from leaderboard.__main__ import main
from leaderboard.page import data
from leaderboard.read import read
from tests.leaderboard.made import sweep, write

PLUGIN = """
from cnnsens_bench.measures import measure

@measure("half", "Half of the accuracy", "%", higher_is_better=True, ranked_among="same_images")
def half(entrant):
    "Half of the undegraded accuracy."
    return entrant.at_undegraded(entrant.accuracy) / 2
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write(tmp_path, sweep("r", "d", range(20), 0), {"r": "p"})


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register a measure, and remove it after the test."""
    monkeypatch.setattr(measures, "data", dict(measures))

    @measure("median_errors", "Median error", "%", higher_is_better=False, digits=2, summary="median\nerror")
    def median_errors(entrant: EntrantResults) -> np.ndarray:
        """The median over degraded conditions
        of the error."""
        return np.median(1 - entrant.accuracy[:, entrant.averaged], axis=1)


def board_of(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    content = data(read([path]), "torchvision/alexnet")
    (board,) = content["boards"]
    return content, board


@pytest.mark.usefixtures("added")
def test_ranking_page_and_summary_have_it(store: Path) -> None:
    content, board = board_of(store)
    column = content["columns"][-1]
    assert (column["name"], column["heading"], column["digits"]) == ("median_errors", "Median error", 2)
    assert column["explanation"] == "The median over degraded conditions of the error."
    console = Console(file=io.StringIO(), width=120)
    print_summary(console, Store(store.parent), "p", "d")
    assert isinstance(console.file, io.StringIO)
    ranking = console.file.getvalue().split("\n\n")[0]
    assert re.search(r"median.*\n.*error", ranking)
    comparable = [one for one in board["entrants"] if one["comparable"]]
    assert 2 <= len(comparable) < len(board["entrants"])
    for one in board["entrants"]:
        errors = [1 - found[0] for i, found in enumerate(one["accuracy"]) if found and i > 0]
        value, low, high = one["stats"]["median_errors"]
        assert value == pytest.approx(np.median(errors), abs=1e-6)
        assert low <= value <= high
        assert low < high
        assert f" {100 * value:.2f} " in ranking
        if not one["comparable"]:
            assert "median_errors" not in one["ranks"]
            continue
        others = [other["stats"]["median_errors"][0] for other in comparable]
        first, last = one["ranks"]["median_errors"]
        assert 1 <= first <= sorted(others).index(value) + 1 <= last <= len(others)


def test_without_it_nothing_has_it(store: Path) -> None:
    content, board = board_of(store)
    assert "median_errors" not in {column["name"] for column in content["columns"]}
    assert not any("median_errors" in one["stats"] for one in board["entrants"])


def test_a_plugin_adds_one_to_the_page(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "data", dict(measures))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "halves_of_accuracy.py").write_text(PLUGIN)
    out = tmp_path / "site"
    assert main(["build", "--db", str(store), "--out", str(out), "--plugin", "halves_of_accuracy"]) == 0
    text = (out / "index.html").read_text(encoding="utf-8")
    content = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    assert content["columns"][-1]["name"] == "half"
    for one in content["boards"][0]["entrants"]:
        assert one["stats"]["half"][0] == pytest.approx(one["stats"]["accuracy"][0] / 2, abs=1e-6)
        assert "half" in one["ranks"]
    assert main(["build", "--db", str(store), "--out", str(out), "--plugin", "no_such_module"]) == 2


@pytest.mark.parametrize("module", ["leaderboard.__main__", "leaderboard.page", "leaderboard.compare"])
def test_the_leaderboard_imports_no_torch_and_no_ray(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'ray', 'hydra', 'mlflow'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "[]\n"
