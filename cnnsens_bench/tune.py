"""The search: `python -m cnnsens_bench.tune model=torchvision/alexnet` finds recipes and trains the best ones.

Exit codes as of `run`: 0 done, 2 the request is wrong, 130 stopped, resumable (`resume=true`).
"""

import hashlib
import json
import sys
from collections.abc import Sequence

from rich.console import Console

from cnnsens_bench.config.schema import Config
from cnnsens_bench.experiment.command import entry, usage
from cnnsens_bench.experiment.resolve import model_configs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    return entry(arguments, help_text, _tune, "the same command with resume=true goes on")


def help_text() -> str:
    """Usage and every key with its default."""
    return usage(
        "python -m cnnsens_bench.tune [model=NAME] [suite=NAME] [search.trials=16] [resume=true] [key=value ...]",
        "Searches the fine-tuning recipe of each model, judged on held-out training images, and trains the best one.\n"
        "It ends with <output>/recipes.yaml, which `run recipe=<file>` takes; model=NAME is one of the suite's models, "
        "or any other.",
    )


def _tune(config: Config, console: Console) -> int:
    """Search the recipes of the models, train the best on all training images into the cache that runs use.

    Gives the number of training images that could not be read. Raises `UserError`.
    """
    # Only now: a help text or a wrong word need not wait for torch.
    from cnnsens_bench.engine.dry_run import probe
    from cnnsens_bench.experiment.fine_tune import fine_tune, thin_classes
    from cnnsens_bench.experiment.prepare import input_sizes, load_samples, objective_conditions
    from cnnsens_bench.experiment.search import FILE, search_models
    from cnnsens_bench.experiment.tracked_results import start_tracking
    from cnnsens_bench.store import holding
    from cnnsens_bench.utils.plugins import load_plugins

    load_plugins(config.plugins)
    conditions = objective_conditions(config)
    models = model_configs(config)
    probe(conditions, input_sizes(models))
    samples = load_samples(config)
    for sentence in thin_classes(samples):
        console.print(sentence, markup=False, soft_wrap=True)
    settings = hashlib.sha256(json.dumps(config.search.shaping(), sort_keys=True, default=str).encode()).hexdigest()
    tracker = start_tracking(config, f"tune-{config.run_id}-{settings[:8]}", samples, console, "training")
    status = "interrupted"
    try:
        with holding(config.output_folder):
            found = search_models(config, models, samples, conditions, console, tracker, config.resume)
            networks = fine_tune(config, {model.name: model for model in found}, samples, console, tracker)
        status = "incomplete" if networks.failed else "done"
    finally:
        tracker.end(status)
    failures = networks.unreadable_images()
    if failures:
        first = next(iter(failures.values()))
        console.print(f"{len(failures)} training images could not be read; the first: {first}", markup=False)
    console.print(f"\nbest recipes, for recipe=<file>: {config.output_folder / FILE}", markup=False, soft_wrap=True)
    return len(failures) + len(networks.failed)


if __name__ == "__main__":
    sys.exit(main())
