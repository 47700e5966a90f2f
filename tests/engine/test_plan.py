"""The plan asks for everything once and nothing twice, in full image batches."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnsens_bench.degradations import Reach
from cnnsens_bench.engine import plan as room
from cnnsens_bench.engine.plan import plan
from cnnsens_bench.engine.sweep import Cell, Condition, Entrant, Sweep

SWEEP = Sweep(
    run_id="r",
    dataset="d",
    entrants=(Entrant("s/a", "a", "none", "a"), Entrant("s/a", "a", "gaussian_filter", "a")),
    conditions=(Condition("gaussian_rgb", (1.0, 4.0), 2), Condition("flip_lr", (0.0,), 1)),
    batch_size=4,
)
IMAGES = pd.DataFrame({"image_id": [f"i{n}" for n in range(11)]})


def test_cells_are_in_the_order_of_draws() -> None:
    assert SWEEP.cells() == [
        Cell("none", 0, 0),
        Cell("gaussian_rgb", 1, 0),
        Cell("gaussian_rgb", 4, 0),
        Cell("gaussian_rgb", 1, 1),
        Cell("gaussian_rgb", 4, 1),
        Cell("flip_lr", 0, 0),
    ]


def test_a_fresh_plan_wants_everything_in_full_batches() -> None:
    batches = [some.take(slice(i, i + 4)) for some in plan(SWEEP, IMAGES) for i in range(0, len(some.rows), 4)]
    assert [len(batch.rows) for batch in batches] == [4, 4, 3]
    assert sum(batch.evaluations for batch in batches) == 11 * 2 * 6
    assert [i for batch in batches for i in batch.rows["image_id"]] == list(IMAGES["image_id"])


@settings(deadline=None)
@given(done=st.sets(st.tuples(st.integers(0, 10), st.integers(0, 1), st.integers(0, 5))))
def test_a_resumed_plan_wants_what_is_missing(done: set[tuple[int, int, int]]) -> None:
    cells = SWEEP.cells()

    def missing(ids: list[str], wanted: pd.DataFrame) -> pd.DataFrame:
        product = pd.DataFrame({"image_id": ids}).merge(wanted, how="cross")
        gone = {
            (f"i{i}", SWEEP.entrants[e].model, SWEEP.entrants[e].defense, *vars(cells[c]).values()) for i, e, c in done
        }
        return product[[tuple(row) not in gone for row in product.itertuples(index=False, name=None)]]

    left = set()
    for batch in plan(SWEEP, IMAGES, SimpleNamespace(missing=missing, begun=set)):
        assert batch.wanted.any(axis=(1, 2)).all()
        numbers = [int(image_id[1:]) for image_id in batch.rows["image_id"]]
        left |= {(numbers[i], e, c) for i, e, c in np.argwhere(batch.wanted).tolist()}
    everything = {(i, e, c) for i in range(11) for e in range(2) for c in range(6)}
    assert left == everything - done


@pytest.mark.parametrize(("at_once", "questions"), [(1_000_000, 1), (12 * 300, 4), (12 * 40, 25)])
def test_the_store_is_asked_as_rarely_as_the_answers_allow(
    at_once: int, questions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question may be a scan of its table."""
    monkeypatch.setattr(room, "MAX_ROWS_PER_QUERY", at_once)
    asked: list[str] = []
    calls = []

    def missing(ids: list[str], wanted: pd.DataFrame) -> pd.DataFrame:
        asked.extend(ids)
        calls.append(len(ids))
        return pd.DataFrame({"image_id": ids[-1:]}).merge(wanted.iloc[:2], how="cross")

    images = pd.DataFrame({"image_id": [f"i{n}" for n in range(1000)]})
    batches = list(plan(SWEEP, images, SimpleNamespace(missing=missing, begun=set)))
    assert (asked, len(calls)) == (images["image_id"].tolist(), questions)
    assert sum(batch.evaluations for batch in batches) == 2 * questions


def test_the_reach_is_the_largest_shift_as_a_share_of_the_box() -> None:
    assert SWEEP.reach(224) == Reach()
    conditions = (Condition("translation", (1.0, 16.0), 1), Condition("translation(16) + rotation", (45.0,), 1))
    moving = Sweep("r", "d", SWEEP.entrants, conditions[:1]).reach(224)
    assert 16 * 4 / 224 < moving.shift < 16 * 5 / 224
    assert moving.radius == 0
    assert Sweep("r", "d", SWEEP.entrants, conditions).reach(224) == Reach(moving.shift, 1.0)
