"""One suite from its config to its summary: checkpoints → plan → sweep → store → what a person reads."""

import dataclasses
import functools
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pandas as pd
from rich.console import Console

from cnnsens_bench.config.schema import Config
from cnnsens_bench.datasets import Samples
from cnnsens_bench.engine.plan import Entrant, Sweep, plan
from cnnsens_bench.experiment.entrants import calibration_images, pair_entrants, same_training
from cnnsens_bench.experiment.fine_tune import fine_tune, thin_classes
from cnnsens_bench.experiment.placement import layout_of, over_ray
from cnnsens_bench.experiment.prepare import ResolvedStudy, objective_conditions, prepare, protocol_hash
from cnnsens_bench.experiment.resolve import ModelConfig
from cnnsens_bench.experiment.search import search_models
from cnnsens_bench.experiment.studies import studies_of
from cnnsens_bench.figures.drawing import draw_figures, figure_names
from cnnsens_bench.figures.sensitivity_summary import sensitivity_report
from cnnsens_bench.figures.summary import print_summary
from cnnsens_bench.models import Checkpoint, CheckpointFiles
from cnnsens_bench.runtime.local import run_local
from cnnsens_bench.runtime.options import ExecutionOptions
from cnnsens_bench.runtime.plan_store import StoredPlan, stored_plan
from cnnsens_bench.runtime.worker import TaskOutcome
from cnnsens_bench.store import FAILURES, RunStore, Store, new_attempt, storage_errors, write_part, writing
from cnnsens_bench.tracking import Tracker
from cnnsens_bench.utils.environment import environment
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.plugins import load_plugins
from cnnsens_bench.utils.progress import ConsoleReporter, meter
from cnnsens_bench.utils.reporter import Reporter
from cnnsens_bench.utils.storage import StoragePath, local_folder, upload_folder


def run_suite(config: Config, console: Console) -> int:
    """Run it all; gives the number of images that could not be computed. Raises `UserError` for a wrong request."""
    load_plugins(config.plugins)
    wanted = figure_names(config.figures)
    studies = [prepare(study) for study in studies_of(config)]
    # The tables of a data set are of all of its studies: they come after the last.
    last = {study.samples.name: study for study in studies}
    output = config.output_folder
    figures = local_folder(output, config.cache) / "figures"

    def tell(sentence: str) -> None:
        console.print(sentence, markup=False, soft_wrap=True)

    with writing(output, config.cache, tell) as store, storage_errors(output):
        failed = sum(run_study(study, store, console, study is last[study.samples.name]) for study in studies)
        if wanted:
            draw_figures(console, store, wanted, figures)
        upload_folder(figures, output / "figures")
    return failed


def run_study(study: ResolvedStudy, store: RunStore, console: Console, summary: bool = True) -> int:
    """One sweep from its trainings to its tables (`summary`: whether they are printed); gives the number of images that
    could not be computed."""
    config, models, pairing, samples, images = study.config, study.models, study.pairing, study.samples, study.images
    protocol = protocol_hash(config, samples)
    run_id = config.run_id
    tracker = Tracker(config, run_id, samples.name, console)
    console.print(
        f"suite {config.title}: {len(images)} test images of {samples.name}, {len(models)} models, "
        f"{len({e.defense for e in pairing.entrants})} defenses, "
        f"{sum(len(c.levels) * c.trials for c in study.conditions)} conditions → {store.path}",
        markup=False,
        soft_wrap=True,
    )
    for sentence in pairing.left_out:
        console.print(sentence, markup=False, soft_wrap=True)
    store.begin_run(run_id, config.suite, protocol, dataclasses.asdict(config), environment())
    status = "interrupted"
    try:
        # What an earlier, killed run left behind comes in first: it is not computed again.
        store.ingest()
        store.clear_failures(run_id)
        # Before anybody writes parts of this run: who finds them must know its protocol.
        store.share(begins=True)
        parts = new_attempt(config.output_folder)
        for sentence in thin_classes(samples) if any(model.recipe.epochs for model in models) else ():
            console.print(sentence, markup=False, soft_wrap=True)
        if config.recipe == "search":
            models = search_models(config, models, samples, objective_conditions(config), console, tracker, resume=True)
            known, pairing = pairing.left_out, pair_entrants(models, config.defenses)
            for sentence in pairing.left_out:
                if sentence not in known:
                    console.print(sentence, markup=False, soft_wrap=True)
        trained = train_all(config, pairing.trainings, samples, console, run_id, parts, tracker)
        sweep = Sweep(
            run_id=run_id,
            dataset=samples.name,
            entrants=pairing.entrants,
            conditions=study.conditions,
            seed=config.seed,
            quantize=config.quantize,
            precision=config.precision,
            batch_size=config.batch_size,
            mask_range=samples.mask_range,
            plugins=tuple(config.plugins),
            calibration=calibration_images(samples, pairing),
            sensitivity=config.sensitivity.enabled,
            predictors=study.predictors,
        )
        register_models(store, pairing.entrants, trained, samples, run_id)
        failed = run_sweep(config, sweep, images, trained, parts, store, protocol, console)
        status = "incomplete" if failed else "done"
    finally:
        if status == "interrupted":
            store.finish_run(run_id, status)  # first: who is told to stop may be killed seconds later
        store.ingest(patience=10)
        store.finish_run(run_id, status)
        if status == "interrupted":
            tracker.end(status)
    entrants = [(e.model, e.defense, pairing.trainings[e.checkpoint].recipe) for e in pairing.entrants]
    if summary:
        print_summary(console, store, protocol, samples.name)
    drawn: list[Path] = []
    if config.sensitivity.enabled:
        try:
            figures = local_folder(config.output_folder, config.cache) / "figures"
            drawn = sensitivity_report(console, store, protocol, samples.name, figures)
        except Exception as error:  # a figure's fault must not end a sweep that is done
            console.print(f"the report of sensitivity failed ({type(error).__name__}: {error})", markup=False)
    tracker.finish(store, protocol, status, entrants, drawn)
    return tell_failures(console, store, run_id)


def run_sweep(
    config: Config,
    sweep: Sweep,
    images: pd.DataFrame,
    checkpoints: Mapping[str, Checkpoint],
    parts: StoragePath,
    store: RunStore,
    protocol: str,
    console: Console,
) -> int:
    """Compute what the store lacks, and return the number of images that failed."""
    missing = missing_scores = None
    if store.has_predictions(protocol, sweep.dataset):
        missing = functools.partial(store.missing, protocol, sweep.dataset)
        missing_scores = functools.partial(store.missing_scores, protocol, sweep.dataset)
    store.held.check()  # training may have taken hours: what lies there may be another run's
    with stored_plan(sweep, plan(sweep, images, missing, missing_scores), parts) as stored:
        if missing:
            everything = len(images) * sweep.evaluations_per_image()
            done = everything - stored.evaluations
            console.print(f"resuming: {done} of {everything} evaluations are in the store", markup=False)
        if stored.evaluations == 0:
            return 0
        failed = computed = 0
        with meter(console, "sweep", stored.evaluations, "evaluations") as progress:
            reporter = ConsoleReporter(progress)
            with closing(outcomes(config, sweep, stored, checkpoints, parts, reporter)) as results:
                for outcome in results:
                    failed += outcome.failures
                    computed += outcome.images
                    store.share(parts)
                    progress.detail = f"{computed}/{len(images)} images"
    return failed


def outcomes(
    config: Config,
    sweep: Sweep,
    stored: StoredPlan,
    checkpoints: Mapping[str, Checkpoint],
    parts: StoragePath,
    reporter: Reporter,
) -> Generator[TaskOutcome]:
    """Return the outcomes of a stored plan, which is computed in this process or over Ray, as the config asks."""
    cluster = config.cluster
    options = ExecutionOptions(
        threads=cluster.threads or os.cpu_count(),
        weights_budget=cluster.weights_gb * 1e9 if cluster.weights_gb else None,
        cache=config.cache,
        address=cluster.address,
        layout=functools.partial(layout_of, cluster),
    )
    if not over_ray(config):
        return run_local(sweep, stored, checkpoints, parts, options, reporter)
    # It is imported here alone, because a run without Ray need not wait for it.
    from cnnsens_bench.runtime.ray_pipeline import run_ray

    return run_ray(sweep, stored, checkpoints, parts, options, reporter)


def train_all(
    config: Config,
    trainings: dict[str, ModelConfig],
    samples: Samples,
    console: Console,
    run_id: str,
    parts: StoragePath,
    tracker: Tracker,
) -> CheckpointFiles:
    """The checkpoints of `Pairing.trainings`, from the cache or trained now. Unreadable images become failures."""
    trained = fine_tune(config, trainings, samples, console, tracker)
    failures = {image_id: text for result in trained.values() for image_id, text in result.failures}
    if failures:
        rows = [(run_id, samples.name, image_id, "train", text) for image_id, text in failures.items()]
        table = pd.DataFrame(rows, columns=FAILURES.names)
        import pyarrow as pa

        write_part(parts, "failures", "train", pa.Table.from_pandas(table, preserve_index=False))
    return CheckpointFiles({key: result.path for key, result in trained.items()})


def register_models(
    store: Store, entrants: Sequence[Entrant], trained: CheckpointFiles, samples: Samples, run_id: str
) -> None:
    """Rows of `models`. Raises `UserError` when the store holds predictions of other weights under the same name."""
    rows = []
    facts = {}
    for key, checkpoint in trained.items():  # one by one in memory
        facts[key] = (checkpoint.digest(), checkpoint.num_parameters(), checkpoint.preprocessing.input_size)
    for entrant in entrants:
        digest, num_parameters, input_size = facts[entrant.checkpoint]
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
                "num_parameters": num_parameters,
                "input_size": input_size,
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
