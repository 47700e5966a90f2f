"""What a budget costs and what it gives away, by replaying a whole store.

    python benchmarks/budget.py [--json FILE] [--budget 0.1] [--replays 1000] [--long]

A small ResNet, trained for a minute, predicts the test images of `plumage` at 64² under the 15 common corruptions at
their 5 severities, without a budget. From these predictions a run on a budget is replayed often, each time under
another seed of the choice of cells, with the estimates and intervals of the page. Every replay is compared with the
whole table.

`--long` takes photographs instead, those of CUB_200_2011 in the folder that CNNSENS_DATA names: EfficientNet-Lite0 and
-Lite1 start from their published weights, are fine-tuned, and predict test images under the common corruptions and the
paper's degradations. Its figures are nested by network. With 240 photographs it takes about an hour on 2 cores.

`passes_ratio`: forward passes of an image on the budget ÷ those of the whole. The limit is the budget itself, and the
undegraded pass comes on top. `wall_ratio`: seconds of the whole sweep ÷ seconds on the budget, of EfficientNet-Lite0 at
224² in one process.
`width_ratio`, `width_ratio_condition`: the width of the 95 % interval on the budget ÷ that of the whole table, of the
mean degraded accuracy and of the accuracy under a condition, on average; `label_change.*` has the same for p_Δ. The
limit is 1. `between_images`: the share ρ of the variance that lies between images. The variance of the mean is about
ρ + (1 − ρ) ÷ the cells of an image, so that a budget widens its interval the more, the smaller ρ is.
`coverage`, `coverage_condition`: the share of intervals that hold the truth, for the population of images: the images
of the table are drawn with replacement under new ids, and their mean is the truth. `coverage_least`: that share under
the condition where it is least. `images.*`: the same for the intervals of these very images, whose truth is the whole
table. `bias`: the mean error over conditions, without its sign, ÷ the standard error of one replay; so many replays
leave 0.8 ÷ √replays by chance. `until.*`: what `ranked_rounds.py` finds with half as many replays.
"""

import argparse
import dataclasses
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pipeline
import torch
from ranked_rounds import replay_rounds
from reporting import show

from cnnsens_bench.datasets import load
from cnnsens_bench.engine.budget import CellChoice
from cnnsens_bench.engine.sweep import Sweep
from cnnsens_bench.measures import IntervalEstimate, clustered_interval
from cnnsens_bench.measures.finite import FinitePopulation
from cnnsens_bench.measures.spec import mean_over_conditions
from cnnsens_bench.run import main as run
from cnnsens_bench.store import Store
from leaderboard.aggregate import Resampler

SWEEP = pipeline.make_sweep(pipeline.EFFICIENTNET, pipeline.COMMON)
NETWORK = "{name: timm/test_resnet, weights: random, training: {epochs: 8, lr_head: 3.0e-3, lr_body: 3.0e-3}}"
DRAWN = ["suite=quick", f"models=[{NETWORK}]", "degradations=['common:*']"]
PHOTOGRAPHS = [
    "suite=custom", "dataset=cub200", f"models=[{pipeline.EFFICIENTNET},timm/tf_efficientnet_lite1]",
    f"degradations=['common:*',{','.join(pipeline.PAPER)}]", "limit=240", "fine_tune=always", "training.epochs=4",
]  # fmt: skip
PREDICTIONS = """
SELECT p.model, p.image_id, p.degradation, p.level, (p.prediction = p.label)::DOUBLE AS hit,
    (p.prediction <> undegraded.prediction)::DOUBLE AS changed
FROM predictions AS p JOIN predictions AS undegraded USING (model, image_id)
WHERE undegraded.degradation = 'none' ORDER BY p.image_id
"""
Tables = dict[str, np.ndarray]
"""`hit` and `changed`, shape (images, cells of the sweep but the undegraded one) each."""


def whole_tables(folder: Path, request: Sequence[str], sweep: Sweep) -> dict[str, Tables]:
    """Return the tables of each network of a run without a budget, whose cells are those of the sweep."""
    common = ["defenses=[none]", "figures=[]", "trials=1", f"output={folder}", "tracking=off", "cluster.engine=local"]
    if run([*request, *common]):
        raise SystemExit("error: the run that is replayed failed, see above")
    rows = Store(folder).query(PREDICTIONS)
    columns = pd.MultiIndex.from_tuples([(cell.degradation, cell.level) for cell in sweep.cells()[1:]])
    return {
        model: {
            name: own.pivot(index="image_id", columns=["degradation", "level"], values=name)[columns].to_numpy()
            for name in ("hit", "changed")
        }
        for model, own in rows.groupby("model")
    }


class Board:
    """The estimates and intervals of the page, of the mean over conditions and of each condition."""

    def __init__(self, images: int, sweep: Sweep) -> None:
        self.resampler = Resampler(images, filled=True)
        self.degradations = np.array([cell.degradation for cell in sweep.cells()[1:]])

    def of(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return value, low and high: (3,) of the board's mean, and (3, conditions); NaN in `values` is left out."""
        every = np.ones(values.shape[1], bool)
        means = mean_over_conditions(self.resampler.means(values), self.degradations, every)
        board = np.array([means[0], *np.quantile(means[1:], [0.025, 0.975])])
        return board, _bounds([clustered_interval(column[~np.isnan(column)], 1) for column in values.T])

    def of_images(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what `of` does, with the intervals for these very images."""
        found = FinitePopulation(values, np.ones(values.shape), np.ones(values.shape[1]))
        board = np.array(found.mean(self.degradations))
        return board, _bounds([found.condition(condition) for condition in range(values.shape[1])])


def _bounds(estimates: Sequence[IntervalEstimate]) -> np.ndarray:
    """Return value, low and high of each estimate: (3, estimates)."""
    return np.array([(one.value, one.low, one.high) for one in estimates]).T


def replay(table: np.ndarray, sweep: Sweep, replays: int) -> dict[str, Any]:
    """Compare runs on the sweep's budget with the whole table, in widths, coverage and bias."""
    images = len(table)
    board = Board(images, sweep)
    whole, whole_each = board.of(table)
    truth = whole[0], whole_each[0]
    rng = np.random.default_rng(0)
    widths, errors = [], []
    covered: dict[str, list[tuple[np.ndarray, ...]]] = {"population": [], "images": []}
    for number in range(replays):
        chosen = CellChoice(dataclasses.replace(sweep, seed=number)).of([f"image {i}" for i in range(images)])[:, 1:]
        values = np.where(chosen, table, np.nan)
        found, each = board.of(values)
        widths.append((_widths(found) / _widths(whole), _widths(each).mean() / _widths(whole_each).mean()))
        errors.append(each[0] - truth[1])
        covered["images"].append(_holds(board.of_images(values), truth))
        drawn = np.where(chosen, table[rng.integers(0, images, images)], np.nan)
        covered["population"].append(_holds(board.of(drawn), truth))
    bias = np.abs(np.mean(errors, axis=0)) / np.maximum(np.std(errors, axis=0), 1e-9)
    width, width_condition = np.mean(widths, axis=0)
    shares = {name: _coverage(found) for name, found in covered.items()}
    return {
        "between_images": between_images(table),
        "width_ratio": float(width),
        "width_ratio_condition": float(width_condition),
        **shares["population"],
        "images": shares["images"],
        "bias": float(np.mean(bias)),
    }


def between_images(table: np.ndarray) -> float:
    """Return the share of the variance about the conditions' means that lies between images."""
    images, conditions = table.shape
    residuals = table - table.mean(0)
    own = residuals.mean(1)
    between = conditions * float((own**2).sum()) / (images - 1)
    within = float(((residuals - own[:, None]) ** 2).sum()) / ((images - 1) * (conditions - 1))
    return (between - within) / (between + (conditions - 1) * within)


def _widths(intervals: np.ndarray) -> np.ndarray:
    return intervals[2] - intervals[1]


def _holds(found: tuple[np.ndarray, np.ndarray], truth: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Return whether the intervals of the board's mean and of each condition hold the truth."""
    return tuple((one[1] <= true) & (true <= one[2]) for one, true in zip(found, truth, strict=True))


def _coverage(covered: Sequence[tuple[np.ndarray, ...]]) -> dict[str, float]:
    """Return the shares of intervals that hold the truth: of the board, and of conditions on average and at least."""
    board, each = (np.mean(found, axis=0) for found in zip(*covered, strict=True))
    return {
        "coverage": float(board),
        "coverage_condition": float(each.mean()),
        "coverage_least": float(each.min()),
    }


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
    parser.add_argument("--replays", type=int, default=1000)
    parser.add_argument("--long", action="store_true", help="photographs of CUB_200_2011, about an hour")
    given = parser.parse_args()
    if not 0 < given.budget < 1 or given.replays < 2:
        parser.error("--budget must be above 0 and below 1, and --replays at least 2")
    torch.set_num_threads(os.cpu_count() or 1)
    request, whole = DRAWN, SWEEP
    if given.long:
        root = os.environ.get("CNNSENS_DATA") or parser.error("--long needs CNNSENS_DATA=<folder with CUB_200_2011>")
        request = [*PHOTOGRAPHS, f"data_root={root}"]
        whole = pipeline.make_sweep(pipeline.EFFICIENTNET, [*pipeline.COMMON, *pipeline.PAPER])
    with tempfile.TemporaryDirectory() as folder:
        networks = whole_tables(Path(folder), request, whole)
    sweep = dataclasses.replace(whole, budget=given.budget)
    cells = len(sweep.cells())
    found = {
        model: replay(tables["hit"], sweep, given.replays)
        | {"label_change": replay(tables["changed"], sweep, given.replays)}
        for model, tables in networks.items()
    }
    figures: dict[str, Any] = {
        "n_images": len(next(iter(networks.values()))["hit"]),
        "cells": cells,
        "passes_ratio": float(CellChoice(sweep).counts([str(n) for n in range(10_000)]).mean() / cells),
        "wall_ratio": time_ratio(given.budget, rounds=1),
        **(found if given.long else next(iter(found.values()))),
        "until": replay_rounds(given.replays // 2),
    }
    show(f"budget={given.budget:g} against all cells, {given.replays} replays", _flat(figures), figures, given.json)


def _flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested figures by keys with dots."""
    flat: dict[str, Any] = {}
    for key, value in figures.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


if __name__ == "__main__":
    main()
