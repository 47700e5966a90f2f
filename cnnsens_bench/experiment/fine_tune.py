"""Fine-tunes the networks of a run, in this process or over a cluster, and reports each to the person and to MLflow."""

import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cnnsens_bench.datasets import Samples
from cnnsens_bench.experiment.placement import layout_of, over_ray
from cnnsens_bench.experiment.resolve import ModelConfig, RunSettings
from cnnsens_bench.experiment.tracked_results import Losses, RunContext, fine_tuning_run
from cnnsens_bench.models.preprocessing import GivenInput
from cnnsens_bench.training.finetune import FineTuning, Trained, cached_or_ready, finetune, save_trained
from cnnsens_bench.training.trainer import Diverged
from cnnsens_bench.utils.cache import cache_dir
from cnnsens_bench.utils.plugins import load_plugins
from cnnsens_bench.utils.progress import ConsoleReporter, say, stage_progress
from cnnsens_bench.utils.storage import require_writable


@dataclass(frozen=True)
class FineTuned:
    """What came of the fine-tunings of a run, by the title that a person reads."""

    trained: dict[str, Trained] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """A sentence for each network whose loss diverged."""

    def unreadable_images(self) -> dict[str, str]:
        """Return a sentence for each training image that could not be read, by its id."""
        return {image_id: sentence for result in self.trained.values() for image_id, sentence in result.failures}


def fine_tune(run: RunContext, trainings: Mapping[str, ModelConfig], defenses: Mapping[str, str]) -> FineTuned:
    """Get the checkpoint of each network from the cache or train it; over a cluster, networks train side by side.

    A training that diverges is reported and does not end the others.

    Parameters
    ----------
    run
        The run that the fine-tunings belong to.
    trainings
        What to train, by title.
    defenses
        The defense that a network is trained for, by title; "none" where it is left out.

    Raises
    ------
    UserError
        For anything else that ends a training. Networks that were trained by then are in the cache.
    """
    require_writable(cache_dir(run.settings.cache), "the cache folder", "cache=… or CNNSENS_CACHE")
    fine_tunings = _FineTunings(run, defenses)
    if not over_ray(run.settings.cluster):
        for title, model in trainings.items():
            fine_tunings.train_here(title, model)
    else:
        remaining = {title: model for title, model in trainings.items() if not fine_tunings.take_cached(title, model)}
        if remaining:
            fine_tunings.train_over_cluster(remaining)
    return fine_tunings.results


@dataclass
class _FineTunings:
    """The fine-tunings of one run, and what came of them."""

    run: RunContext
    defenses: Mapping[str, str]
    results: FineTuned = field(default_factory=FineTuned)

    def take_cached(self, title: str, model: ModelConfig) -> bool:
        """Return whether a network needs no training; its checkpoint is then among the results."""
        get = cached_or_ready if model.recipe.epochs else finetune  # which then has nothing to train
        found = get(model.name, self.run.samples, model.recipe, **self._options(model))
        if isinstance(found, Trained):
            self._add(title, model, found, [])
        return isinstance(found, Trained)

    def train_here(self, title: str, model: ModelConfig) -> None:
        """Get or train one network in this process."""
        losses: Losses = []
        torch.set_num_threads(self.run.settings.cluster.threads or os.cpu_count() or 1)
        if not model.recipe.epochs:
            say(self.run.console, f"load {title}")
            self._add(title, model, finetune(model.name, self.run.samples, model.recipe, **self._options(model)), [])
            return
        with stage_progress(self.run.console, f"fine-tune {title}", 0, "steps") as progress:

            def report(done: int, steps: int, loss: float) -> None:
                progress.total, progress.detail = steps, f"loss {loss:.3f}"
                progress.advance(done - progress.done)
                losses.append((done, loss))

            result: Trained | Diverged
            try:
                result = finetune(model.name, self.run.samples, model.recipe, **self._options(model), report=report)
                if result.cached:
                    progress.detail = "(checkpoint from the cache)"
            except Diverged as error:
                result = error
        self._add(title, model, result, losses)

    def train_over_cluster(self, trainings: Mapping[str, ModelConfig]) -> None:
        """Train networks side by side, as many at once as the sweep will have workers."""
        # Imported only here: they take seconds.
        from cnnsens_bench.runtime.cluster import connect, machines
        from cnnsens_bench.runtime.ray_training import train_over_ray

        settings = self.run.settings
        connect(settings.cluster.address)
        paths: dict[str, Path] = {}

        def waiting() -> Iterator[tuple[str, FineTuning]]:
            """Load the weights of a network when its training is about to begin."""
            for title, model in trainings.items():
                ready = cached_or_ready(model.name, self.run.samples, model.recipe, **self._options(model))
                if isinstance(ready, Trained):  # by another run, meanwhile
                    self.results.trained[title] = ready
                else:
                    paths[title] = ready.path
                    yield title, ready

        with stage_progress(self.run.console, "fine-tune over the cluster", len(trainings), "networks") as progress:
            training = train_over_ray(
                waiting(),
                layout=lambda: layout_of(settings.cluster, machines()),
                folder=Path(settings.cache).expanduser().absolute() if settings.cache else None,
                prepare=functools.partial(load_plugins, settings.plugins),
                reporter=ConsoleReporter(progress),
            )
            with closing(training):
                for title, result, losses in training:
                    trained = result if isinstance(result, Diverged) else save_trained(result, paths[title])
                    progress.advance()
                    self._add(title, trainings[title], trained, losses)
            progress.detail = ""

    def _options(self, model: ModelConfig) -> dict[str, Any]:
        return training_options(self.run.settings, model)

    def _add(self, title: str, model: ModelConfig, result: Trained | Diverged, losses: Losses) -> None:
        """Take a training that has ended into the results, and report it."""
        if isinstance(result, Trained):
            self.results.trained[title] = result
            say(self.run.console, *(f"note: {title}: {note}" for note in result.notes))
            say(self.run.console, f"checkpoint of {title}: {result.path}")
        else:
            self.results.failed[title] = str(result)
            say(self.run.console, f"{title} is left out: {result}")
        defense, seed = self.defenses.get(title, "none"), self.run.settings.seed
        # A checkpoint from the cache has no losses: what an earlier run has logged of it stays.
        replace = isinstance(result, Diverged) or not result.cached
        self.run.tracker.log(fine_tuning_run(title, model, defense, seed, result, losses), replace)


def training_options(settings: RunSettings, model: ModelConfig) -> dict[str, Any]:
    """Return what `finetune` and `cached_or_ready` take beside the model, the samples and the recipe."""
    own = {key: getattr(model, key) for key in ("weights", "input_size", "outputs")}
    own["given"] = GivenInput(**model.given)
    return own | {"view": settings.view, "seed": settings.seed, "cache": cache_dir(settings.cache)}


def thin_classes(samples: Samples) -> list[str]:
    """Return a sentence for the classes without a training image, and one for those with a single one."""
    images = samples.rows.counts
    train = images[images.index.get_level_values("split") != "test"].groupby(level="label").sum()
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
