"""Fine-tuning of one model, cached by the hash of everything that shapes it."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cnnsens_bench.datasets import Samples
from cnnsens_bench.models.base import (
    Classifier,
    Preprocessing,
    best_device,
    build_network,
    logits_of,
    preprocessing_of,
    split_name,
)
from cnnsens_bench.models.checkpoint import Checkpoint, load_checkpoint
from cnnsens_bench.models.weights import class_count, load_weights, starting_weights
from cnnsens_bench.training.data import Share, TrainingImages
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.utils.errors import UserError

VERSION = 2
"""Raised when this code changes what it trains, so that older checkpoints are not taken for it."""

Report = Callable[[int, int, float], None]
"""(steps done, steps in all, mean loss of late) while training."""


AfterEpoch = Callable[[int, Classifier, Callable[[], dict[str, Any]]], None]
"""(epochs done, the classifier as it trains, what gives the state to go on from) after each epoch."""


class Diverged(UserError):
    """The loss is no longer finite."""


@dataclass(frozen=True)
class Trained:
    """`path` of the checkpoint; `cached`: it was there before; `failures`: (image_id, sentence) of training images
    that could not be read."""

    path: Path
    cached: bool
    failures: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class FineTuning:
    """A fine-tuning that can begin, in this process or another one: it needs nothing but the images.

    `table`: the samples to train on, of the data set `name`; `state`: the weights to start from, None for random
    ones; `shaped_by`: all that decides what comes out, as JSON; `path`: where the checkpoint belongs.
    """

    model: str
    name: str
    classes: tuple[str, ...]
    table: pd.DataFrame
    preprocessing: Preprocessing
    state: dict[str, Tensor] | None
    recipe: Recipe
    seed: int
    shaped_by: str
    path: Path

    def run(self, folder: Path, report: Report | None = None) -> Checkpoint:
        """Train; `folder` holds the decoded images meanwhile. Raises `UserError`."""
        network = starting_network(self.model, len(self.classes), self.preprocessing, self.state, self.seed)
        if not self.recipe.epochs and self.state is not None and (count := class_count(network, self.state)):
            raise UserError(
                f"the weights of '{self.model}' are of {count} classes, dataset '{self.name}' has {len(self.classes)}: "
                "with training.epochs=0 the head would know none of them; fine-tune it, or give weights of this data "
                "set"
            )
        failures: list[tuple[str, str]] = []
        if self.recipe.epochs:
            if self.table.empty:
                raise UserError(f"dataset '{self.name}' has no training images: training.epochs=0 evaluates as it is")
            data = TrainingImages(self.table, self.preprocessing.input_size, folder)
            failures = data.failures
            classifier = Classifier(network, self.preprocessing, self.recipe.input_dropout)
            try:
                train_network(classifier, data, self.recipe, self.seed, report)
            except torch.OutOfMemoryError:
                raise UserError(
                    f"the GPU's memory does not suffice to train '{self.model}' with {self.recipe.batch_size} images "
                    "at a time: lower its training.batch_size"
                ) from None
            finally:
                data.close()
        extra = {"shaped_by": self.shaped_by, "failures": failures}
        return Checkpoint(self.model, self.classes, self.preprocessing, network.state_dict(), extra)


def keep(checkpoint: Checkpoint, path: Path) -> Trained:
    """Save what `FineTuning.run` gave into the cache."""
    checkpoint.save(path)
    return Trained(path, False, _failures(checkpoint))


def finetune(
    model: str,
    samples: Samples,
    recipe: Recipe,
    *,
    weights: str = "auto",
    input_size: int | None = None,
    seed: int = 0,
    cache: Path,
    report: Report | None = None,
) -> Trained:
    """The checkpoint of `model` fine-tuned on the train (and val) images of `samples`; from the cache if it is there.

    `weights`: see `starting_weights`; `input_size`: None for the architecture's own. Raises `UserError` for
    weights that cannot be had, an empty training split or a loss that diverges.
    """
    found = cached_or_ready(model, samples, recipe, weights=weights, input_size=input_size, seed=seed, cache=cache)
    return found if isinstance(found, Trained) else keep(found.run(cache, report), found.path)


def cached_or_ready(
    model: str, samples: Samples, recipe: Recipe, *, weights: str, input_size: int | None, seed: int, cache: Path
) -> Trained | FineTuning:
    """The checkpoint that `finetune` would give if it is in the cache, else what makes it. Raises `UserError`."""
    _, architecture = split_name(model)
    preprocessing = preprocessing_of(model, input_size)
    state, identity = starting_weights(model, weights)
    train = samples.split("train", "val")
    fitted_on = [dataclasses.replace(samples, table=train).fingerprint(), file_sizes(train)] if recipe.epochs else None
    shaped_by = {
        "version": VERSION,
        "model": model,
        "weights": identity,
        "preprocessing": dataclasses.asdict(preprocessing),
        "data": fitted_on,
        "classes": samples.classes,
        "recipe": dataclasses.asdict(recipe) if recipe.epochs else None,
        "seed": seed,
    }
    text = json.dumps(shaped_by)
    digest = hashlib.sha256(json.dumps(shaped_by, sort_keys=True).encode()).hexdigest()
    path = cache / "checkpoints" / f"{architecture}-{samples.name}-{digest[:16]}.pt"
    if path.is_file():
        checkpoint = load_checkpoint(path)
        if checkpoint.extra.get("shaped_by") != text:
            raise UserError(f"{path} is not the checkpoint that its name says: delete it, and it is made anew")
        return Trained(path, True, _failures(checkpoint))
    return FineTuning(model, samples.name, samples.classes, train, preprocessing, state, recipe, seed, text, path)


def _failures(checkpoint: Checkpoint) -> tuple[tuple[str, str], ...]:
    return tuple((image_id, sentence) for image_id, sentence in checkpoint.extra.get("failures", ()))


def starting_network(
    model: str, classes: int, preprocessing: Preprocessing, state: dict[str, Tensor] | None, seed: int
) -> nn.Module:
    """A network for `classes` with the weights of `state`, or random ones; the same seed draws the same.

    Raises `UserError` when it cannot be built for the input size or the weights are another network's.
    """
    torch.manual_seed(seed)
    network = build_network(model, classes, preprocessing.input_size)
    if state is not None:
        load_weights(network, state, model)
    return network


def file_sizes(table: pd.DataFrame) -> str:
    """SHA-256 of the sizes of a table's files: a file that is mended or exchanged shapes what is trained on it."""
    sizes = [Path(uri).stat().st_size if Path(uri).is_file() else -1 for uri in table["uri"]]
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()


def train_network(
    classifier: Classifier,
    data: TrainingImages,
    recipe: Recipe,
    seed: int,
    report: Report | None = None,
    *,
    after_epoch: AfterEpoch | None = None,
    state: dict[str, Any] | None = None,
    share: Share | None = None,
) -> None:
    """Train in place by `recipe`; the network ends in eval mode on the CPU. Raises `Diverged`.

    `state`: what `after_epoch` could ask for in an earlier process; training goes on as if it had not been stopped.
    `share`: this process's part of every batch, where several train together (torch.distributed is then set up).
    """
    if len(data) < 2:
        raise UserError("fewer than two training images could be read: see the failures, or check the dataset's root")
    device = best_device()
    classifier.to(device).to(memory_format=torch.channels_last).train()
    if recipe.freeze_norm:
        for layer in classifier.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()
    steps = max(1, len(data) // min(recipe.batch_size, len(data))) * recipe.epochs
    groups = parameter_groups(classifier.network, recipe)
    optimiser = torch.optim.AdamW(groups, fused=True)
    rates = [group["lr"] for group in groups]
    # A warm-up of exactly one step makes OneCycleLR divide by zero.
    warmup = recipe.warmup if abs(recipe.warmup * (steps + 1) - 1) > 1e-6 else 1.01 * recipe.warmup
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rates, total_steps=steps + 1, pct_start=warmup, cycle_momentum=False
    )
    loss_function = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    done, smooth, first = 0, float("nan"), 0
    if state is not None:
        first = state["epochs"]
        done = steps // recipe.epochs * first
        classifier.load_state_dict(state["classifier"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        _set_random_state(state["random"])
    together = share is not None and share.count > 1
    forward = nn.parallel.DistributedDataParallel(classifier) if together else classifier

    def progress(epochs: int) -> dict[str, Any]:
        return {
            "epochs": epochs,
            "classifier": classifier.state_dict(),
            "optimiser": optimiser.state_dict(),
            "schedule": schedule.state_dict(),
            "random": _random_state(),
        }

    for epoch in range(first, recipe.epochs):
        for pixels, labels in data.batches(recipe, np.random.default_rng([seed, epoch]), share):
            inputs = with_noise(pixels.to(device).float(), recipe.input_noise)
            loss = loss_function(logits_of(forward(inputs)), labels.to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(classifier.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            done += 1
            value = _mean_over_processes(loss).item() if together else loss.item()
            if not np.isfinite(value):
                raise Diverged(f"training diverged (loss {value}) at step {done}: lower training.lr_body and lr_head")
            smooth = value if np.isnan(smooth) else 0.9 * smooth + 0.1 * value
            if report:
                report(done, steps, smooth)
        if after_epoch:
            after_epoch(epoch + 1, classifier, functools.partial(progress, epoch + 1))
    classifier.to("cpu").eval()


def _mean_over_processes(loss: Tensor) -> Tensor:
    """The same on all, so that all stop when one diverges."""
    mean = loss.detach().clone()
    torch.distributed.all_reduce(mean)
    return mean / torch.distributed.get_world_size()


def _random_state() -> dict[str, Any]:
    """Dropout and noise draw from torch's own generators."""
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": on_gpus}


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    for device, of_device in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(of_device, device)


def with_noise(pixels: Tensor, sigma: float) -> Tensor:
    """N(0, σ²) on the images of a batch (N, 3, H, W) in [0, 255], each with probability 1/2, clamped again."""
    if not sigma:
        return pixels
    chosen = torch.rand(len(pixels), 1, 1, 1, device=pixels.device) < 0.5
    return torch.where(chosen, (pixels + sigma * torch.randn_like(pixels)).clamp(0, 255), pixels)


def parameter_groups(network: nn.Module, recipe: Recipe) -> list[dict]:
    """Body and head, each with and without weight decay (none for biases and normalisation)."""
    head = {id(p) for p in head_layer(network).parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        groups.setdefault((id(parameter) in head, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.lr_head if in_head else recipe.lr_body,
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (in_head, decays), parameters in groups.items()
    ]


def head_layer(network: nn.Module) -> nn.Module:
    """The last linear layer (or convolution, in networks that end in one)."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
