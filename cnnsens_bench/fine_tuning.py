"""A model's checkpoint with what a person sees of its training: the progress, and a run in MLflow."""

import os

import torch
from rich.console import Console

from cnnsens_bench.cache import cache_dir
from cnnsens_bench.config import Config
from cnnsens_bench.console import meter
from cnnsens_bench.datasets import Samples
from cnnsens_bench.entries import ModelConfig
from cnnsens_bench.places import require_writable
from cnnsens_bench.tracking import Tracker
from cnnsens_bench.training.finetune import Trained, finetune


def fine_tune(
    config: Config, model: ModelConfig, title: str, samples: Samples, console: Console, tracker: Tracker
) -> Trained:
    """A model's checkpoint, from the cache or trained now."""
    losses: list[tuple[int, float]] = []
    torch.set_num_threads(config.cluster.threads or os.cpu_count() or 1)
    require_writable(cache_dir(config.cache), "the cache folder", "cache=… or CNNSENS_CACHE")
    with meter(console, f"fine-tune {title}", 0, "steps") as progress:

        def report(done: int, steps: int, loss: float) -> None:
            progress.total, progress.detail = steps, f"loss {loss:.3f}"
            progress.advance(done - progress.done)
            losses.append((done, loss))

        result = finetune(
            model.name,
            samples,
            model.recipe,
            weights=model.weights,
            input_size=model.input_size,
            seed=config.seed,
            cache=cache_dir(config.cache),
            report=report,
        )
        if result.cached:
            progress.detail = "(checkpoint from the cache)"
    console.print(f"checkpoint of {title}: {result.path}", markup=False, soft_wrap=True)
    tracker.fine_tuned(title, model.name, model.recipe, result.cached, losses)
    return result


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
