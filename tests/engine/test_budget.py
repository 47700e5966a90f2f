"""The cells that a budget pays for: the same everywhere, nested, and fairly divided among degradations."""

import dataclasses
import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cnnsens_bench.engine import plan as room
from cnnsens_bench.engine.budget import CellChoice
from cnnsens_bench.engine.plan import plan, whole_evaluations
from cnnsens_bench.engine.sweep import Condition, Entrant, Sweep

COMMON = tuple(Condition(f"common:{n}", (1.0, 2.0, 3.0, 4.0, 5.0), 1) for n in range(15))
UNEQUAL = (Condition("gaussian_rgb", (1.0, 4.0, 8.0), 10), Condition("pepper", (0.1, 0.2), 2),
           Condition("flip_lr", (0.0,), 1))  # fmt: skip
IDS = [f"folder/{n}.jpg" for n in range(3000)]
NETWORKS = tuple(Entrant(f"s/{name}", name, "none", name) for name in "abc")


def sweep(budget: float, conditions: tuple[Condition, ...] = COMMON, **more: object) -> Sweep:
    return Sweep("run", "birds", NETWORKS, conditions, budget=budget, batch_size=8, **more)  # type: ignore[arg-type]


def mixed(key: int, code: int) -> int:
    """Return SplitMix64's output in Python's own integers."""
    word = 2**64 - 1
    bits = ((key ^ code) + 0x9E3779B97F4A7C15) & word
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & word
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & word
    return bits ^ (bits >> 31)


def plainly_chosen(one: Sweep, image_id: str) -> set[tuple[str, float, int]]:
    """Choose an image's cells a second time, one after the other."""

    def digest(name: list, size: int) -> bytes:
        return hashlib.blake2b(json.dumps(name).encode(), digest_size=size).digest()

    def order(name: list) -> int:
        return mixed(key, int.from_bytes(digest(name, 8), "little"))

    bits = digest([one.seed, one.dataset, image_id, "budget", -1], 16)
    uniform, key = (int.from_bytes(bits[:8], "little") >> 11) / 2**53, int.from_bytes(bits[8:], "little")
    queues = [
        sorted(((c.degradation, level, trial) for trial in range(c.trials) for level in c.levels),
               key=lambda cell: order(list(cell)))
        for c in sorted(one.conditions, key=lambda c: order([c.degradation]))
    ]  # fmt: skip
    cells = sum(map(len, queues))
    turns = [queue[turn] for turn in range(cells) for queue in queues if turn < len(queue)]
    return set(turns[: int(one.budget * cells + uniform)])


@pytest.mark.parametrize("conditions", [COMMON, UNEQUAL])
@pytest.mark.parametrize("budget", [0.001, 0.1, 0.37, 0.99])
def test_it_is_the_order_that_the_docstring_describes(conditions: tuple[Condition, ...], budget: float) -> None:
    one = sweep(budget, conditions, seed=5)
    chosen = CellChoice(one).of(IDS[:40])
    cells = one.cells()
    for image_id, row in zip(IDS, chosen, strict=False):
        taken = {(c.degradation, c.level, c.trial) for c, taken in zip(cells, row, strict=True) if taken}
        assert taken == plainly_chosen(one, image_id) | {("none", 0.0, 0)}


def test_a_larger_budget_contains_a_smaller_one() -> None:
    smaller = CellChoice(sweep(0.01, UNEQUAL)).of(IDS)
    for budget in (0.1, 0.2, 0.5, 0.9, 1.0):
        larger = CellChoice(sweep(budget, UNEQUAL)).of(IDS)
        assert not (smaller & ~larger).any()
        assert larger[:, 1:].mean() == pytest.approx(budget, abs=0.005)
        assert (CellChoice(sweep(budget, UNEQUAL)).counts(IDS) == larger.sum(axis=1)).all()
        smaller = larger
    assert smaller.all()


def test_each_degradation_gets_its_part() -> None:
    """Seven or eight of 15 degradations are shown once; of unequal ones the large one gets what others leave."""
    chosen = CellChoice(sweep(0.1)).of(IDS)[:, 1:].reshape(len(IDS), 15, 5)
    assert set(chosen.sum(axis=2).ravel().tolist()) == {0, 1}
    assert set(chosen.sum(axis=(1, 2)).tolist()) == {7, 8}
    assert np.abs(chosen.mean(axis=0) - 0.1).max() < 5 * np.sqrt(0.1 * 0.9 / len(IDS))
    unequal = CellChoice(sweep(0.5, UNEQUAL)).of(IDS)[:, 1:]
    assert unequal[:, 30:].all()
    assert set(unequal[:, :30].sum(axis=1).tolist()) == {12, 13}


def test_the_choice_depends_on_seed_data_set_and_image_alone() -> None:
    one = CellChoice(sweep(0.3, UNEQUAL)).of(IDS)
    alone = np.concatenate([CellChoice(sweep(0.3, UNEQUAL)).of([image_id]) for image_id in IDS[:50]])
    assert (alone == one[:50]).all()
    added = CellChoice(sweep(1.0, (*UNEQUAL, COMMON[0]))).of(IDS)
    assert added.shape[1] == one.shape[1] + 5
    for other in (
        dataclasses.replace(sweep(0.3, UNEQUAL), seed=1),
        dataclasses.replace(sweep(0.3, UNEQUAL), dataset="x"),
    ):
        assert (CellChoice(other).of(IDS) != one).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("at_once", [1_000_000, 1000])
def test_a_plan_wants_the_chosen_cells_of_every_network(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_ROWS_PER_QUERY", at_once)
    images = pd.DataFrame({"image_id": IDS[:100]})
    one = sweep(0.1)
    batches = list(plan(one, images))
    wanted = np.concatenate([batch.wanted for batch in batches])
    assert [i for batch in batches for i in batch.rows["image_id"]] == IDS[:100]
    assert all(len(batch.rows) % 8 == 0 for batch in batches[:-1])
    assert (wanted == CellChoice(one).of(IDS[:100])[:, None]).all()
    assert sum(batch.evaluations for batch in batches) == wanted.sum() == whole_evaluations(one, 100, [images])


def test_a_raised_budget_plans_the_difference_alone() -> None:
    images = pd.DataFrame({"image_id": IDS[:60]})
    before, after = (CellChoice(sweep(budget)).of(IDS[:40]) for budget in (0.1, 0.3))

    def missing(ids: list[str], wanted: pd.DataFrame) -> pd.DataFrame:
        product = pd.DataFrame({"image_id": ids}).merge(wanted, how="cross")
        lacking = np.repeat(~before[[IDS.index(image_id) for image_id in ids]], len(NETWORKS), axis=0)
        return product[lacking.ravel()]

    stored = SimpleNamespace(missing=missing, begun=lambda ids: set(IDS[:40]))
    batches = list(plan(sweep(0.3), images, stored))
    wanted = np.concatenate([batch.wanted for batch in batches])
    assert (wanted[:40] == (after & ~before)[:, None]).all()
    assert (wanted[40:] == CellChoice(sweep(0.3)).of(IDS[40:60])[:, None]).all()
