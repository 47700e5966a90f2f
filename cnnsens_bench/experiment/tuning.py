"""What the command `tune` does: search the recipe of each model, then train the best ones."""

import hashlib
import json

from rich.console import Console

from cnnsens_bench.config.schema import Config
from cnnsens_bench.engine.dry_run import probe
from cnnsens_bench.experiment.fine_tune import FineTuned, fine_tune, thin_classes
from cnnsens_bench.experiment.prepare import input_sizes, load_samples, resolve_conditions
from cnnsens_bench.experiment.resolve import resolve_models, resolve_settings
from cnnsens_bench.experiment.search import FILE, search_models
from cnnsens_bench.experiment.tracked_results import start_tracking
from cnnsens_bench.store import holding
from cnnsens_bench.utils.plugins import load_plugins


def tune_suite(config: Config, console: Console) -> int:
    """Search the recipes of a suite's models, and train the best on all training images into the cache of runs.

    Returns
    -------
    int
        The number of training images that could not be read, and of networks that could not be trained.

    Raises
    ------
    UserError
        For a wrong request, or a search that does not end.
    """
    load_plugins(config.plugins)
    settings, models = resolve_settings(config), resolve_models(config)
    conditions = resolve_conditions(config.search.degradations, trials=1)
    probe(conditions, input_sizes(models))
    samples = load_samples(config.dataset, config.data_root)
    for sentence in thin_classes(samples):
        console.print(sentence, markup=False, soft_wrap=True)
    digest = hashlib.sha256(json.dumps(config.search.shaping(), sort_keys=True, default=str).encode()).hexdigest()
    tracker = start_tracking(config, f"tune-{settings.run_id}-{digest[:8]}", samples, console, "training")
    status = "interrupted"
    try:
        with holding(settings.output_folder):
            found = search_models(settings, models, samples, conditions, console, tracker, config.resume)
            networks = fine_tune(settings, {model.name: model for model in found}, samples, console, tracker)
        status = "incomplete" if networks.failed else "done"
    finally:
        tracker.end(status)
    recipes = settings.output_folder / FILE
    unreadable = _print_unreadable(networks, console)
    console.print(f"\nbest recipes, for recipe=<file>: {recipes}", markup=False, soft_wrap=True)
    return unreadable + len(networks.failed)


def _print_unreadable(networks: FineTuned, console: Console) -> int:
    """Say how many training images could not be read, and return that number."""
    failures = networks.unreadable_images()
    if failures:
        first = next(iter(failures.values()))
        console.print(f"{len(failures)} training images could not be read; the first: {first}", markup=False)
    return len(failures)
