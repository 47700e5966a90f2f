"""Runs a suite: for each study networks are trained, then evaluated, then come the tables and figures."""

import dataclasses
import functools
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from pathlib import Path

import pandas as pd
from rich.console import Console

from cnnsens_bench.config.schema import Config
from cnnsens_bench.datasets import Samples
from cnnsens_bench.datasets.sample_table import ImageSelection
from cnnsens_bench.engine.plan import plan, whole_evaluations
from cnnsens_bench.engine.sweep import Sweep
from cnnsens_bench.experiment.compiling import not_compiled
from cnnsens_bench.experiment.entrants import calibration_images, pair_entrants, same_training
from cnnsens_bench.experiment.evaluation import evaluation_sentence, mismatches, without_gradients
from cnnsens_bench.experiment.fine_tune import FineTuned, fine_tune, thin_classes
from cnnsens_bench.experiment.placement import layout_of, over_ray
from cnnsens_bench.experiment.prepare import ResolvedStudy, prepare
from cnnsens_bench.experiment.resolve import RunSettings, resolve_studies
from cnnsens_bench.experiment.rounds import run_in_rounds
from cnnsens_bench.experiment.search import search_models
from cnnsens_bench.experiment.tracked_results import RunContext, log_results, start_tracking, trained_part
from cnnsens_bench.figures.catalogue import draw_figures, figure_names
from cnnsens_bench.figures.sensitivity_summary import sensitivity_report
from cnnsens_bench.figures.summary import print_summary
from cnnsens_bench.models import Checkpoint, CheckpointFiles, split_name
from cnnsens_bench.models.classifier import num_parameters
from cnnsens_bench.runtime.local import run_local
from cnnsens_bench.runtime.plan_store import stored_plan
from cnnsens_bench.runtime.resources import ExecutionOptions
from cnnsens_bench.runtime.rows import failure_table
from cnnsens_bench.runtime.worker import TaskOutcome
from cnnsens_bench.store import RunStore, Store, new_attempt, storage_errors, write_part, writing
from cnnsens_bench.store.results_file import RESULTS_FILE, results_json
from cnnsens_bench.utils.environment import environment
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.plugins import load_plugins
from cnnsens_bench.utils.progress import ConsoleReporter, say, stage_progress
from cnnsens_bench.utils.storage import StoragePath, local_folder, upload_folder, write_whole


def run_suite(config: Config, console: Console, samples: Samples | None = None, summary: bool = True) -> int:
    """Run every study of a suite into one output, then draw its figures and write `results.json`.

    Parameters
    ----------
    config
        The configuration.
    console
        Where a person reads what is done.
    samples
        The data set, in place of the one that the configuration names.
    summary
        Whether tables of the results are printed.

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
    studies = [prepare(study, samples) for study in resolve_studies(config)]
    # A data set's tables cover all of its studies, so they are printed after its last one.
    last = {study.samples.name: study for study in studies} if summary else {}
    output = config.output_folder
    figures = local_folder(output, config.cache) / "figures"
    with writing(output, config.cache, functools.partial(say, console)) as store, storage_errors(output):
        failed = sum(run_study(study, store, console, study is last.get(study.samples.name)) for study in studies)
        if wanted:
            failed += len(draw_figures(console, store, wanted, figures).failed)
        upload_folder(figures, output / "figures")
        content = results_json(store)
    with storage_errors(output):
        write_whole(output / RESULTS_FILE, content)
    return failed


def run_study(study: ResolvedStudy, store: RunStore, console: Console, summary: bool = True) -> int:
    """Run one sweep from its trainings to its tables; `summary` says whether these are printed.

    Returns
    -------
    int
        The number of images and networks that could not be computed, and one more where the report of sensitivity
        failed.
    """
    settings = study.settings
    store.check_protocol(settings.run_id, study.protocol)
    tracker = start_tracking(study.config, settings.run_id, study.samples, console, "evaluation")
    run = RunContext(settings, study.samples, console, tracker)
    _announce(study, store, console)
    store.begin_run(settings.run_id, settings.suite, study.protocol, dataclasses.asdict(study.config), environment())
    status = "interrupted"
    try:
        parts = _open_attempt(store, settings)
        study = _with_searched_recipes(study, run)
        networks = _train(study, run, parts)
        study = _without_failed(study, networks, console)
        failed = len(networks.failed) + _evaluate(study, networks, parts, store, console)
        status = "incomplete" if failed else "done"
    finally:
        _end_run(store, run, status)
    unreported = _report(study, networks, store, run, summary)
    tracker.end(status)
    return print_failures(console, store, settings.run_id) + unreported


def _announce(study: ResolvedStudy, store: RunStore, console: Console) -> None:
    """Say what is going to be computed, and what is left out of it."""
    trials = sum(len(condition.levels) * condition.trials for condition in study.conditions)
    defenses = len({entrant.defense for entrant in study.pairing.entrants})
    budget = study.settings.budget
    taken = "" if budget == 1 else f", of which each image takes {100 * budget:g} % (budget={budget:g})"
    if study.config.until is not None:
        taken += f", in rounds until={study.config.until}"
    what = f"{len(study.models)} models, {defenses} defenses, {trials} conditions{taken} → {store.path}"
    say(console, f"suite {study.settings.title}: {len(study.images)} test images of {study.samples.name}, {what}")
    say(console, *study.samples.notes, *study.notes, *study.pairing.left_out)
    trainings = study.pairing.trainings.values()
    say(console, evaluation_sentence(study.config, study.samples, len(study.images), trainings, study.matches))
    say(console, *mismatches(study.config, trainings, study.samples))


def _open_attempt(store: RunStore, settings: RunSettings) -> StoragePath:
    """Return a folder for this run's parts. The parts of an earlier, killed run come into the store first."""
    store.ingest()
    store.clear_failures(settings.run_id)
    # The run's row, which has its protocol, must be published before any process writes or finds parts of the run.
    store.share(begins=True)
    return new_attempt(settings.output_folder)


def _with_searched_recipes(study: ResolvedStudy, run: RunContext) -> ResolvedStudy:
    """Return the study with the recipes that a search found, where it asks for one."""
    if any(model.recipe.epochs for model in study.models):
        say(run.console, *thin_classes(study.samples))
    if study.objective is None:
        return study
    models = search_models(run, study.models, study.objective, resume=True)
    pairing = pair_entrants(models, study.config.defenses)
    say(run.console, *(sentence for sentence in pairing.left_out if sentence not in study.pairing.left_out))
    return dataclasses.replace(study, models=models, pairing=pairing)


def _train(study: ResolvedStudy, run: RunContext, parts: StoragePath) -> FineTuned:
    """Get or train the checkpoints of the study's entrants.

    Training images that could not be read and networks that diverged become rows of `failures`; a network's row has an
    empty image_id.
    """
    defenses = {entrant.checkpoint: trained_part(entrant.defense) for entrant in study.pairing.entrants}
    networks = fine_tune(run, study.pairing.trainings, defenses)
    failures = [(image_id, "train", sentence) for image_id, sentence in networks.unreadable_images().items()]
    failures += [("", "train", f"{title}: {sentence}") for title, sentence in networks.failed.items()]
    if failures:
        write_part(parts, "failures", "train", failure_table(study.settings.run_id, study.samples.name, failures))
    return networks


def _without_failed(study: ResolvedStudy, networks: FineTuned, console: Console) -> ResolvedStudy:
    """Return the study without the entrants whose network could not be trained; say so where none is left."""
    entrants = tuple(entrant for entrant in study.pairing.entrants if entrant.checkpoint not in networks.failed)
    if not entrants:
        console.print("no network is left to evaluate: every training diverged", markup=False)
    return dataclasses.replace(study, pairing=dataclasses.replace(study.pairing, entrants=entrants))


def _evaluate(study: ResolvedStudy, networks: FineTuned, parts: StoragePath, store: RunStore, console: Console) -> int:
    """Evaluate the entrants that have a network, and return the number of failed images."""
    if not study.pairing.entrants:
        return 0
    checkpoints = CheckpointFiles({key: result.path for key, result in networks.trained.items()})
    say(console, *_register_models(study, checkpoints, store))
    if study.settings.compile:
        say(console, *not_compiled(study.pairing.entrants, checkpoints))
    if study.config.sensitivity.enabled:
        entrants, sentences = without_gradients(study.pairing.entrants, checkpoints, study.predictors)
        study = dataclasses.replace(study, pairing=dataclasses.replace(study.pairing, entrants=entrants))
        say(console, *sentences)
    sweep = study.sweep(calibration_images(study.samples, study.pairing))
    settings, images, protocol, until = study.settings, study.images, study.protocol, study.config.until
    if until is None:
        return run_sweep(settings, sweep, images, checkpoints, parts, store, protocol, console)

    def compute(round_sweep: Sweep) -> int:
        """Evaluate a round into parts of its own, since parts are named by their images and networks alone."""
        folder = new_attempt(settings.output_folder)
        failed = run_sweep(settings, round_sweep, images, checkpoints, folder, store, protocol, console)
        store.ingest()
        return failed

    return run_in_rounds(until, sweep, images, store, protocol, console, compute)


def _end_run(store: RunStore, run: RunContext, status: str) -> None:
    """Bring in the last parts and record how the run ended."""
    if status == "interrupted":
        # This comes first, because a process that is told to stop may be killed seconds later.
        store.finish_run(run.settings.run_id, status)
    store.ingest(patience=10)
    store.finish_run(run.settings.run_id, status)
    if status == "interrupted":
        run.tracker.end(status)


def _report(study: ResolvedStudy, networks: FineTuned, store: RunStore, run: RunContext, summary: bool) -> int:
    """Print the tables, draw the figures of sensitivity, and log to MLflow; return how many of these reports failed."""
    name, failed = study.samples.name, 0
    if summary:
        print_summary(run.console, store, study.protocol, name, study.config.details)
    drawn: list[Path] = []
    if study.config.sensitivity.enabled:
        try:
            figures = local_folder(study.settings.output_folder, study.settings.cache) / "figures"
            drawn = sensitivity_report(run.console, store, study.protocol, name, figures)
        except Exception as error:  # an error in a figure must not fail a finished sweep
            run.console.print(f"the report of sensitivity failed ({type(error).__name__}: {error})", markup=False)
            failed = 1
    log_results(study, run.tracker, store, networks.trained, drawn)
    return failed


def run_sweep(
    settings: RunSettings,
    sweep: Sweep,
    images: ImageSelection,
    checkpoints: Mapping[str, Checkpoint],
    parts: StoragePath,
    store: RunStore,
    protocol: str,
    console: Console,
) -> int:
    """Compute what the store lacks, and return the number of images that failed."""
    resumed = store.has_predictions(protocol, sweep.dataset)
    rows = store.rows_of(protocol, sweep.dataset) if resumed else None
    store.held.check()  # after hours of training, another run may have taken over the output
    with stored_plan(sweep, plan(sweep, images.frames(), rows), parts) as stored:
        if resumed:
            everything = whole_evaluations(sweep, len(images), images.frames())
            done = everything - stored.evaluations
            console.print(f"resuming: {done} of {everything} evaluations are in the store", markup=False)
        if stored.evaluations == 0:
            return 0
        failed = computed = 0
        with stage_progress(console, "sweep", stored.evaluations, "evaluations") as progress:
            compute, options, reporter = _executor(settings), _execution_options(settings), ConsoleReporter(progress)
            with closing(compute(sweep, stored, checkpoints, parts, options, reporter)) as outcomes:
                for outcome in outcomes:
                    failed += outcome.failures
                    computed += outcome.images
                    store.share(parts)
                    progress.detail = f"{computed}/{len(images)} images"
    return failed


def _execution_options(settings: RunSettings) -> ExecutionOptions:
    cluster = settings.cluster
    return ExecutionOptions(
        threads=cluster.threads or os.cpu_count(),
        weights_budget=cluster.weights_gb * 1e9 if cluster.weights_gb else None,
        cache=settings.cache,
        address=cluster.address,
        layout=functools.partial(layout_of, cluster),
    )


def _executor(settings: RunSettings) -> Callable[..., Generator[TaskOutcome]]:
    """Return the function that computes a stored plan in this process or over Ray, as the settings ask."""
    if not over_ray(settings.cluster):
        return run_local
    # It is imported here alone, because a run without Ray need not wait for it.
    from cnnsens_bench.runtime.ray_pipeline import run_ray

    return run_ray


def _register_models(study: ResolvedStudy, checkpoints: CheckpointFiles, store: Store) -> list[str]:
    """Write the entrants' rows of `models`; return a sentence for each network that has something to tell of itself.

    Raises
    ------
    UserError
        If the store holds predictions of other weights under the same name.
    """
    # One checkpoint at a time is in memory.
    facts, notes, rows = {}, [], []
    for key, checkpoint in checkpoints.items():
        classifier = checkpoint.classifier()
        facts[key] = _facts(checkpoint, num_parameters(classifier))
        notes += [f"{key}: {note}" for note in getattr(classifier.network, "notes", ())]
    dataset, run_id = study.samples.name, study.settings.run_id
    for entrant in study.pairing.entrants:
        digest, *others = facts[entrant.checkpoint]
        for defense, known in store.model_digests(entrant.model, dataset).items():
            if known != digest and same_training(defense, entrant.defense):
                raise UserError(
                    f"{store.path} holds predictions of '{entrant.model}' with other weights (another recipe, start or "
                    f"seed; defense '{defense}'): give this run an output=<folder> of its own"
                )
        source = split_name(entrant.model)[0].name
        rows.append((entrant.model, entrant.architecture, source, entrant.defense, digest, *others))
    columns = ["model", "architecture", "source", "defense", "weights_sha256", *FACTS[1:]]
    store.put("models", pd.DataFrame(rows, columns=columns).assign(dataset=dataset, trained_by=run_id))
    return notes


FACTS = ("weights_sha256", "num_parameters", "input_size", "view", "outputs", "matched_by", "classes")
"""The columns of `models` that a checkpoint knows."""


def _facts(checkpoint: Checkpoint, parameters: int) -> tuple:
    """Return the values of `FACTS`."""
    view, match = checkpoint.preprocessing.view, checkpoint.match
    outputs, size, classes = checkpoint.num_outputs, checkpoint.preprocessing.input_size, len(checkpoint.classes)
    shown, matched_by = view.describe() if view else None, match.by if match else None
    return checkpoint.digest(), parameters, size, shown, outputs, matched_by, classes


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
            say(console, f"  {row.error}")
    say(console, f"\nresults: {store.path}")
    return count + len(networks)
