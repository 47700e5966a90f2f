"""Figures and tables say which share of the cells was evaluated, and nothing where nothing was left out."""

from pathlib import Path

import pandas as pd
import pytest

from cnnsens_bench.figures.catalogue import ALL_FIGURES
from cnnsens_bench.figures.evaluated import evaluated_caption
from cnnsens_bench.store import Store
from tests.leaderboard.budgeted import chosen, made
from tests.leaderboard.made import write


@pytest.fixture(scope="module")
def budgeted(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("budgeted")
    other = made("r2", 1, "timm/b").assign(dataset="e")
    rows = pd.concat([chosen(made("r1", 0, "torchvision/alexnet", "timm/b"), 0.3), other])
    write(folder, rows, {"r1": "p", "r2": "q"}, config={"budget": 0.3})
    return Store(folder)


@pytest.mark.parametrize("name", ["curves", "fig2", "depth"])
def test_figures_say_the_share(budgeted: Store, tmp_path: Path, name: str) -> None:
    figure = ALL_FIGURES[name](budgeted, tmp_path / "figure.png", dataset="d")
    assert figure is not None
    [share] = set(budgeted.query("SELECT share FROM evaluated_share WHERE dataset = 'd'")["share"])
    assert figure.get_suptitle().splitlines()[-1] == f"{100 * share:.1f} % of the degraded cells evaluated"


def test_the_risk_coverage_figure_says_the_share(budgeted: Store, tmp_path: Path) -> None:
    figure = ALL_FIGURES["risk-coverage"](budgeted, tmp_path / "figure.png", dataset="d", model="torchvision/alexnet")
    assert figure is not None
    assert figure.get_suptitle().endswith("% of the degraded cells evaluated")


def test_tables_say_it_in_their_titles(budgeted: Store, tmp_path: Path) -> None:
    ALL_FIGURES["table1"](budgeted, tmp_path / "table.tex", dataset="d")
    caption = next(line for line in (tmp_path / "table.tex").read_text().splitlines() if "caption" in line)
    assert "of the degraded cells evaluated" in caption


def test_several_data_sets_are_named(budgeted: Store) -> None:
    shown = budgeted.query("FROM accuracy")
    text = evaluated_caption(budgeted, shown)
    assert "d: " in text
    assert "e: 100.0 % of the degraded cells evaluated" in text


def test_without_a_budget_there_is_no_caption(tmp_path: Path) -> None:
    write(tmp_path, made("r1", 0, "timm/b"), {"r1": "p"})
    store = Store(tmp_path)
    assert evaluated_caption(store, store.query("FROM accuracy")) == ""
    figure = ALL_FIGURES["curves"](store, tmp_path / "figure.png")
    assert figure is not None
    assert "evaluated" not in figure.get_suptitle()
