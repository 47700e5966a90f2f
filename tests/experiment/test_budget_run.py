"""Runs on a budget: their rows are some of a whole run's, and a raised budget computes the difference alone."""

import io
import re
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from cnnsens_bench.config.compose import compose
from cnnsens_bench.experiment import profiling
from cnnsens_bench.experiment.estimate import CostEstimate, estimate, wanted_counts
from cnnsens_bench.experiment.prepare import prepare
from cnnsens_bench.experiment.profiling import WantedCounts
from cnnsens_bench.run import main
from cnnsens_bench.store import Store
from tests.conftest import TINY
from tests.test_run import ROWS, words

KEY = ["image_id", "model", "defense", "degradation", "level", "trial"]
CELLS = 2 * 2 * 3 + 1
"""The degraded cells of an image under the conditions of `words`."""


def request(pictures: Path, cache: Path, output: Path, *more: str) -> list[str]:
    models = f"models=[{{name: {TINY}, weights: random}},{{name: timm/test_efficientnet, weights: random}}]"
    return words(pictures, cache, output, models, "defenses=[none]", "training.epochs=0", "limit=6", *more)


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("whole")
    assert main(request(pictures, folder / "cache", folder)) == 0
    return Store(folder).query(ROWS)


def counted(said: str) -> tuple[int, int, int]:
    """Return what a run says of its evaluations: stored, all, and computed."""
    stored = re.search(r"resuming: (\d+) of (\d+) evaluations", said)
    computed = re.search(r"sweep: (\d+) evaluations", said)
    return (int(stored[1]) if stored else 0, int(stored[2]) if stored else 0, int(computed[1]) if computed else 0)


def test_a_raised_budget_computes_the_difference_and_the_rows_of_a_whole_run(
    whole: pd.DataFrame,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(profiling, "LEAST", 0.0)
    there, sizes = Store(tmp_path / "out"), []
    expected: CostEstimate | WantedCounts
    for budget in (0.2, 0.5):
        stored = len(there.query(ROWS)) if sizes else 0
        asked = request(pictures, tmp_path / "cache", tmp_path / "out", f"budget={budget}")
        if stored:
            shown = io.StringIO()
            expected = estimate(compose([*asked, "until=1"]), Console(file=shown, width=200))
            assert expected.stored == stored
            assert expected.first_round is not None
            assert 0 < expected.first_round < expected.evaluations
            assert f"until: at least {expected.first_round} of these evaluations, about" in shown.getvalue()
        else:
            study = prepare(compose(asked))
            expected = wanted_counts(None, study.sweep(), study.images, study.protocol)
        capsys.readouterr()
        assert main(asked) == 0
        table, said = there.query(ROWS), capsys.readouterr().out
        assert counted(said) == (stored, stored and len(table), len(table) - stored)
        assert expected.evaluations == len(table) - stored
        share = Store(tmp_path / "out").query("FROM evaluated_share")
        assert (share["cells"] == (len(table) - 6 * 2) / 2).all()
        assert (share["share"] == share["cells"] / (6 * CELLS)).all()
        assert f"{100 * share['share'][0]:.1f} % of the degraded cells evaluated" in " ".join(said.split())
        cells = table[table["degradation"] != "none"].groupby(["image_id", "model"]).size()
        assert set(cells) <= {int(budget * CELLS), int(budget * CELLS) + 1}
        per_network = [
            set(rows[[KEY[0], *KEY[3:]]].itertuples(index=False, name=None)) for _, rows in table.groupby("model")
        ]
        assert per_network[0] == per_network[1]
        pd.testing.assert_frame_equal(table, whole.merge(table[KEY]))  # bit for bit, whatever shares a forward pass
        sizes.append(len(table))
    assert 6 * 2 < sizes[0] < sizes[1] < len(whole)


@pytest.mark.parametrize("budget", ["0", "-0.5", "1.5", "nan"])
def test_an_impossible_budget_is_refused(budget: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suite=quick", f"budget={budget}"]) == 2
    assert "error: budget is" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_rounds_compute_rows_of_a_whole_run(
    whole: pd.DataFrame, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    """Six images never tell a mean to a hundredth of a point, so that the rounds end with the budget."""
    asked = request(pictures, tmp_path / "cache", tmp_path / "out", f"cluster.engine={engine}", "budget=0.7")
    assert main([*asked, "until=0.01"]) == 0
    table, said = Store(tmp_path / "out").query(ROWS), capsys.readouterr().out
    pd.testing.assert_frame_equal(table, whole.merge(table[KEY]))
    cells = table[table["degradation"] != "none"].groupby(["image_id", "model"]).size()
    assert set(cells) <= {int(0.7 * CELLS), int(0.7 * CELLS) + 1}
    assert "round 1 of at most 2: 2 networks, 40 % of the degraded cells" in said
    assert "round 2 of at most 2: 2 networks, 70 % of the degraded cells" in said
    assert "until=0.01 is not reached with the whole budget" in said
    assert "% of the degraded cells evaluated" in " ".join(said.split())
