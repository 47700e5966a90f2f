"""What the command `tune` does: search the recipe of each model, then train the best ones."""

import dataclasses
import hashlib
import json

from rich.console import Console

from cnnsens_bench.config.schema import Config
from cnnsens_bench.engine.dry_run import probe
from cnnsens_bench.experiment.camera_mix import with_camera_mixes
from cnnsens_bench.experiment.evaluation import require_trainable, settle_view
from cnnsens_bench.experiment.fine_tune import fine_tune, thin_classes
from cnnsens_bench.experiment.prepare import input_sizes, load_samples, resolve_conditions
from cnnsens_bench.experiment.resolve import resolve_models, resolve_settings
from cnnsens_bench.experiment.search import FILE, search_models
from cnnsens_bench.experiment.stored_pictures import check_pictures
from cnnsens_bench.experiment.tracked_results import RunContext, start_tracking
from cnnsens_bench.store import holding
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.plugins import load_plugins
from cnnsens_bench.utils.progress import say


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
    config = with_camera_mixes(config)
    if config.fine_tune == "never":
        raise UserError("a search fine-tunes networks, and fine_tune=never trains nothing: leave fine_tune= out")
    models, conditions = resolve_models(config), resolve_conditions(config.search.degradations, trials=1)
    samples = load_samples(config.dataset, config.data_root)
    require_trainable(models, samples)
    check_pictures(None, conditions, samples)
    config = dataclasses.replace(config, view=settle_view(config, models, samples))
    settings = resolve_settings(config)
    probe(conditions, input_sizes(models, config.view), frost=config.frost)
    say(console, *thin_classes(samples))
    digest = hashlib.sha256(json.dumps(config.search.shaping(), sort_keys=True, default=str).encode()).hexdigest()
    tracker = start_tracking(config, f"tune-{settings.run_id}-{digest[:8]}", samples, console, "training")
    run = RunContext(settings, samples, console, tracker)
    status = "interrupted"
    try:
        with holding(settings.output_folder):
            found = search_models(run, models, conditions, config.resume)
            networks = fine_tune(run, {model.name: model for model in found}, {})
        status = "incomplete" if networks.failed else "done"
    finally:
        tracker.end(status)
    unreadable = networks.unreadable_images()
    if unreadable:
        first = next(iter(unreadable.values()))
        console.print(f"{len(unreadable)} training images could not be read; the first: {first}", markup=False)
    say(console, f"\nbest recipes, for recipe=<file>: {settings.output_folder / FILE}")
    return len(unreadable) + len(networks.failed)
