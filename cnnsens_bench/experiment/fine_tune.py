"""Checkpoints of models with what a person sees of their training: the progress, and a run in MLflow each."""

import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cnnsens_bench.config.schema import Config
from cnnsens_bench.datasets import Samples
from cnnsens_bench.experiment.placement import layout_of, over_ray
from cnnsens_bench.experiment.resolve import ModelConfig
from cnnsens_bench.tracking import Tracker
from cnnsens_bench.training.finetune import FineTuning, Trained, cached_or_ready, finetune, keep
from cnnsens_bench.utils.cache import cache_dir
from cnnsens_bench.utils.plugins import load_plugins
from cnnsens_bench.utils.progress import ConsoleReporter, meter
from cnnsens_bench.utils.storage import require_writable


def fine_tune(
    config: Config, trainings: Mapping[str, ModelConfig], samples: Samples, console: Console, tracker: Tracker
) -> dict[str, Trained]:
    """Checkpoints, from the cache or trained now, by the title that a person reads; over a cluster side by side.

    Raises `UserError`: those that had ended by then are in the cache.
    """
    require_writable(cache_dir(config.cache), "the cache folder", "cache=… or CNNSENS_CACHE")
    if not over_ray(config):
        return {title: _here(config, title, model, samples, console, tracker) for title, model in trainings.items()}
    found: dict[str, Trained] = {}
    for title, model in trainings.items():
        get = cached_or_ready if model.recipe.epochs else finetune  # which then has nothing to train
        ready = get(model.name, samples, model.recipe, **_asked(config, model))
        if isinstance(ready, Trained):
            found[title] = ready
            _tell(title, model, ready, [], console, tracker)
    left = {title: model for title, model in trainings.items() if title not in found}
    if left:
        found |= _over_cluster(config, left, samples, console, tracker)
    return {title: found[title] for title in trainings}


def _here(
    config: Config, title: str, model: ModelConfig, samples: Samples, console: Console, tracker: Tracker
) -> Trained:
    """In this process."""
    losses: list[tuple[int, float]] = []
    torch.set_num_threads(config.cluster.threads or os.cpu_count() or 1)
    with meter(console, f"fine-tune {title}", 0, "steps") as progress:

        def report(done: int, steps: int, loss: float) -> None:
            progress.total, progress.detail = steps, f"loss {loss:.3f}"
            progress.advance(done - progress.done)
            losses.append((done, loss))

        result = finetune(model.name, samples, model.recipe, **_asked(config, model), report=report)
        if result.cached:
            progress.detail = "(checkpoint from the cache)"
    _tell(title, model, result, losses, console, tracker)
    return result


def _over_cluster(
    config: Config, trainings: Mapping[str, ModelConfig], samples: Samples, console: Console, tracker: Tracker
) -> dict[str, Trained]:
    """Side by side, as many as the sweep will have workers."""
    # Imported only here: they take seconds.
    from cnnsens_bench.runtime.cluster import connect, machines
    from cnnsens_bench.runtime.ray_training import train_over_ray

    connect(config.cluster.address)
    folder = Path(config.cache).expanduser().absolute() if config.cache else None
    prepare = functools.partial(load_plugins, tuple(config.plugins))
    found: dict[str, Trained] = {}
    paths: dict[str, Path] = {}

    def waiting() -> Iterator[tuple[str, FineTuning]]:
        """Weights are loaded for those that begin."""
        for title, model in trainings.items():
            ready = cached_or_ready(model.name, samples, model.recipe, **_asked(config, model))
            if isinstance(ready, Trained):  # by another run, meanwhile
                found[title] = ready
            else:
                paths[title] = ready.path
                yield title, ready

    with meter(console, "fine-tune over the cluster", len(trainings), "networks") as progress:
        training = train_over_ray(
            waiting(),
            layout=lambda: layout_of(config.cluster, machines()),
            folder=folder,
            prepare=prepare,
            reporter=ConsoleReporter(progress),
        )
        with closing(training) as ended:
            for title, checkpoint, losses in ended:
                found[title] = keep(checkpoint, paths[title])
                progress.advance()
                _tell(title, trainings[title], found[title], losses, console, tracker)
        progress.detail = ""
    return found


def _asked(config: Config, model: ModelConfig) -> dict[str, Any]:
    """What `finetune` and `cached_or_ready` are asked for beside model, samples and recipe."""
    return {
        "weights": model.weights,
        "input_size": model.input_size,
        "seed": config.seed,
        "cache": cache_dir(config.cache),
    }


def _tell(
    title: str,
    model: ModelConfig,
    trained: Trained,
    losses: list[tuple[int, float]],
    console: Console,
    tracker: Tracker,
) -> None:
    console.print(f"checkpoint of {title}: {trained.path}", markup=False, soft_wrap=True)
    tracker.fine_tuned(title, model.name, model.recipe, trained.cached, losses)


def thin_classes(samples: Samples) -> list[str]:
    """A sentence for classes without a training image, and one for those with a single one."""
    train = samples.split("train", "val")["label"].value_counts()
    counts = [int(train.get(label, 0)) for label in range(len(samples.classes))]
    sentences = []
    for count, what, then in (
        (0, "no training image", "no network can learn it, its test images will be wrong"),
        (1, "one training image", "it is trained on, but a search cannot be judged by it"),
    ):
        found = [name for name, n in zip(samples.classes, counts, strict=True) if n == count]
        if found:
            others = f" and {len(found) - 1} other classes have" if len(found) > 1 else " has"
            sentences.append(f"note: class '{found[0]}'{others} {what}: {then}")
    return sentences
