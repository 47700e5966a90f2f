"""Computes chosen predictions of a recorded run again: those of one network, in this process."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from cnnsens_bench.config.schema import Config
from cnnsens_bench.datasets import Samples
from cnnsens_bench.degradations import parse_degradation
from cnnsens_bench.engine.plan import ImageBatch
from cnnsens_bench.engine.sweep import NONE, Sweep
from cnnsens_bench.experiment.entrants import calibration_images
from cnnsens_bench.experiment.fine_tune import training_options
from cnnsens_bench.experiment.prepare import ResolvedStudy, prepare
from cnnsens_bench.models import CheckpointFiles
from cnnsens_bench.runtime.local import run_local
from cnnsens_bench.runtime.plan_store import stored_plan
from cnnsens_bench.runtime.resources import ExecutionOptions
from cnnsens_bench.store import new_attempt
from cnnsens_bench.training.finetune import Trained, cached_or_ready, save_trained
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.reporter import SILENT, Reporter

CELL = ["degradation", "level", "trial"]
KEY = ["image_id", "defense", *CELL]
MOST_CELLS = 100_000
"""The most cells (degradation, level, trial) of an image; no run has more."""


def recompute(
    config: Config, entry: Any, rows: pd.DataFrame, samples: Samples, folder: Path, reporter: Reporter = SILENT
) -> pd.DataFrame:
    """Compute predictions of a network again.

    Parameters
    ----------
    config
        The config of the run, as `recorded_config` returns it.
    entry
        The network's entry of `models`.
    rows
        Rows of `predictions` of the network, under one protocol and of one data set, with the columns `protocol` and
        `weights_sha256` of their run and network.
    samples
        The data set.
    folder
        A folder for temporary files.
    reporter
        Hears of evaluations.

    Returns
    -------
    pandas.DataFrame
        A row of `predictions` for each that could be computed: those of images that cannot be read are missing.

    Raises
    ------
    UserError
        Where this machine cannot compute the same: it lacks weights, code or images, or has others.
    """
    output = folder / "output"
    study = resolve_again(config, entry, rows, samples, output)
    checkpoints = CheckpointFiles({key: _checkpoint(study, key) for key in study.pairing.trainings})
    keys = {entrant.defense: entrant.checkpoint for entrant in study.pairing.entrants}
    digests = {key: checkpoints[key].digest() for key in checkpoints}
    for defense, claimed in rows.groupby("defense")["weights_sha256"].first().items():
        if digests[keys[str(defense)]] != claimed:
            raise UserError("its weights are not those that this machine has of the same name")
    sweep = study.sweep(calibration_images(study.samples, study.pairing))
    batch = _batch(study, sweep, rows)
    options = ExecutionOptions(threads=None, cache=config.cache)
    output.mkdir(parents=True)
    parts = Path(str(new_attempt(output)))
    with stored_plan(sweep, [batch], parts) as stored:
        for _ in run_local(sweep, stored, checkpoints, parts, options, reporter):
            pass
    tables = [pq.read_table(file).to_pandas() for file in sorted(parts.glob("predictions-*.parquet"))]
    found = pd.concat(tables, ignore_index=True) if tables else rows.iloc[:0]
    return found.astype(dict.fromkeys(("image_id", "defense", "degradation"), object))


def resolve_again(config: Config, entry: Any, rows: pd.DataFrame, samples: Samples, output: Path) -> ResolvedStudy:
    """Return the study that has the cells of some predictions of a network.

    Parameters
    ----------
    config, entry, rows, samples
        As `recompute` takes them.
    output
        The output of the study.

    Raises
    ------
    UserError
        Where this machine has other images, labels or settings.
    """
    degradations = _entries(rows[rows["degradation"] != NONE])
    defenses = sorted(rows["defense"].unique())
    config = dataclasses.replace(
        config, models=[entry], defenses=defenses, degradations=degradations, output=str(output)
    )
    study = prepare(config, samples)
    if study.protocol != rows["protocol"].iloc[0]:
        raise UserError(
            "its images, their labels or its settings are not those of this machine: the protocol is another"
        )
    return study


def image_rows(samples: Samples, image_ids: set[str]) -> pd.DataFrame:
    """Return the rows of test images by their ids; images that the samples do not have are missing."""
    frames = (frame[frame["image_id"].isin(image_ids)] for frame in samples.select("test").frames())
    return pd.concat(list(frames), ignore_index=True)


def _entries(rows: pd.DataFrame) -> list[Any]:
    """Return entries of `degradations` that have the cells of these rows among their own."""
    entries: list[Any] = []
    cells = 0
    for name, own in rows.groupby("degradation", sort=False):
        levels, trials = sorted(map(float, own["level"].unique())), int(own["trial"].max()) + 1
        cells += trials * len(levels)
        levels_of = {"levels": levels} if parse_degradation(str(name)).has_levels else {}
        entries.append({"name": str(name), "trials": trials, **levels_of})
    if cells > MOST_CELLS:
        raise UserError(f"its rows name {cells} cells of an image, more than a run computes")
    return entries


def _checkpoint(study: ResolvedStudy, key: str) -> Path:
    """Return the file of a checkpoint that is in the cache, or that needs no training."""
    model = study.pairing.trainings[key]
    found = cached_or_ready(model.name, study.samples, model.recipe, **training_options(study.settings, model))
    if isinstance(found, Trained):
        return found.path
    if model.recipe.epochs:
        raise UserError("it was fine-tuned, and the cache of this machine has no such checkpoint")
    return save_trained(found.run(found.path.parent, None), found.path).path


def _batch(study: ResolvedStudy, sweep: Sweep, rows: pd.DataFrame) -> ImageBatch:
    """Return the plan of the rows, as one image batch."""
    table = image_rows(study.samples, set(rows["image_id"]))
    images = {image_id: i for i, image_id in enumerate(table["image_id"])}
    entrants = {entrant.defense: i for i, entrant in enumerate(sweep.entrants)}
    cells = {(cell.degradation, cell.level, cell.trial): i for i, cell in enumerate(sweep.cells())}
    wanted = np.zeros((len(table), len(entrants), len(cells)), bool)
    for image_id, defense, *cell in rows[KEY].itertuples(index=False, name=None):
        if image_id in images and defense in entrants and tuple(cell) in cells:
            wanted[images[image_id], entrants[defense], cells[tuple(cell)]] = True
    if not wanted.any():
        raise UserError("this machine has none of its images")
    return ImageBatch(table, wanted, np.zeros((len(table), len(entrants), 0), bool))
