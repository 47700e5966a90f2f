"""The scores of an image against the forward passes that an empirical estimate takes.

    python benchmarks/sensitivity.py [--json FILE] [--models torchvision/alexnet,timm/resnet18] [--rounds 7]
        [--photographs FOLDER] [--images 60] [--trials 30]

Batches of 32 made-up images at 224² (`--size`, `--batch`), random weights, one network after the other.

`cost_in_forwards`: seconds of all scores of a batch (one forward pass, a backward pass for each of the three outputs,
the level-free sums of section 4, for every level of every noise) ÷ seconds of one forward pass without gradients. The
limit is 4, a backward pass to the pixels costing about as much as a forward pass. `vs_empirical`: seconds of the 60
forward passes (6 conditions × 10 trials) of the empirical estimate, their images degraded and in memory, ÷ seconds of
the scores. Both are those of the first network; `models.<name>` has each one's. `predictors.<name>.<network>`: forward
passes that a predictor takes beside the scores for one condition, as measured, beside the `passes` it counts for one
output.

What is compared alternates; figures are medians over rounds.

`label_change.<predictor>.<degradation>.<level>`: the mean absolute `error` of an image's predicted p_Δ against that of
`--trials`, Spearman's `spearman` of the two, and the `passes`. The network is a small ResNet on `plumage` at 64², or
with `--photographs` EfficientNet-Lite0 with its published weights on a folder of wnids. The limit is what the trials
leave open themselves, an error of 0.07 on average for an image whose p_Δ is 1/2 and 30 trials.
"""

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnnsens_bench.utils.memory import keep_freed_memory

keep_freed_memory()  # before torch allocates

import pandas as pd  # noqa: E402
import torch  # noqa: E402
from label_changes import compare, show_errors  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from torch import Tensor  # noqa: E402

from cnnsens_bench.models import Classifier, Preprocessing, split_name  # noqa: E402
from cnnsens_bench.models.classifier import best_device  # noqa: E402
from cnnsens_bench.sensitivity.gradients import central_differences, differentiate, level_free  # noqa: E402
from cnnsens_bench.sensitivity.predictors import PredictorInput, parse_predictor  # noqa: E402

MODELS = "torchvision/alexnet,timm/tf_efficientnet_lite0"
PREDICTORS = ("clamped_gradient", "noisy_gradients(copies=2)", "smoothed(copies=4)", "sampling(copies=15)")
EMPIRICAL = 60
CLASSES = 200


def network_of(model: str, size: int, device: torch.device) -> Classifier:
    """With random weights, as a sweep has it: fixed, on the device, channels last."""
    source, name = split_name(model)
    described = source.describe(name)
    network = source.build(name, CLASSES, size)
    classifier = Classifier(network, Preprocessing(size, described.mean, described.std)).eval().requires_grad_(False)
    return classifier.to(device).to(memory_format=torch.channels_last)


def measure(model: str, size: int, batch: int, rounds: int) -> dict[str, Any]:
    """Ratios of one network."""
    device = best_device()
    network = network_of(model, size, device)
    generator = torch.Generator().manual_seed(0)
    wide = 255 * torch.rand(batch, 3, size + 2, size + 2, generator=generator)
    wide = wide.to(device).contiguous(memory_format=torch.channels_last)
    pixels = wide[..., 1:-1, 1:-1].contiguous(memory_format=torch.channels_last)
    across, down = central_differences(wide)

    def forward() -> None:
        with torch.inference_mode():
            network(pixels)

    def scores() -> None:
        level_free(differentiate(network, pixels), pixels, across, down)

    outputs = differentiate(network, pixels)
    noise = 4 * torch.randn(pixels.shape, generator=generator).to(device)
    noisy = (pixels + noise).clamp(0, 255).contiguous(memory_format=torch.channels_last)

    def moved(dx: float, dy: float) -> Tensor:
        return pixels

    scene = PredictorInput(network, pixels, outputs, "gaussian_rgb", 4.0, lambda k: noisy, moved)
    parsed = [parse_predictor(name) for name in PREDICTORS]
    jobs: dict[str, Callable[[], Any]] = {"forward": forward, "scores": scores}
    jobs |= {p.name: functools.partial(p.predict, scene) for p in parsed}
    seconds = alternate(jobs, rounds, device)
    # Sixty passes are timed as sixty times one: their number is no part of what is unknown.
    return {
        "cost_in_forwards": seconds["scores"] / seconds["forward"],
        "vs_empirical": EMPIRICAL * seconds["forward"] / seconds["scores"],
        "predictors": {p.name: {"forwards": seconds[p.name] / seconds["forward"], "passes": p.passes} for p in parsed},
        "forward_ms_per_image": 1000 * seconds["forward"] / batch,
    }


def alternate(jobs: dict[str, Callable[[], Any]], rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each, one after the other in every round; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for i in range(rounds + 1):
        for name, job in jobs.items():
            # Short ones often enough to be timed.
            repeats = 3 if name == "forward" else 1
            _wait(device)
            start = time.perf_counter()
            for _ in range(repeats):
                job()
            _wait(device)
            if i:
                times[name].append((time.perf_counter() - start) / repeats)
    return {name: statistics.median(values) for name, values in times.items()}


def nested(errors: pd.DataFrame) -> dict[str, Any]:
    """Return the errors of predictors as nested objects: predictor, degradation, level."""
    found: dict[str, Any] = {}
    for row in errors.itertuples():
        by_level = found.setdefault(row.predictor, {}).setdefault(row.degradation, {})
        by_level[f"{row.level:g}"] = {key: float(getattr(row, key)) for key in ("error", "spearman", "passes")}
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--photographs", type=Path, help="a folder with a folder for each wnid, in place of plumage")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--trials", type=int, default=30)
    given = parser.parse_args()
    found = {model: measure(model, given.size, given.batch, given.rounds) for model in given.models.split(",")}
    first = next(iter(found.values()))
    figures: dict[str, Any] = {key: first[key] for key in ("cost_in_forwards", "vs_empirical")}
    figures["models"] = {model: {key: own[key] for key in own if key != "predictors"} for model, own in found.items()}
    figures["predictors"] = {
        name: {model: own["predictors"][name] for model, own in found.items()} for name in first["predictors"]
    }
    table = Table("", *found, title="in forward passes of the same batch")
    table.add_row("all scores (bar: at most 5)", *(f"{own['cost_in_forwards']:.2f}" for own in found.values()))
    empirical = (f"{own['vs_empirical']:.1f} ×" for own in found.values())
    table.add_row("60 forward passes ÷ scores (bar: at least 10)", *empirical)
    for name in first["predictors"]:
        costs = (own["predictors"][name] for own in found.values())
        table.add_row(f"{name}, one condition", *(f"{c['forwards']:.2f} ({c['passes']} an output)" for c in costs))
    Console(width=110).print(table)
    errors = compare(given.photographs, given.images, given.trials)
    show_errors(errors)
    figures["label_change"] = nested(errors)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
