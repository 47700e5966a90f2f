"""One suite from its config to its summary: samples → checkpoints → plan → sweep → store → what a person reads."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from cnnsens_bench import datasets as dataset_room
from cnnsens_bench.config import Config, ModelConfig, condition_configs, model_configs
from cnnsens_bench.console import meter
from cnnsens_bench.datasets import Samples
from cnnsens_bench.degradations import expression
from cnnsens_bench.engine.conditions import levels_of, named
from cnnsens_bench.engine.local import run_local
from cnnsens_bench.engine.plan import Chunk, Condition, Entrant, Sweep, plan
from cnnsens_bench.engine.probe import probe
from cnnsens_bench.engine.worker import Outcome, load_plugins
from cnnsens_bench.environment import environment
from cnnsens_bench.errors import UserError
from cnnsens_bench.figures.sensitivity_summary import sensitivity_report
from cnnsens_bench.figures.summary import print_summary
from cnnsens_bench.fine_tuning import fine_tune, thin_classes
from cnnsens_bench.lineup import calibration_images, hash_rank, line_up, same_training
from cnnsens_bench.models import Checkpoint, split_name
from cnnsens_bench.searching import search_models
from cnnsens_bench.sensitivity.predictors import parse_predictor
from cnnsens_bench.store import FAILURES, Store, new_attempt, write_part
from cnnsens_bench.tracking import Tracker

PROTOCOL_VERSION = 2
"""Raised when crop, resize, a degradation or its draws change their meaning."""


def run_suite(config: Config, console: Console) -> int:
    """Run it all; gives the number of images that could not be computed. Raises `UserError` for a wrong request."""
    load_plugins(config.plugins)
    models = model_configs(config)
    conditions = resolve_conditions(config)
    lineup = line_up(models, config.defenses)
    probe(conditions, input_sizes(models), lineup.defenses(), differentiable=config.sensitivity.enabled)
    predictors = resolve_predictors(config)
    store = Store(config.output_folder)
    store.open()
    samples = load_samples(config)
    images = limited(samples.split("test"), config.limit)
    if images.empty:
        raise UserError(f"dataset '{samples.name}' has no test images: check its lists, or its train and test folders")
    protocol = protocol_hash(config, samples)
    run_id = config.run_id
    tracker = Tracker(config, run_id, samples.name, console)
    console.print(
        f"suite {config.suite}: {len(images)} test images of {samples.name}, {len(models)} models, "
        f"{len({e.defense for e in lineup.entrants})} defenses, "
        f"{sum(len(c.levels) * c.trials for c in conditions)} conditions → {store.path}",
        markup=False,
        soft_wrap=True,
    )
    for sentence in lineup.left_out:
        console.print(sentence, markup=False, soft_wrap=True)
    # What an earlier, killed run left behind comes in first: it is not computed again.
    store.ingest()
    store.begin_run(run_id, config.suite, protocol, dataclasses.asdict(config), environment())
    store.clear_failures(run_id)
    parts = new_attempt(config.output_folder)
    status = "interrupted"
    for sentence in thin_classes(samples) if any(model.recipe.epochs for model in models) else ():
        console.print(sentence, markup=False, soft_wrap=True)
    try:
        if config.recipe == "search":
            models = search_models(config, models, samples, objective_conditions(config), console, tracker, resume=True)
            known, lineup = lineup.left_out, line_up(models, config.defenses)
            for sentence in lineup.left_out:
                if sentence not in known:
                    console.print(sentence, markup=False, soft_wrap=True)
        trained = train_all(config, lineup.trainings, samples, console, store, run_id, parts, tracker)
        sweep = Sweep(
            run_id=run_id,
            dataset=samples.name,
            entrants=lineup.entrants,
            conditions=conditions,
            seed=config.seed,
            quantize=config.quantize,
            precision=config.precision,
            batch_size=config.batch_size,
            mask_range=samples.mask_range,
            plugins=tuple(config.plugins),
            calibration=calibration_images(samples, lineup),
            sensitivity=config.sensitivity.enabled,
            predictors=predictors,
        )
        register_models(store, lineup.entrants, trained, samples, run_id)
        failed = run_sweep(config, sweep, images, trained, parts, store, protocol, console)
        status = "incomplete" if failed else "done"
    finally:
        if status == "interrupted":
            store.finish_run(run_id, status)  # first: who is told to stop may be killed seconds later
        store.ingest(patience=10)
        store.finish_run(run_id, status)
        if status == "interrupted":
            tracker.end(status)
    entrants = [(e.model, e.defense, lineup.trainings[e.checkpoint].recipe) for e in lineup.entrants]
    print_summary(console, store, protocol, samples.name)
    drawn: list[Path] = []
    if config.sensitivity.enabled:
        try:
            drawn = sensitivity_report(console, store, protocol, samples.name, config.output_folder / "figures")
        except Exception as error:  # a figure's fault must not end a sweep that is done
            console.print(f"the report of sensitivity failed ({type(error).__name__}: {error})", markup=False)
    tracker.finish(store, protocol, status, entrants, drawn)
    return tell_failures(console, store, run_id)


def objective_conditions(config: Config) -> tuple[Condition, ...]:
    """What a search judges by, with one trial of each."""
    return resolve_conditions(dataclasses.replace(config, degradations=config.search.degradations, trials=1))


def run_sweep(
    config: Config,
    sweep: Sweep,
    images: pd.DataFrame,
    checkpoints: dict[str, Checkpoint],
    parts: Path,
    store: Store,
    protocol: str,
    console: Console,
) -> int:
    """Compute what the store lacks; gives the number of failed images."""

    def missing(image_ids: Any, wanted: pd.DataFrame) -> pd.DataFrame:
        return store.missing(protocol, sweep.dataset, list(image_ids), wanted)

    resumed = store.has_predictions(protocol, sweep.dataset)
    everything = len(images) * int(sweep.asked().sum())
    chunks = plan(sweep, images, missing if resumed else None)
    total = everything
    if resumed:
        # Planned twice rather than held: a plan of everything need not fit into memory.
        total = sum(chunk.evaluations for chunk in plan(sweep, images, missing))
        console.print(f"resuming: {everything - total} of {everything} evaluations are in the store", markup=False)
    if total == 0:
        return 0
    failed = computed = 0
    with meter(console, "sweep", total, "evaluations") as progress:
        for outcome in outcomes(config, sweep, chunks, checkpoints, parts, progress.advance):
            failed += outcome.failures
            computed += outcome.images
            progress.detail = f"{computed}/{len(images)} images"
    return failed


def outcomes(
    config: Config, sweep: Sweep, chunks: Iterator[Chunk], checkpoints: dict[str, Checkpoint], parts: Path, report: Any
) -> Iterator[Outcome]:
    """In this process, or over Ray: see `ClusterConfig.engine`."""
    cluster = config.cluster
    if not over_ray(config):
        return run_local(sweep, chunks, checkpoints, parts, cluster.threads or os.cpu_count(), report)
    # Imported only here: a run without Ray need not wait for it.
    from cnnsens_bench.engine.pipeline import lay_out, run_ray

    def layout(cpus: int, gpus: float) -> Any:
        return lay_out(*cluster.promised(cpus, gpus), cluster.workers, cluster.gpus_per_worker, cluster.threads)

    return run_ray(sweep, chunks, checkpoints, parts.absolute(), layout, cluster.address, report)


def over_ray(config: Config) -> bool:
    """Whether "auto" means Ray here."""
    cluster = config.cluster
    if cluster.engine != "auto":
        return cluster.engine == "ray"
    several = (cluster.workers or 1) > 1 or torch.cuda.device_count() > 1
    return bool(cluster.address or os.environ.get("RAY_ADDRESS") or several)


def resolve_conditions(config: Config) -> tuple[Condition, ...]:
    """The config's degradations with their levels and trials checked. Raises `UserError`."""
    resolved: dict[str, Condition] = {}
    for entry in condition_configs(config):
        for degradation in named(expression(entry.written)):
            name = degradation.name
            if name in resolved:
                raise UserError(f"degradations names '{name}' twice: put all its levels into one entry")
            trials = entry.trials if degradation.random else 1
            resolved[name] = Condition(name, levels_of(degradation, entry.levels), trials)
    return tuple(resolved.values())


def resolve_predictors(config: Config) -> tuple[str, ...]:
    """Canonical names of `sensitivity.predictors`, each once. Raises `UserError`."""
    return tuple(dict.fromkeys(parse_predictor(text).name for text in config.sensitivity.predictors))


def input_sizes(models: list[ModelConfig]) -> set[int]:
    """The sides of the inputs that the models will see."""
    sizes = set()
    for model in models:
        source, architecture = split_name(model.name)
        sizes.add(model.input_size or source.describe(architecture).input_size)
    return sizes


def load_samples(config: Config) -> Samples:
    """The dataset of the config."""
    root = Path(config.dataset.root).expanduser() if config.dataset.root else None
    data_root = Path(config.data_root).expanduser() if config.data_root else None
    return dataset_room.load(config.dataset.name, root, data_root, config.dataset.options)


def limited(table: pd.DataFrame, limit: int | None) -> pd.DataFrame:
    """`limit` rows chosen by the hash of their id (a smaller limit's are among a larger one's), in table order."""
    if limit is None or limit >= len(table):
        return table
    rank = hash_rank(table["image_id"])
    return table[rank.isin(sorted(rank)[:limit])].reset_index(drop=True)


def protocol_hash(config: Config, samples: Samples) -> str:
    """Of all that decides what a prediction means and the written protocol leaves open."""
    open_points = {
        "version": PROTOCOL_VERSION,
        "seed": config.seed,
        "quantize": config.quantize,
        "precision": config.precision,
        "input_size": config.input_size,
        "dataset": samples.name,
        "samples": samples.fingerprint(),
        "split": "test",
    }
    return hashlib.sha256(json.dumps(open_points, sort_keys=True).encode()).hexdigest()[:16]


def train_all(
    config: Config,
    trainings: dict[str, ModelConfig],
    samples: Samples,
    console: Console,
    store: Store,
    run_id: str,
    parts: Path,
    tracker: Tracker,
) -> dict[str, Checkpoint]:
    """The checkpoints of `Lineup.trainings`, from the cache or trained now. Unreadable images become failures."""
    failures: dict[str, str] = {}
    trained = {}
    for key, model in trainings.items():
        result = fine_tune(config, model, key, samples, console, tracker)
        failures |= dict(result.failures)
        trained[key] = result.checkpoint
    if failures:
        rows = [(run_id, samples.name, image_id, "train", text) for image_id, text in failures.items()]
        table = pd.DataFrame(rows, columns=FAILURES.names)
        import pyarrow as pa

        write_part(parts, "failures", "train", pa.Table.from_pandas(table, preserve_index=False))
    return trained


def register_models(
    store: Store, entrants: Sequence[Entrant], trained: dict[str, Checkpoint], samples: Samples, run_id: str
) -> None:
    """Rows of `models`. Raises `UserError` when the store holds predictions of other weights under the same name."""
    rows = []
    digests = {key: checkpoint.digest() for key, checkpoint in trained.items()}
    for entrant in entrants:
        checkpoint, digest = trained[entrant.checkpoint], digests[entrant.checkpoint]
        for defense, known in store.model_digests(entrant.model, samples.name).items():
            if known != digest and same_training(defense, entrant.defense):
                raise UserError(
                    f"{store.path} holds predictions of '{entrant.model}' with other weights (another recipe, start or "
                    f"seed; defense '{defense}'): give this run an output=<folder> of its own"
                )
        rows.append(
            {
                "model": entrant.model,
                "architecture": entrant.architecture,
                "source": entrant.model.partition("/")[0],
                "dataset": samples.name,
                "defense": entrant.defense,
                "weights_sha256": digest,
                "num_parameters": checkpoint.num_parameters(),
                "input_size": checkpoint.preprocessing.input_size,
                "trained_by": run_id,
            }
        )
    store.put_models(pd.DataFrame(rows))


def tell_failures(console: Console, store: Store, run_id: str) -> int:
    """Say which images failed, and where the database is; gives the number of images."""
    failures = store.query("SELECT image_id, stage, error FROM failures WHERE run_id = ? ORDER BY image_id", [run_id])
    if len(failures):
        count = failures["image_id"].nunique()
        console.print(f"\n{count} images were not computed (all are in the table failures):", markup=False)
        for row in failures.head(10).itertuples():
            console.print(f"  {row.image_id} [{row.stage}]: {row.error}", markup=False)
    console.print(f"\nresults: {store.path}", markup=False, soft_wrap=True)
    return int(failures["image_id"].nunique()) if len(failures) else 0
