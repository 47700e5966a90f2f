"""`open_results`: tables and views as pandas, queries, figures, and what a notebook shows."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from cnnsens_bench import Results, UserError, open_results
from tests.leaderboard.made import sweep, write
from tests.store.scored import predicted_rows, score_rows, scored_store, sweep_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("results"), sweep("r1", "birds", range(6), 0), {"r1": "p1"}).parent


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return open_results(folder)


def test_tables_and_views_are_attributes(results: Results, folder: Path) -> None:
    assert len(results.predictions) == results.query("SELECT count(*) AS n FROM predictions")["n"].item()
    assert {"model", "defense", "n_conditions"} <= set(results.leaderboard.columns)
    assert set(results.accuracy["degradation"]) == {"none", "gaussian_rgb", "pepper", "flip_lr"}
    assert results.label_change["value"].between(0, 1).all()
    assert {"runs", "images", "models", "failures", "speed", "defense_gain"} <= set(dir(results))
    assert open_results(str(folder / "results.duckdb")).names == results.names


def test_queries_take_parameters(results: Results) -> None:
    found = results.query("FROM accuracy WHERE degradation = ? AND level = ?", "gaussian_rgb", 8)
    assert set(found["level"]) == {8.0}
    relative = results.mce("torchvision/alexnet").set_index(["model", "defense"])["mce"]
    assert relative["torchvision/alexnet", "none"] == 1


def test_names_that_are_not_there(results: Results, tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="no table or view 'acuracy': did you mean 'accuracy'"):
        _ = results.acuracy
    with pytest.raises(UserError, match="unknown figure 'curve': did you mean 'curves'"):
        results.plot("curve")
    with pytest.raises(UserError, match="there is no database"):
        open_results(tmp_path)


def test_figures_are_matplotlib_figures(results: Results) -> None:
    figure = results.plot("curves", defense="none")
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 1
    assert isinstance(results.plot("defenses", model="torchvision/alexnet"), Figure)
    assert isinstance(results.plot("table1"), Figure)
    with pytest.raises(UserError, match="no sensitivity scores"):
        results.plot("predictors")


def test_figures_of_scores_take_the_options_of_the_command(tmp_path: Path) -> None:
    scores = score_rows()
    scored = open_results(scored_store(tmp_path, sweep_rows(), scores, predicted_rows(scores)).path)
    model = scored.sensitivity["model"].iloc[0]
    for name in ("fig6", "predictors", "label-change"):
        assert isinstance(scored.plot(name, model=model), Figure)
    assert isinstance(scored.plot("fig6", model=model, output="probability"), Figure)


def test_a_notebook_shows_the_leaderboard(results: Results) -> None:
    shown = results._repr_html_()
    assert "<table" in shown
    assert "torchvision/alexnet" in shown
    assert "label_change" in repr(results)


def test_a_copy_of_a_uri_is_removed(folder: Path) -> None:
    with open_results(f"local://{folder}") as remote:
        copy = Path(remote._store.path)
        assert copy.is_file()
        assert copy.parent != folder
        assert len(remote.models)
    assert not copy.exists()
