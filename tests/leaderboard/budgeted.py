"""Rows of made-up networks, and those of them that a run on a budget has."""

import pandas as pd

from cnnsens_bench.engine.budget import CellChoice
from cnnsens_bench.engine.sweep import Condition, Sweep
from tests.leaderboard.made import sweep

CONDITIONS = {("gaussian_rgb", 4.0): 3, ("gaussian_rgb", 8.0): 3, ("pepper", 0.04): 4, ("pepper", 0.08): 4,
              ("rotation", 45.0): 5}  # fmt: skip
SWEPT = (
    Condition("gaussian_rgb", (4.0, 8.0), 3),
    Condition("pepper", (0.04, 0.08), 4),
    Condition("rotation", (45.0,), 5),
)
CELLS = 19
IMAGES = [number for number in range(80) if number not in (3, 7)]
"""Images of `made.sweep` that lack nothing."""


def made(run_id: str, seed: int, *models: str) -> pd.DataFrame:
    return sweep(run_id, "d", IMAGES, seed, models, ("none",), CONDITIONS)


def chosen(rows: pd.DataFrame, budget: float, seed: int = 0) -> pd.DataFrame:
    """Return the rows that a run with a budget has."""
    one = Sweep("r", "d", (), SWEPT, seed=seed, budget=budget)
    ids = sorted(rows["image_id"].unique())
    taken = [
        (image_id, cell.degradation, cell.level, cell.trial)
        for image_id, row in zip(ids, CellChoice(one).of(ids), strict=True)
        for cell, wanted in zip(one.cells(), row, strict=True)
        if wanted
    ]
    return rows.merge(pd.DataFrame(taken, columns=["image_id", "degradation", "level", "trial"]))
