"""Estimates what a run would cost: evaluations, hours, storage, memory. Nothing is trained, and nothing written."""

import contextlib
import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console

from cnnsens_bench.config.schema import Config
from cnnsens_bench.datasets.sample_table import ImageSelection
from cnnsens_bench.engine.plan import plan, whole_evaluations
from cnnsens_bench.engine.sweep import Sweep
from cnnsens_bench.experiment.prepare import prepare
from cnnsens_bench.experiment.profiling import Profiler, WantedCounts, training_steps
from cnnsens_bench.experiment.resolve import resolve_studies
from cnnsens_bench.measures.sequential import planned_shares
from cnnsens_bench.models.classifier import best_device
from cnnsens_bench.runtime.compiled_code import keep_compiled_code
from cnnsens_bench.sensitivity.gradients import OUTPUTS
from cnnsens_bench.store import Store, reading
from cnnsens_bench.utils.formatting import duration
from cnnsens_bench.utils.plugins import load_plugins
from cnnsens_bench.utils.progress import say

# Measured on CUB-200-2011: 100 images, two networks, suite=cub's conditions with 20 trials, scores and one predictor:
# 72,600 predictions. The database's rows by the blocks that DuckDB gives a table.
DATABASE_BYTES = {"predictions": 22, "images": 250, "sensitivity": 95, "sensitivity_predictions": 25}
"""Bytes a row takes in results.duckdb, beside `EMPTY_DATABASE`."""
PART_BYTES = {"predictions": 22, "images": 220, "sensitivity": 95, "sensitivity_predictions": 25}
"""Bytes a row takes in the part files, while they wait to be brought in."""
EMPTY_DATABASE = 3_000_000
"""Bytes of results.duckdb with little in it: tables and views, and blocks that are not full."""

SPEEDS = """
SELECT device, model, defense, sum(seconds) / sum(images) AS seconds
FROM speed LEFT JOIN runs USING (run_id)
WHERE (precision IS NULL OR precision = ?) AND coalesce((config ->> 'compile')::BOOLEAN, false) = ?
GROUP BY ALL HAVING sum(images) > 0
"""
MAY_PAY = 300.0
"""Seconds of forward passes for each entrant from which on compiling is worth a trial."""
HAS_SPEEDS = "SELECT 1 FROM information_schema.tables WHERE table_name = 'speed'"


@dataclass(frozen=True)
class CostEstimate:
    """What one study would cost.

    `evaluations` counts the (image, cell) pairs that are still to be computed, `stored` those that the store has.
    `seconds` has the time of `device` by stage; "decode" is the time of one core. `rows` counts the rows of each table.
    `saved_by_compiling` has the seconds that compiled forward passes save, None where networks are not compiled.
    `hours_elsewhere` has the hours of forward passes on each device whose speed the store knows. `first_round` has the
    evaluations of the first round, None for a run without rounds. Trainings count as if the cache had none of them.
    """

    images: int
    entrants: int
    evaluations: int
    stored: int
    trainings: int
    training_steps: int
    device: str
    cores: int
    seconds: dict[str, float]
    rows: dict[str, int]
    part_bytes: int
    database_bytes: int
    network_bytes: int
    memory_bytes: int
    saved_by_compiling: float | None
    hours_elsewhere: dict[str, float]
    first_round: int | None = None

    @property
    def hours(self) -> float:
        """The hours of all stages on this device, where cores that a GPU leaves free decode meanwhile."""
        decode = self.seconds["decode"] / self.cores
        others = sum(self.seconds.values()) - self.seconds["decode"]
        return (others + decode if self.device == "cpu" else max(others, decode)) / 3600


def estimate(config: Config, console: Console) -> CostEstimate:
    """Count what a study would compute, time a few batches of it, and print what that comes to.

    Nothing is trained, and nothing is written.

    Raises
    ------
    UserError
        For what a run would refuse before it trains.
    """
    load_plugins(config.plugins)
    study = prepare(config)
    settings, pairing, images, sweep = study.settings, study.pairing, study.images, study.sweep()
    database = settings.output_folder / "results.duckdb"
    with reading(database) if database.exists() else contextlib.nullcontext() as store:
        counts = wanted_counts(store, sweep, images, study.protocol)
        hours_elsewhere = _hours_elsewhere(store, sweep, counts)
        first_round = None
        if config.until is not None:
            small = dataclasses.replace(sweep, budget=planned_shares(sweep.budget, len(sweep.cells()) - 1)[0])
            first_round = wanted_counts(store, small, images, study.protocol).evaluations
    train = len(study.samples.select("train", "val"))
    device = best_device()
    cores = settings.cluster.threads or os.cpu_count() or 1
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(cores)
        pool = stack.enter_context(ThreadPoolExecutor(2))
        if sweep.compile:
            keep_compiled_code(settings.cache)
        profiler = Profiler(sweep, pairing, device, pool, len(study.samples.classes))
        seconds = profiler.seconds(counts, images, train)
    rows = _rows(counts)
    trainings = [model for model in pairing.trainings.values() if model.recipe.epochs]
    result = CostEstimate(
        images=len(images),
        entrants=len(sweep.entrants),
        evaluations=counts.evaluations,
        stored=whole_evaluations(sweep, len(images), images.frames()) - counts.evaluations,
        trainings=len(trainings),
        training_steps=sum(training_steps(model, train) for model in trainings),
        device=device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
        cores=cores,
        seconds=seconds,
        rows=rows,
        part_bytes=sum(PART_BYTES[table] * n for table, n in rows.items()),
        database_bytes=EMPTY_DATABASE + sum(DATABASE_BYTES[table] * n for table, n in rows.items()),
        network_bytes=sum(profiler.network_bytes.values()),
        memory_bytes=profiler.memory(),
        saved_by_compiling=profiler.saved_by_compiling if sweep.compile else None,
        hours_elsewhere=hours_elsewhere,
        first_round=first_round,
    )
    print_estimate(result, settings.suite, study.objective is not None, console)
    return result


def _rows(counts: WantedCounts) -> dict[str, int]:
    """Return the rows that each table will get."""
    rows = {"predictions": int(counts.cells.sum()), "images": counts.images}
    if counts.scores.shape[1]:
        rows["sensitivity"] = int(counts.scores[:, 0].sum()) * len(OUTPUTS)
        rows["sensitivity_predictions"] = int(counts.scores[:, 1:].sum()) * len(OUTPUTS)
    return rows


def estimate_suite(config: Config, console: Console) -> list[CostEstimate]:
    """Estimate each study of a suite, and print what they sum up to. Raise `UserError` as `estimate` does."""
    found = []
    for study in resolve_studies(config):
        if study.study:
            console.print(f"study {study.study}:", markup=False)
        found.append(estimate(study, console))
    if len(found) > 1:
        evaluations, hours = sum(e.evaluations for e in found), sum(e.hours for e in found)
        stored = f"{_size(sum(e.database_bytes for e in found))} as results.duckdb"
        note = "a network that several studies train on one data set is trained once"
        say(console, f"together: {evaluations:,} evaluations, {duration(hours)} on this device, {stored} ({note})")
    return found


def wanted_counts(store: Store | None, sweep: Sweep, chosen: ImageSelection, protocol: str) -> WantedCounts:
    """Return how many of the chosen images each entrant still needs; `store` is None where there is none yet."""
    needed_cells, needed_scores = (needed.astype(np.int64) for needed in sweep.needed())
    rows = store.rows_of(protocol, sweep.dataset) if store and store.has_predictions(protocol, sweep.dataset) else None
    if rows is None and sweep.budget == 1:
        return WantedCounts(needed_cells * len(chosen), needed_scores * len(chosen), len(chosen))
    cells, scores, images = np.zeros_like(needed_cells), np.zeros_like(needed_scores), 0
    for batch in plan(sweep, chosen.frames(), rows):
        cells += batch.wanted.sum(axis=0)
        scores += batch.wanted_scores.sum(axis=0)
        images += len(batch.rows)
    return WantedCounts(cells, scores, images)


def _hours_elsewhere(store: Store | None, sweep: Sweep, counts: WantedCounts) -> dict[str, float]:
    """Return the hours of forward passes on each device that the store has speeds of for every entrant."""
    found: dict[str, float] = {}
    if store is None or store.query(HAS_SPEEDS).empty:
        return found
    for device, table in store.query(SPEEDS, [sweep.precision, sweep.compile]).groupby("device"):
        known = table.set_index(["model", "defense"])["seconds"].to_dict()
        each = [known.get((entrant.model, entrant.defense)) for entrant in sweep.entrants]
        if all(each):
            found[str(device)] = float(np.dot(np.array(each, float), counts.cells.sum(axis=1))) / 3600
    return found


def print_estimate(result: CostEstimate, suite: str, searches: bool, console: Console) -> None:
    """Print an estimate; `searches` says whether a search of recipes comes before the run."""
    stored = f", {result.stored:,} more are in the store" if result.stored else ""
    lines = [
        f"estimate of suite {suite}: {result.evaluations:,} evaluations "
        f"({result.images:,} images, {result.entrants} networks × defenses){stored}",
        *_round_lines(result),
        f"trainings: {result.trainings} ({result.training_steps:,} steps), less what the cache has"
        + ("; the search that comes before them is not counted" if searches else ""),
        f"on this device ({result.device}, {result.cores} cores): {duration(result.hours)}; on n of them about 1/n",
        *(f"    {stage}: {duration(s / 3600)}" for stage, s in result.seconds.items() if s and stage != "decode"),
        f"    decode: {duration(result.seconds['decode'] / 3600)} of one core, shared by {result.cores}",
        *_compile_lines(result),
        *(f"on {name}, forward passes alone: {duration(hours)}" for name, hours in result.hours_elsewhere.items()),
        f"storage: {sum(result.rows.values()):,} rows, about {_size(result.database_bytes)} as results.duckdb "
        f"and {_size(result.part_bytes)} as parts on the way",
        f"memory: about {_size(result.memory_bytes)} for what trains or computes with all networks, which are "
        f"{_size(result.network_bytes)}",
    ]
    say(console, *lines)


def _round_lines(result: CostEstimate) -> list[str]:
    """Return a line that says what a run with rounds costs at least, and that the others are its most."""
    if result.first_round is None:
        return []
    computing = result.hours - result.seconds["train"] / 3600
    least = duration(computing * result.first_round / max(1, result.evaluations))
    return [
        f"until: at least {result.first_round:,} of these evaluations, about {least}, in the first round; at most all"
    ]


def _compile_lines(result: CostEstimate) -> list[str]:
    """Return a line that says whether compiling pays, or that it may."""
    if result.saved_by_compiling is None:
        long = result.seconds["forward"] > MAY_PAY * result.entrants
        return ["compile=on may make the forward passes faster: estimate=true compile=on times it"] if long else []
    cost, saved = result.seconds["compile"], result.saved_by_compiling
    shown = duration(cost / 3600), duration(max(saved, 0) / 3600)
    verdict = "pays" if saved > cost else "does not pay for this run"
    return [f"compile=on {verdict}: it takes {shown[0]} in each worker, and saves {shown[1]} of forward passes in all"]


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
