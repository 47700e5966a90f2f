"""Runs in rounds, over made-up predictions: who takes part in which round, what is said, and how a run goes on."""

import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from cnnsens_bench.config.compose import compose
from cnnsens_bench.config.schema import Config
from cnnsens_bench.datasets import make_samples
from cnnsens_bench.datasets.sample_table import ImageSelection
from cnnsens_bench.engine.budget import CellChoice
from cnnsens_bench.engine.plan import plan
from cnnsens_bench.engine.sweep import Condition, Entrant, Sweep
from cnnsens_bench.experiment.rounds import require_rounds, run_in_rounds
from cnnsens_bench.measures.intervals import Z
from cnnsens_bench.run import main
from cnnsens_bench.store import Store
from cnnsens_bench.store.outcomes import outcomes
from cnnsens_bench.utils.errors import UserError
from tests.store.empty import empty_store

IMAGES = 240
CONDITIONS = (*(Condition(f"common:{n}", (1.0, 2.0, 3.0), 1) for n in range(5)), Condition("pepper", (0.1,), 4))
SKILLS = {"s/best": 1.2, "s/good": 0.6, "s/twin": 0.6, "s/near": 0.38, "s/weak": -0.6}
ENTRANTS = tuple(Entrant(name, name[2:], "none", name) for name in SKILLS)
SWEEP = Sweep("run", "birds", ENTRANTS, CONDITIONS, batch_size=80)
CELLS = SWEEP.cells()
COLUMNS = ["image_id", "model", "degradation", "level", "trial"]
ROWS = "SELECT image_id, model, degradation, level, trial, prediction FROM predictions ORDER BY ALL"


@pytest.fixture(scope="module")
def images() -> ImageSelection:
    ids = [f"i{n:03}" for n in range(IMAGES)]
    table = pd.DataFrame({"image_id": ids, "uri": ids, "split": "test", "label": [n % 2 for n in range(IMAGES)]})
    return make_samples("birds", ["a", "b"], table).select("test")


@pytest.fixture(scope="module")
def whole() -> np.ndarray:
    """Return whether each entrant is right, (entrants, images, cells); the twin is as good as the good one."""
    rng = np.random.default_rng(7)
    hard = rng.normal(0, 1, (IMAGES, 1)) + np.linspace(1, -0.5, len(CELLS))
    skills = np.array(list(SKILLS.values()))[:, None, None]
    own = rng.normal(0, 0.7, (len(SKILLS), IMAGES, 1)) + rng.normal(0, 1, (len(SKILLS), IMAGES, len(CELLS)))
    return hard + skills + own > 0


class Computing:
    """Stands for the engine: it stores the made-up predictions that a sweep lacks, by the plan of a real run."""

    def __init__(self, store: Store, images: ImageSelection, whole: np.ndarray, stop_after: float = np.inf) -> None:
        self.store, self.images, self.whole, self.left = store, images, whole, stop_after
        self.rounds: list[tuple[float, list[str]]] = []

    def __call__(self, sweep: Sweep) -> int:
        self.rounds.append((sweep.budget, [entrant.model for entrant in sweep.entrants]))
        number = {name: position for position, name in enumerate(SKILLS)}
        cells = pd.DataFrame([dataclasses.astuple(cell) for cell in CELLS], columns=COLUMNS[2:])
        for batch in plan(sweep, self.images.frames(), self.store.rows_of("p", "birds")):
            image, entrant, cell = np.nonzero(batch.wanted)
            models = np.array([one.model for one in sweep.entrants])[entrant]
            hits = self.whole[[number[model] for model in models], batch.rows.index[image], cell]
            labels = batch.rows["label"].to_numpy()[image]
            table = cells.iloc[cell].assign(
                image_id=batch.rows["image_id"].to_numpy()[image], model=models, label=labels
            )
            table["prediction"] = np.where(hits, labels, 1 - labels)
            table = table.assign(run_id="run", dataset="birds", architecture="x", defense="none")
            for part in range(3):
                some = table.iloc[part::3]
                with self.store.connect() as connection:
                    connection.register("rows", some)
                    connection.execute("INSERT INTO predictions BY NAME FROM rows")
                self.left -= len(some)
                if self.left <= 0:
                    raise KeyboardInterrupt
        return 0


def run(
    folder: Path, until: float | str, images: ImageSelection, whole: np.ndarray, budget: float = 1.0, **more: float
) -> tuple[Store, Computing, str]:
    store = Store(folder) if (folder / "results.duckdb").exists() else empty_store(folder, "run")
    computing, said = Computing(store, images, whole, **more), io.StringIO()
    sweep = Sweep("run", "birds", ENTRANTS, CONDITIONS, batch_size=80, budget=budget)
    assert run_in_rounds(until, sweep, images, store, "p", Console(file=said, width=300), computing) == 0
    return store, computing, said.getvalue()


@pytest.fixture(scope="module")
def ranked(
    images: ImageSelection, whole: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Store, Computing, str]:
    return run(tmp_path_factory.mktemp("ranked"), "ranked", images, whole)


def test_the_order_is_said_and_decided_networks_leave_the_rounds(ranked: tuple[Store, Computing, str]) -> None:
    _, computing, said = ranked
    budgets, networks = zip(*computing.rounds, strict=True)
    assert budgets == (0.2, 0.4, 0.7, 1.0)[: len(budgets)]
    assert networks[0] == list(SKILLS)
    assert len(networks) > 1
    assert set(networks[1]) < set(SKILLS)
    assert not {"s/best", "s/weak"} & set(networks[1])
    order = re.search(r"order by mean degraded accuracy, where = is a tie: (.*)", said)
    assert order
    assert order[1] in {f"s/best > s/{a} = s/{b} > s/near > s/weak" for a, b in (("good", "twin"), ("twin", "good"))}
    assert "round 1 of at most 4: 5 networks, 20 % of the degraded cells" in said
    assert re.search(
        r"round 1 of at most 4: of 4 pairs of neighbours in the order \d are separated, \d tied, \d not", said
    )
    asked = re.search(
        r"round 1 of at most 4: the next one asks (\d) networks for ([\d,]+) passes, about .* seconds", said
    )
    assert asked
    assert int(asked[1]) == len(networks[1])
    assert int(asked[2].replace(",", "")) == round(len(networks[1]) * IMAGES * 19 * 0.2)


def test_each_network_has_the_cells_of_its_last_round(
    ranked: tuple[Store, Computing, str], images: ImageSelection
) -> None:
    store, computing, said = ranked
    last = {name: budget for budget, names in computing.rounds for name in names}
    ids = images.load()["image_id"].tolist()
    for name, budget in last.items():
        own = Sweep("run", "birds", (), CONDITIONS, budget=budget)
        chosen = CellChoice(own).of(ids) if budget < 1 else np.ones((IMAGES, len(CELLS)), bool)
        rows = store.query("SELECT image_id, degradation, level, trial FROM predictions WHERE model = ?", [name])
        assert len(rows) == chosen.sum()
        wanted = {(ids[i], CELLS[c].degradation, CELLS[c].level, CELLS[c].trial) for i, c in np.argwhere(chosen)}
        assert set(rows.itertuples(index=False, name=None)) == wanted
    share = np.mean(list(last.values()))
    assert f"evaluated: {100 * share:.1f} % of the degraded cells" in said


@pytest.mark.parametrize("stop_after", [1500, 6000])
def test_a_run_that_was_stopped_goes_on_with_its_round(
    ranked: tuple[Store, Computing, str], images: ImageSelection, whole: np.ndarray, tmp_path: Path, stop_after: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "ranked", images, whole, stop_after=stop_after)
    there = Store(tmp_path).query(ROWS)
    assert stop_after <= len(there) < len(ranked[0].query(ROWS))
    store, computing, _ = run(tmp_path, "ranked", images, whole)
    pd.testing.assert_frame_equal(store.query(ROWS), ranked[0].query(ROWS))
    assert computing.rounds == ranked[1].rounds


def test_nothing_is_computed_where_the_rounds_are_in_the_store(
    ranked: tuple[Store, Computing, str], images: ImageSelection, whole: np.ndarray
) -> None:
    before = len(ranked[0].query(ROWS))
    store, _, said = run(ranked[0].output, "ranked", images, whole)
    assert len(store.query(ROWS)) == before
    assert "passes, about" not in said


def test_rounds_end_when_all_intervals_are_narrow(images: ImageSelection, whole: np.ndarray, tmp_path: Path) -> None:
    store, computing, said = run(tmp_path, 4.6, images, whole)
    assert "until=4.6 is reached after" in said
    last = {name: budget for budget, names in computing.rounds for name in names}
    assert min(last.values()) < 1
    leaders = store.query("FROM leaderboard").set_index("model")
    cells = pd.DataFrame([(c.degradation, c.level, c.trial) for c in CELLS[1:]], columns=COLUMNS[2:])
    ids = images.load()["image_id"].tolist()
    widths = {}
    for name, found in zip(
        SKILLS, outcomes(store, "p", "birds", [(n, "none") for n in SKILLS], ids, cells), strict=True
    ):
        for table, measure in zip(found, ("mean_degraded_accuracy", "mean_label_change"), strict=True):
            conditions = pd.DataFrame(table, columns=pd.MultiIndex.from_frame(cells)).T.groupby(level=[0, 1]).mean().T
            means = conditions.mean()
            assert leaders[measure][name] == pytest.approx(means.groupby(level=0).mean().mean(), abs=1e-6)
            weights = means.groupby(level=0).transform(lambda some: 1 / (6 * len(some)))
            influences = ((conditions - means) * weights / conditions.notna().sum()).sum(axis=1)
            widths[name, measure] = 100 * Z * np.sqrt((influences**2).sum())
    assert max(widths.values()) < 4.6
    assert max(widths.values()) > 4.0


def test_a_width_that_all_cells_cannot_reach_is_said_in_the_first_round(
    images: ImageSelection, whole: np.ndarray, tmp_path: Path
) -> None:
    _, computing, said = run(tmp_path, 1, images, whole, budget=0.5)
    assert [budget for budget, _ in computing.rounds] == [0.2, 0.4, 0.5]
    first = said.split("round 2")[0]
    assert re.search(
        r"all cells of budget=0.5 would leave about ±\d\.\d\d points \(.* of s/\w+\): more images make", first
    )
    assert "until=1 is not reached with the whole budget: the widest interval is ±" in said


def test_a_network_without_predictions_ends_with_the_budget(
    images: ImageSelection, whole: np.ndarray, tmp_path: Path
) -> None:
    store, said = empty_store(tmp_path, "run"), io.StringIO()
    sweep = Sweep("run", "birds", (*ENTRANTS[:1], Entrant("s/lost", "lost", "none", "lost")), CONDITIONS, budget=0.4)
    computing = Computing(store, images, whole)

    def compute(some: Sweep) -> int:
        known = tuple(entrant for entrant in some.entrants if entrant.model in SKILLS)
        computing(Sweep("run", "birds", known, CONDITIONS, budget=some.budget))
        return 3

    for until in ("ranked", 30.0):
        assert run_in_rounds(until, sweep, images, store, "p", Console(file=said, width=300), compute) == 3
    assert "where = is a tie, ? is not known: s/best ? s/lost" in said.getvalue()
    assert said.getvalue().count("round 2 of at most 2: of") == said.getvalue().count("round 2 of at most 2: the") == 1


@pytest.mark.parametrize("until", ["0", "-1.5", "nan", "rank", "true", "inf", "''", "[1]"])
def test_an_impossible_until_is_refused(until: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suite=quick", f"until={until}"]) == 2
    assert "error: until is" in capsys.readouterr().err


def test_what_rounds_cannot_tell_is_refused() -> None:
    with pytest.raises(UserError, match="until=ranked compares networks, and there is only one"):
        require_rounds("ranked", ENTRANTS[:1], CONDITIONS)
    with pytest.raises(UserError, match=r"until=2\.5 is about means over degradations"):
        require_rounds(2.5, ENTRANTS, [])
    require_rounds(2.5, ENTRANTS[:1], CONDITIONS)
    require_rounds(None, [], [])


def test_until_is_a_key_that_changes_no_earlier_run() -> None:
    assert compose(["suite=quick"]).hash() == compose(["suite=quick", "until=null"]).hash()
    assert compose(["suite=quick", "until=ranked"]).hash() != compose(["suite=quick"]).hash()
    assert Config().until is None
