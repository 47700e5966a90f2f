"""Fine-tuning of one model, cached by the hash of everything that shapes it."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cnnsens_bench.datasets import Samples
from cnnsens_bench.errors import UserError
from cnnsens_bench.models.base import Classifier, best_device, logits_of, split_name
from cnnsens_bench.models.checkpoint import Checkpoint, load_checkpoint
from cnnsens_bench.models.weights import fit, starting_weights
from cnnsens_bench.training.data import TrainingImages
from cnnsens_bench.training.recipe import Recipe

VERSION = 2
"""Raised when this code changes what it trains, so that older checkpoints are not taken for it."""

Report = Callable[[int, int, float], None]
"""(steps done, steps in all, mean loss of late) while training."""


@dataclass(frozen=True)
class Trained:
    """`path` of the checkpoint; `cached`: it was there before; `failures`: (image_id, sentence) of training images
    that could not be read."""

    path: Path
    checkpoint: Checkpoint
    cached: bool
    failures: tuple[tuple[str, str], ...] = ()


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
    source, architecture = split_name(model)
    preprocessing = source.describe(architecture)
    if input_size is not None:
        preprocessing = dataclasses.replace(preprocessing, input_size=input_size)
    state, identity = starting_weights(model, weights)
    train = samples.split("train", "val")
    shaped_by = {
        "version": VERSION,
        "model": model,
        "weights": identity,
        "preprocessing": dataclasses.asdict(preprocessing),
        "data": [dataclasses.replace(samples, table=train).fingerprint(), file_sizes(train)] if recipe.epochs else None,
        "classes": samples.classes,
        "recipe": dataclasses.asdict(recipe) if recipe.epochs else None,
        "seed": seed,
    }
    digest = hashlib.sha256(json.dumps(shaped_by, sort_keys=True).encode()).hexdigest()
    path = cache / "checkpoints" / f"{architecture}-{samples.name}-{digest[:16]}.pt"
    if path.is_file():
        checkpoint = load_checkpoint(path)
        return Trained(path, checkpoint, True, tuple((i, text) for i, text in checkpoint.extra.get("failures", ())))
    torch.manual_seed(seed)
    try:
        network = source.build(architecture, len(samples.classes), preprocessing.input_size)
    except (AssertionError, TypeError, RuntimeError, ValueError) as error:
        raise UserError(
            f"model '{model}' cannot be built for inputs of {preprocessing.input_size} px: {error}"
        ) from None
    if state is not None:
        fit(network, state, model)
    failures: list[tuple[str, str]] = []
    if recipe.epochs:
        if train.empty:
            raise UserError(f"dataset '{samples.name}' has no training images: training.epochs=0 evaluates as it is")
        data = TrainingImages(train, preprocessing.input_size, cache)
        failures = data.failures
        try:
            train_network(Classifier(network, preprocessing, recipe.input_dropout), data, recipe, seed, report)
        finally:
            data.close()
    extra = {"shaped_by": json.dumps(shaped_by), "failures": failures}
    checkpoint = Checkpoint(model, samples.classes, preprocessing, network.state_dict(), extra)
    checkpoint.save(path)
    return Trained(path, checkpoint, False, tuple(failures))


def file_sizes(table: pd.DataFrame) -> str:
    """SHA-256 of the sizes of a table's files: a file that is mended or exchanged shapes what is trained on it."""
    sizes = [Path(uri).stat().st_size if Path(uri).is_file() else -1 for uri in table["uri"]]
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()


def train_network(
    classifier: Classifier, data: TrainingImages, recipe: Recipe, seed: int, report: Report | None = None
) -> None:
    """Train in place by `recipe`; the network ends in eval mode on the CPU. Raises `UserError` on divergence."""
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
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rates, total_steps=steps + 1, pct_start=recipe.warmup, cycle_momentum=False
    )
    loss_function = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    done, smooth = 0, float("nan")
    for epoch in range(recipe.epochs):
        for pixels, labels in data.batches(recipe, np.random.default_rng([seed, epoch])):
            inputs = with_noise(pixels.to(device).float(), recipe.input_noise)
            loss = loss_function(logits_of(classifier(inputs)), labels.to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(classifier.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            done += 1
            value = loss.item()
            if not np.isfinite(value):
                raise UserError(f"training diverged (loss {value}) at step {done}: lower training.lr_body and lr_head")
            smooth = value if np.isnan(smooth) else 0.9 * smooth + 0.1 * value
            if report:
                report(done, steps, smooth)
    classifier.to("cpu").eval()


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
