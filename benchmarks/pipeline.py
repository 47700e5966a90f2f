"""The sweep against its limit, its forward passes alone; and the plain way against the sweep.

    python benchmarks/pipeline.py [--json FILE] [--seconds 180]

AlexNet at 224², batches of 32, on `plumage`, under every degradation at the paper's levels.

`in_process.efficiency`, `ray.efficiency`: time of the forward passes alone ÷ time of the whole sweep (decoding,
degrading, predicting, writing parts; over Ray also starting it). The forward passes are the limit because nothing
can predict without them: as many batches of the same shape through the same network, their pixels in memory.
`plain.ratio`: seconds of a DataLoader with an albumentations transform per image and condition ÷ ours, over the
conditions that albumentations has.

What is compared alternates; figures are medians over rounds. Over Ray there is one round of about `--seconds`, with
the forward passes timed before and after it.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnnsens_bench.utils.memory import keep_freed_memory

keep_freed_memory()  # before torch allocates

import albumentations  # noqa: E402
import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from cnnsens_bench.datasets import load  # noqa: E402
from cnnsens_bench.degradations import degradations  # noqa: E402
from cnnsens_bench.engine.plan import Condition, Entrant, Sweep, plan  # noqa: E402
from cnnsens_bench.models import Checkpoint, split_name  # noqa: E402
from cnnsens_bench.models.base import best_device  # noqa: E402
from cnnsens_bench.runtime.local import run_local  # noqa: E402
from cnnsens_bench.runtime.plan_store import stored_plan  # noqa: E402
from cnnsens_bench.runtime.ray_pipeline import run_ray  # noqa: E402
from cnnsens_bench.runtime.resources import ExecutionOptions  # noqa: E402
from cnnsens_bench.store import new_attempt  # noqa: E402

MODEL = "torchvision/alexnet"
BATCH, SIZE = 32, 224
PLAIN: dict[str, Callable[[float], albumentations.BasicTransform]] = {
    "gaussian_rgb": lambda s: albumentations.GaussNoise(std_range=(s / 255, s / 255), p=1),
    "pepper": lambda p: albumentations.PixelDropout(dropout_prob=p, per_channel=True, p=1),
    "flip_lr": lambda _: albumentations.HorizontalFlip(p=1),
    "flip_ud": lambda _: albumentations.VerticalFlip(p=1),
}


def sweep_of(names: list[str], trials: int) -> Sweep:
    """AlexNet under the named degradations at the paper's levels."""
    conditions = [(degradations[name], degradations[name].levels or (0.0,)) for name in names]
    return Sweep(
        run_id="bench",
        dataset="plumage",
        entrants=(Entrant(MODEL, "alexnet", "none", MODEL),),
        conditions=tuple(Condition(d.name, levels, trials if d.random else 1) for d, levels in conditions),
        batch_size=BATCH,
    )


def make_checkpoint() -> Checkpoint:
    """AlexNet of eight classes with random weights: its speed does not depend on them."""
    torch.manual_seed(0)
    source, name = split_name(MODEL)
    network = source.build(name, 8, SIZE)
    return Checkpoint(MODEL, tuple("abcdefgh"), source.describe(name), network.state_dict())


def time_forwards(checkpoint: Checkpoint, batches: int) -> float:
    """Seconds for so many forward passes as the engine makes them."""
    device = best_device()
    classifier = checkpoint.classifier().to(device).to(memory_format=torch.channels_last)
    pixels = (torch.rand(BATCH, 3, SIZE, SIZE, device=device) * 255).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        classifier(pixels)
        began = time.perf_counter()
        for _ in range(batches):
            classifier(pixels)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


def time_sweep(sweep: Sweep, images: pd.DataFrame, checkpoint: Checkpoint, ray: bool) -> float:
    """Seconds from the plan to the last part."""
    with tempfile.TemporaryDirectory() as folder:
        parts = new_attempt(Path(folder))
        began = time.perf_counter()
        with stored_plan(sweep, plan(sweep, images, None), parts) as stored:
            run = run_ray if ray else run_local
            outcomes = run(sweep, stored, {MODEL: checkpoint}, parts, ExecutionOptions(threads=os.cpu_count()))
            done = sum(outcome.evaluations for outcome in outcomes)
        seconds = time.perf_counter() - began
    assert done == len(images) * len(sweep.cells())
    return seconds


def batches_of(sweep: Sweep, images: int) -> int:
    """Return the forward passes of a sweep whose image batches are all full."""
    return -(-images * len(sweep.cells()) // BATCH)


class PlainData(torch.utils.data.Dataset):
    """What one writes first: decode, crop, resize, transform, normalise, image by image, condition by condition."""

    def __init__(self, images: pd.DataFrame, transform: albumentations.BasicTransform | None) -> None:
        steps: list[Any] = [] if transform is None else [transform]
        self.rows = images.to_dict("records")
        self.transform = albumentations.Compose([*steps, albumentations.Normalize()])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        row = self.rows[index]
        x, y, w, h = (row[f"box_{key}"] for key in "xywh")
        with Image.open(row["uri"]) as image:
            crop = image.convert("RGB").crop((round(x), round(y), round(x + w), round(y + h)))
        pixels = np.asarray(crop.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        return torch.from_numpy(self.transform(image=pixels)["image"]).permute(2, 0, 1)


def time_plain(sweep: Sweep, images: pd.DataFrame, checkpoint: Checkpoint) -> float:
    """Seconds of the plain loop over the same cells."""
    cv2.setNumThreads(1)
    device = best_device()
    network = checkpoint.classifier().network.to(device)
    began = time.perf_counter()
    with torch.no_grad():
        for cell in sweep.cells():
            transform = PLAIN[cell.degradation](cell.level) if cell.degradation in PLAIN else None
            for pixels in torch.utils.data.DataLoader(PlainData(images, transform), BATCH):
                network(pixels.contiguous().to(device)).softmax(1).cpu()
    return time.perf_counter() - began


def over_ray(checkpoint: Checkpoint, images: pd.DataFrame, per_image: float, seconds: float) -> dict[str, float]:
    """One sweep of about `seconds`, given the seconds of a forward pass per image."""
    cells = len(sweep_of(list(degradations), 1).cells())
    long = sweep_of(list(degradations), max(1, round(seconds / (per_image * cells * len(images) / 4))))
    count = max(BATCH, round(seconds / (per_image * len(long.cells())) / BATCH) * BATCH)
    many = pd.concat([images] * -(-count // len(images)), ignore_index=True)[:count]
    many["image_id"] = [f"{image_id}-{n}" for n, image_id in enumerate(many["image_id"])]
    batches = batches_of(long, count)
    tenth = max(1, batches // 10)
    before = time_forwards(checkpoint, tenth)
    whole = time_sweep(long, many, checkpoint, ray=True)
    alone = (before + time_forwards(checkpoint, tenth)) / 2 / tenth * batches
    return {"efficiency": alone / whole, "seconds": whole, "evaluations": count * len(long.cells())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--seconds", type=float, default=180, help="length of the run over Ray; 0 leaves it out")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    checkpoint = make_checkpoint()
    every = load("plumage", None, None, {}).split("test", "train")
    images = every.iloc[:: len(every) // 96][:96]

    full = sweep_of(list(degradations), trials=1)
    batches = batches_of(full, len(images))
    rounds = []
    for _ in range(given.rounds):
        # Half before and half after: a machine whose speed drifts slows both alike.
        before = time_forwards(checkpoint, batches // 2)
        whole = time_sweep(full, images, checkpoint, ray=False)
        rounds.append((before + time_forwards(checkpoint, batches - batches // 2), whole))
    per_image = statistics.median(alone for alone, _ in rounds) / (batches * BATCH)
    common = sweep_of(list(PLAIN), trials=1)
    pairs = [
        (time_plain(common, images[::3], checkpoint), time_sweep(common, images[::3], checkpoint, ray=False))
        for _ in range(given.rounds)
    ]
    figures: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "device": str(best_device())},
        "in_process": {
            "efficiency": statistics.median(alone / whole for alone, whole in rounds),
            "forward_ms_per_image": 1e3 * per_image,
            "evaluations": batches * BATCH,
        },
        "plain": {"ratio": statistics.median(plain / ours for plain, ours in pairs)},
    }
    if given.seconds:
        figures["ray"] = over_ray(checkpoint, every, per_image, given.seconds)

    table = Table("figure", "value", title="The sweep against its forward passes alone (AlexNet, 224², batch 32)")
    for section, values in figures.items():
        for key, value in values.items():
            table.add_row(f"{section}.{key}", f"{value:.3f}" if isinstance(value, float) else str(value))
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
