"""Runs a suite: for each study networks are trained, then evaluated, then come the tables and figures."""

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
from cnnsens_bench.experiment.entrants import Pairing, calibration_images, pair_entrants, same_training
from cnnsens_bench.experiment.fine_tune import FineTuned, fine_tune, thin_classes
from cnnsens_bench.experiment.placement import layout_of, over_ray
from cnnsens_bench.experiment.prepare import ResolvedStudy, prepare
from cnnsens_bench.experiment.resolve import RunSettings, resolve_studies
from cnnsens_bench.experiment.search import search_models
from cnnsens_bench.experiment.tracked_results import log_results, start_tracking, trained_part
from cnnsens_bench.figures.catalogue import draw_figures, figure_names
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
from cnnsens_bench.utils.progress import ConsoleReporter, stage_progress
from cnnsens_bench.utils.reporter import Reporter
from cnnsens_bench.utils.storage import StoragePath, local_folder, upload_folder


def run_suite(config: Config, console: Console) -> int:
    """Run every study of a suite into one output, then draw its figures.

    Returns
    -------
    int
        The number of images that could not be computed, and of figures that failed.

    Raises
    ------
    UserError
        For a wrong request, before anything is computed.
    """
    load_plugins(config.plugins)
    wanted = figure_names(config.figures)
    studies = [prepare(study) for study in resolve_studies(config)]
    # The tables of a data set are of all of its studies: they come after the last.
    last = {study.samples.name: study for study in studies}
    output = config.output_folder
    figures = local_folder(output, config.cache) / "figures"

    def report(sentence: str) -> None:
        console.print(sentence, markup=False, soft_wrap=True)

    with writing(output, config.cache, report) as store, storage_errors(output):
        failed = sum(run_study(study, store, console, study is last[study.samples.name]) for study in studies)
        if wanted:
            failed += len(draw_figures(console, store, wanted, figures).failed)
        upload_folder(figures, output / "figures")
    return failed


def run_study(study: ResolvedStudy, store: RunStore, console: Console, summary: bool = True) -> int:
    """Run one sweep from its trainings to its tables; `summary` says whether these are printed.

    Returns
    -------
    int
        The number of images and networks that could not be computed, and one more where the report of sensitivity
        failed.
    """
    settings, samples = study.settings, study.samples
    tracker = start_tracking(study.config, settings.run_id, samples, console, "evaluation")
    _announce(study, store, console)
    store.begin_run(settings.run_id, settings.suite, study.protocol, dataclasses.asdict(study.config), environment())
    status = "interrupted"
    try:
        parts = _begin_parts(store, settings)
        study = _with_searched_recipes(study, console, tracker)
        networks = train_all(settings, study.pairing, samples, console, settings.run_id, parts, tracker)
        study = dataclasses.replace(study, pairing=without_failed(study.pairing, networks, console))
        failed = len(networks.failed) + _evaluate(study, networks, parts, store, console)
        status = "incomplete" if failed else "done"
    finally:
        _end_run(store, settings.run_id, status, tracker)
    unreported = _report(study, networks, store, console, tracker, summary)
    tracker.end(status)
    return print_failures(console, store, settings.run_id) + unreported


def _announce(study: ResolvedStudy, store: RunStore, console: Console) -> None:
    """Say what is going to be computed, and what is left out of it."""
    entrants, conditions = study.pairing.entrants, study.conditions
    console.print(
        f"suite {study.settings.title}: {len(study.images)} test images of {study.samples.name}, "
        f"{len(study.models)} models, {len({e.defense for e in entrants})} defenses, "
        f"{sum(len(c.levels) * c.trials for c in conditions)} conditions → {store.path}",
        markup=False,
        soft_wrap=True,
    )
    for sentence in study.pairing.left_out:
        console.print(sentence, markup=False, soft_wrap=True)


def _begin_parts(store: RunStore, settings: RunSettings) -> StoragePath:
    """Return a folder for this run's parts, once those of an earlier, killed run are in the store."""
    # What has been computed already comes in first, so that it is not computed again.
    store.ingest()
    store.clear_failures(settings.run_id)
    # This comes before anybody writes parts of this run: who finds them must know its protocol.
    store.share(begins=True)
    return new_attempt(settings.output_folder)


def _with_searched_recipes(study: ResolvedStudy, console: Console, tracker: Tracker) -> ResolvedStudy:
    """Return the study with the recipes that a search found, where it asks for one."""
    sentences = thin_classes(study.samples) if any(model.recipe.epochs for model in study.models) else []
    for sentence in sentences:
        console.print(sentence, markup=False, soft_wrap=True)
    if study.objective is None:
        return study
    models = search_models(study.settings, study.models, study.samples, study.objective, console, tracker, resume=True)
    pairing = pair_entrants(models, study.defenses)
    for sentence in pairing.left_out:
        if sentence not in study.pairing.left_out:
            console.print(sentence, markup=False, soft_wrap=True)
    return dataclasses.replace(study, models=models, pairing=pairing)


def _evaluate(study: ResolvedStudy, networks: FineTuned, parts: StoragePath, store: RunStore, console: Console) -> int:
    """Evaluate the entrants that have a network, and return the number of failed images."""
    entrants = study.pairing.entrants
    if not entrants:
        return 0
    checkpoints = CheckpointFiles({key: result.path for key, result in networks.trained.items()})
    register_models(store, entrants, checkpoints, study.samples, study.settings.run_id)
    sweep = study.sweep(calibration_images(study.samples, study.pairing))
    return run_sweep(study.settings, sweep, study.images, checkpoints, parts, store, study.protocol, console)


def _end_run(store: RunStore, run_id: str, status: str, tracker: Tracker) -> None:
    """Bring in the last parts and record how the run ended."""
    if status == "interrupted":
        store.finish_run(run_id, status)  # first, because a process that is told to stop may be killed seconds later
    store.ingest(patience=10)
    store.finish_run(run_id, status)
    if status == "interrupted":
        tracker.end(status)


def _report(
    study: ResolvedStudy, networks: FineTuned, store: RunStore, console: Console, tracker: Tracker, summary: bool
) -> int:
    """Print the tables, draw the figures of sensitivity, and log to MLflow; return how many of these reports failed."""
    name, failed = study.samples.name, 0
    if summary:
        print_summary(console, store, study.protocol, name)
    drawn: list[Path] = []
    if study.sensitivity:
        try:
            figures = local_folder(study.settings.output_folder, study.settings.cache) / "figures"
            drawn = sensitivity_report(console, store, study.protocol, name, figures)
        except Exception as error:  # a figure's fault must not end a sweep that is done
            console.print(f"the report of sensitivity failed ({type(error).__name__}: {error})", markup=False)
            failed = 1
    pairing, seed = study.pairing, study.settings.seed
    log_results(tracker, store, study.protocol, name, pairing, networks.trained, seed, drawn)
    return failed


def run_sweep(
    settings: RunSettings,
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
        missing = missing_scores = functools.partial(store.missing, protocol, sweep.dataset)
    store.held.check()  # training may have taken hours: what lies there may be another run's
    with stored_plan(sweep, plan(sweep, images, missing, missing_scores), parts) as stored:
        if missing:
            everything = len(images) * sweep.evaluations_per_image()
            done = everything - stored.evaluations
            console.print(f"resuming: {done} of {everything} evaluations are in the store", markup=False)
        if stored.evaluations == 0:
            return 0
        failed = computed = 0
        with stage_progress(console, "sweep", stored.evaluations, "evaluations") as progress:
            reporter = ConsoleReporter(progress)
            with closing(outcomes(settings, sweep, stored, checkpoints, parts, reporter)) as results:
                for outcome in results:
                    failed += outcome.failures
                    computed += outcome.images
                    store.share(parts)
                    progress.detail = f"{computed}/{len(images)} images"
    return failed


def outcomes(
    settings: RunSettings,
    sweep: Sweep,
    stored: StoredPlan,
    checkpoints: Mapping[str, Checkpoint],
    parts: StoragePath,
    reporter: Reporter,
) -> Generator[TaskOutcome]:
    """Return the outcomes of a stored plan, which is computed in this process or over Ray, as the settings ask."""
    cluster = settings.cluster
    options = ExecutionOptions(
        threads=cluster.threads or os.cpu_count(),
        weights_budget=cluster.weights_gb * 1e9 if cluster.weights_gb else None,
        cache=settings.cache,
        address=cluster.address,
        layout=functools.partial(layout_of, cluster),
    )
    if not over_ray(cluster):
        return run_local(sweep, stored, checkpoints, parts, options, reporter)
    # It is imported here alone, because a run without Ray need not wait for it.
    from cnnsens_bench.runtime.ray_pipeline import run_ray

    return run_ray(sweep, stored, checkpoints, parts, options, reporter)


def train_all(
    settings: RunSettings,
    pairing: Pairing,
    samples: Samples,
    console: Console,
    run_id: str,
    parts: StoragePath,
    tracker: Tracker,
) -> FineTuned:
    """Get or train the checkpoints of `Pairing.trainings`.

    Training images that could not be read and networks that diverged become rows of `failures`; a network's row has an
    empty image_id.
    """
    defenses = {entrant.checkpoint: trained_part(entrant.defense) for entrant in pairing.entrants}
    networks = fine_tune(settings, pairing.trainings, samples, console, tracker, defenses)
    failures = list(networks.unreadable_images().items())
    failures += [("", f"{title}: {sentence}") for title, sentence in networks.failed.items()]
    if failures:
        rows = [(run_id, samples.name, image_id, "train", text) for image_id, text in failures]
        table = pd.DataFrame(rows, columns=FAILURES.names)
        import pyarrow as pa

        write_part(parts, "failures", "train", pa.Table.from_pandas(table, preserve_index=False))
    return networks


def without_failed(pairing: Pairing, networks: FineTuned, console: Console) -> Pairing:
    """Return the pairing without the entrants whose network could not be trained; say so where none is left."""
    entrants = tuple(entrant for entrant in pairing.entrants if entrant.checkpoint not in networks.failed)
    if not entrants:
        console.print("no network is left to evaluate: every training diverged", markup=False)
    return dataclasses.replace(pairing, entrants=entrants)


def register_models(
    store: Store, entrants: Sequence[Entrant], checkpoints: CheckpointFiles, samples: Samples, run_id: str
) -> None:
    """Write the entrants' rows of `models`.

    Raises
    ------
    UserError
        If the store holds predictions of other weights under the same name.
    """
    rows = []
    facts = {}
    for key, checkpoint in checkpoints.items():  # one by one in memory
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
    store.put("models", pd.DataFrame(rows))


def print_failures(console: Console, store: Store, run_id: str) -> int:
    """Say which images and networks failed and where the database is, and return how many they are."""
    failures = store.query("SELECT image_id, stage, error FROM failures WHERE run_id = ? ORDER BY image_id", [run_id])
    networks, images = failures[failures["image_id"] == ""], failures[failures["image_id"] != ""]
    count = int(images["image_id"].nunique())
    if count:
        console.print(f"\n{count} images were not computed (all are in the table failures):", markup=False)
        for row in images.head(10).itertuples():
            console.print(f"  {row.image_id} [{row.stage}]: {row.error}", markup=False)
    if len(networks):
        what = "1 network was" if len(networks) == 1 else f"{len(networks)} networks were"
        console.print(f"\n{what} not trained (all are in the table failures):", markup=False)
        for row in networks.head(10).itertuples():
            console.print(f"  {row.error}", markup=False, soft_wrap=True)
    console.print(f"\nresults: {store.path}", markup=False, soft_wrap=True)
    return count + len(networks)
