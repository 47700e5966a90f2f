"""What a budget costs and what it gives away, by replaying a whole store.

    python benchmarks/budget.py [--json FILE] [--budget 0.1] [--replays 300]

A small ResNet, trained for a minute, predicts the test images of `plumage` at 64² under the 15 common corruptions at
their 5 severities, without a budget. From these predictions a run on a budget is replayed often, each time under
another seed of the choice of cells, with the estimates and intervals of the page. Every replay is compared with the
whole table.

`passes_ratio`: forward passes of an image on the budget ÷ those of the whole. The limit is the budget itself, and the
undegraded pass comes on top. `wall_ratio`: seconds of the whole sweep ÷ seconds on the budget, of EfficientNet-Lite0 at
224² in one process.
`width_ratio`, `width_ratio_condition`: the width of the 95 % interval on the budget ÷ that of the whole table, of the
mean degraded accuracy and of the accuracy under a condition, on average; `label_change.*` has the same for p_Δ. The
limit is 1. `coverage`, `coverage_condition`: the share of intervals that hold the truth, for the population of images:
the images of the table are drawn with replacement under new ids, and their mean is the truth. `bias`: the mean error
over conditions, without its sign, ÷ the standard error of one replay; so many replays leave 0.8 ÷ √replays by chance.
"""

import argparse
import dataclasses
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pipeline
import torch
from reporting import show

from cnnsens_bench.datasets import load
from cnnsens_bench.engine.budget import CellChoice
from cnnsens_bench.engine.sweep import Sweep
from cnnsens_bench.measures import clustered_interval
from cnnsens_bench.measures.spec import mean_over_conditions
from cnnsens_bench.run import main as run
from cnnsens_bench.store import Store
from leaderboard.aggregate import Resampler

SWEEP = pipeline.make_sweep(pipeline.EFFICIENTNET, pipeline.COMMON)
DEGRADATIONS = np.array([cell.degradation for cell in SWEEP.cells()[1:]])
NETWORK = "{name: timm/test_resnet, weights: random, training: {epochs: 8, lr_head: 3.0e-3, lr_body: 3.0e-3}}"
PREDICTIONS = """
SELECT image_id, degradation, level, (prediction = label)::DOUBLE AS hit,
    (prediction <> max(prediction) FILTER (WHERE degradation = 'none') OVER (PARTITION BY image_id))::DOUBLE AS changed
FROM predictions ORDER BY image_id
"""


def whole_table(folder: Path) -> dict[str, np.ndarray]:
    """Return `hit` and `changed`, (images, 75) each, of a run without a budget."""
    request = [
        "suite=quick", f"models=[{NETWORK}]", "defenses=[none]", "figures=[]", "degradations=['common:*']", "trials=1",
        f"output={folder}", "tracking=off", "cluster.engine=local",
    ]  # fmt: skip
    if run(request):
        raise SystemExit("error: the run that is replayed failed, see above")
    rows = Store(folder).query(PREDICTIONS)
    columns = pd.MultiIndex.from_tuples([(cell.degradation, cell.level) for cell in SWEEP.cells()[1:]])
    return {
        name: rows.pivot(index="image_id", columns=["degradation", "level"], values=name)[columns].to_numpy()
        for name in ("hit", "changed")
    }


class Board:
    """The estimates and intervals of the page, of the mean over conditions and of each condition."""

    def __init__(self, images: int) -> None:
        self.resampler = Resampler(images, filled=True)

    def of(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return value, low and high: (3,) of the board's mean, and (3, conditions); NaN in `values` is left out."""
        every = np.ones(values.shape[1], bool)
        means = mean_over_conditions(self.resampler.means(values), DEGRADATIONS, every)
        board = np.array([means[0], *np.quantile(means[1:], [0.025, 0.975])])
        each = [clustered_interval(column[~np.isnan(column)], 1) for column in values.T]
        return board, np.array([(one.value, one.low, one.high) for one in each]).T


def replay(table: np.ndarray, budget: float, replays: int) -> dict[str, float]:
    """Compare runs on a budget with the whole table, in widths, coverage and bias."""
    images = len(table)
    board = Board(images)
    whole, whole_each = board.of(table)
    truth, truth_each = whole[0], whole_each[0]
    rng = np.random.default_rng(0)
    widths, covers, errors = [], [], []
    for number in range(replays):
        one = dataclasses.replace(SWEEP, seed=number, budget=budget)
        chosen = CellChoice(one).of([f"image {i}" for i in range(images)])[:, 1:]
        found, each = board.of(np.where(chosen, table, np.nan))
        widths.append(
            ((found[2] - found[1]) / (whole[2] - whole[1]), _widths(each).mean() / _widths(whole_each).mean())
        )
        errors.append(each[0] - truth_each)
        found, each = board.of(np.where(chosen, table[rng.integers(0, images, images)], np.nan))
        covers.append((found[1] <= truth <= found[2], ((each[1] <= truth_each) & (truth_each <= each[2])).mean()))
    bias = np.abs(np.mean(errors, axis=0)) / np.maximum(np.std(errors, axis=0), 1e-9)
    (width, width_condition), (cover, cover_condition) = np.mean(widths, axis=0), np.mean(covers, axis=0)
    return {
        "width_ratio": width,
        "width_ratio_condition": width_condition,
        "coverage": cover,
        "coverage_condition": cover_condition,
        "bias": float(np.mean(bias)),
    }


def _widths(intervals: np.ndarray) -> np.ndarray:
    return intervals[2] - intervals[1]


def time_ratio(budget: float, rounds: int) -> float:
    """Return the seconds of the whole sweep ÷ those on the budget, at 224²; batches are full on both sides."""
    checkpoint = pipeline.make_checkpoint(pipeline.EFFICIENTNET)
    images = load("plumage", None, None, {}).split("test", "train")[: 2 * pipeline.BATCH]
    on_budget: Sweep = dataclasses.replace(SWEEP, budget=budget)
    ratios = []
    for _ in range(rounds):
        # Half of the whole comes before and half after, so that a machine whose speed drifts slows both alike.
        before = pipeline.time_sweep(SWEEP, images[: pipeline.BATCH], checkpoint)
        small = pipeline.time_sweep(on_budget, images, checkpoint)
        after = pipeline.time_sweep(SWEEP, images[pipeline.BATCH :], checkpoint)
        ratios.append((before + after) / small)
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--budget", type=float, default=0.1, help="the share of an image's degraded cells")
    parser.add_argument("--replays", type=int, default=300)
    given = parser.parse_args()
    if not 0 < given.budget < 1 or given.replays < 2:
        parser.error("--budget must be above 0 and below 1, and --replays at least 2")
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        tables = whole_table(Path(folder))
    cells = len(SWEEP.cells())
    counts = CellChoice(dataclasses.replace(SWEEP, budget=given.budget)).counts([str(n) for n in range(10_000)])
    figures: dict[str, Any] = {
        "images": len(tables["hit"]),
        "cells": cells,
        "passes_ratio": float(counts.mean() / cells),
        "wall_ratio": time_ratio(given.budget, rounds=1),
        **replay(tables["hit"], given.budget, given.replays),
        "label_change": replay(tables["changed"], given.budget, given.replays),
    }
    shown = {key: value for key, value in figures.items() if key != "label_change"}
    shown |= {f"label_change.{key}": value for key, value in figures["label_change"].items()}
    show(f"budget={given.budget:g} against all cells, {given.replays} replays", shown, figures, given.json)


if __name__ == "__main__":
    main()
