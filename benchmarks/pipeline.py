"""Compare the sweep with its limit, the forward passes alone, and with the plain loop that one writes first.

    python benchmarks/pipeline.py [--json FILE] [--long]

The images are those of `plumage` at 224², in batches of 32, and the weights are random, because speed does not depend
on them. The figures are ratios:

`paper.efficiency`, `common.efficiency`: seconds of the eager float32 forward passes alone ÷ seconds of the whole sweep
in one process (decoding, degrading, predicting, writing parts), for AlexNet under the paper's degradations at the
paper's levels, and for EfficientNet-Lite0 under the 15 common corruptions at their 5 severities. The forward passes are
the limit, because nothing can predict without them: batches of the same shape, their pixels in memory.
`ray.efficiency`: the same over a Ray cluster that runs already, for AlexNet under the paper's degradations, with the
start of the processes that compute; `ray.with_start` counts the start of the cluster too; `ray.steady` counts only what
comes after the first task; `ray.three_minutes` is what `ray.steady` and the start give for a run of three minutes.
`compiled.ratio`: seconds of the eager sweep of EfficientNet-Lite0 under the common corruptions ÷ seconds of the sweep
of the compiled network, without `compiled.compile_s`, which compiling takes once its code is in the cache.
`plain.ratio`: seconds of a DataLoader with an albumentations transform per image and condition and an eager network ÷
seconds of the sweep of the compiled one, also without compiling, for EfficientNet-Lite0 over the conditions that
albumentations has.

What is compared alternates, and figures are medians over rounds. A quarter of a sweep's forward passes are timed, half
of them before it and half after it. The run over Ray is one of about 45 seconds (three minutes with `--long`).
"""

import argparse
import contextlib
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from cnnsens_bench.utils.memory import keep_freed_memory

keep_freed_memory()  # before torch allocates

import albumentations  # noqa: E402
import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from conditions import COMMON, PAPER  # noqa: E402
from PIL import Image  # noqa: E402
from reporting import show  # noqa: E402

from cnnsens_bench.datasets import load  # noqa: E402
from cnnsens_bench.degradations import degradations  # noqa: E402
from cnnsens_bench.engine import evaluate  # noqa: E402
from cnnsens_bench.engine.compiled import compile_networks  # noqa: E402
from cnnsens_bench.engine.plan import plan  # noqa: E402
from cnnsens_bench.engine.sweep import Condition, Entrant, Sweep  # noqa: E402
from cnnsens_bench.models import Checkpoint, split_name  # noqa: E402
from cnnsens_bench.models.classifier import best_device  # noqa: E402
from cnnsens_bench.runtime.cluster import connect  # noqa: E402
from cnnsens_bench.runtime.local import run_local  # noqa: E402
from cnnsens_bench.runtime.plan_store import stored_plan  # noqa: E402
from cnnsens_bench.runtime.ray_pipeline import run_ray  # noqa: E402
from cnnsens_bench.runtime.resources import ExecutionOptions  # noqa: E402
from cnnsens_bench.store import new_attempt  # noqa: E402

ALEXNET, EFFICIENTNET = "torchvision/alexnet", "timm/tf_efficientnet_lite0"
BATCH, SIZE = 32, 224
PLAIN: dict[str, Callable[[float], albumentations.BasicTransform]] = {
    "gaussian_rgb": lambda s: albumentations.GaussNoise(std_range=(s / 255, s / 255), p=1),
    "pepper": lambda p: albumentations.PixelDropout(dropout_prob=p, per_channel=True, p=1),
    "flip_lr": lambda _: albumentations.HorizontalFlip(p=1),
    "flip_ud": lambda _: albumentations.VerticalFlip(p=1),
}


def make_sweep(model: str, names: Sequence[str], trials: int = 1) -> Sweep:
    """Return a sweep of one network under the named degradations at their own levels."""
    chosen = [degradations[name] for name in names]
    return Sweep(
        run_id="benchmark",
        dataset="plumage",
        entrants=(Entrant(model, model.partition("/")[2], "none", model),),
        conditions=tuple(Condition(d.name, d.levels or (0.0,), trials if d.random else 1) for d in chosen),
        batch_size=BATCH,
    )


def make_checkpoint(model: str) -> Checkpoint:
    """Return a network of eight classes with random weights."""
    torch.manual_seed(0)
    source, name = split_name(model)
    preprocessing = dataclasses.replace(source.describe(name), input_size=SIZE)
    return Checkpoint(model, tuple("abcdefgh"), preprocessing, source.build(name, 8, SIZE).state_dict())


def time_forwards(checkpoint: Checkpoint, batches: int) -> float:
    """Return the seconds of so many forward passes, made as the engine makes them."""
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


def time_outcomes(
    sweep: Sweep, images: pd.DataFrame, checkpoint: Checkpoint, ray: bool = False
) -> list[tuple[float, int]]:
    """Return (seconds since the plan was begun, evaluations) of each task as it ends."""
    with tempfile.TemporaryDirectory() as folder:
        parts = new_attempt(Path(folder))
        began = time.perf_counter()
        with stored_plan(sweep, plan(sweep, images, None), parts) as stored:
            run = run_ray if ray else run_local
            options = ExecutionOptions(threads=os.cpu_count())
            outcomes = run(sweep, stored, {checkpoint.model: checkpoint}, parts, options)
            ended = [(time.perf_counter() - began, outcome.evaluations) for outcome in outcomes]
    assert sum(evaluations for _, evaluations in ended) == stored.evaluations
    return ended


def time_sweep(sweep: Sweep, images: pd.DataFrame, checkpoint: Checkpoint) -> float:
    """Return the seconds from the plan to the last part, in this process."""
    return time_outcomes(sweep, images, checkpoint)[-1][0]


def count_batches(sweep: Sweep, images: int) -> int:
    """Return the forward passes of a sweep whose batches are all full."""
    return -(-images * len(sweep.cells()) // BATCH)


def in_process(model: str, names: Sequence[str], images: pd.DataFrame, rounds: int) -> dict[str, Any]:
    """Compare the forward passes alone with the sweep in this process."""
    checkpoint, sweep = make_checkpoint(model), make_sweep(model, names)
    batches = count_batches(sweep, len(images))
    eighth = max(4, batches // 8)
    alone, ratios = [], []
    time_sweep(sweep, images[:1], checkpoint)  # takes the code of loops from the cache, or compiles it
    for _ in range(rounds):
        # Half of them come before and half after, so that a machine whose speed drifts slows both alike.
        before = time_forwards(checkpoint, eighth)
        whole = time_sweep(sweep, images, checkpoint)
        alone.append((before + time_forwards(checkpoint, eighth)) / (2 * eighth) * batches)
        ratios.append(alone[-1] / whole)
    return {
        "efficiency": statistics.median(ratios),
        "forward_ms_per_image": 1e3 * statistics.median(alone) / (batches * BATCH),
        "evaluations": len(images) * len(sweep.cells()),
    }


def over_ray(images: pd.DataFrame, forward_seconds: float, seconds: float) -> dict[str, Any]:
    """Compare one sweep over Ray of about `seconds` with its forward passes, given the seconds of one image."""
    checkpoint, sweep = make_checkpoint(ALEXNET), make_sweep(ALEXNET, PAPER)
    tasks = max(3, round(seconds / (forward_seconds * len(sweep.cells()) * BATCH)))
    many = pd.concat([images] * -(-tasks * BATCH // len(images)), ignore_index=True)[: tasks * BATCH]
    many["image_id"] = [f"{image_id}-{n}" for n, image_id in enumerate(many["image_id"])]
    passes = max(8, count_batches(sweep, len(many)) // 10)
    before = time_forwards(checkpoint, passes)
    began = time.perf_counter()
    connect("local")
    start = time.perf_counter() - began
    ended = time_outcomes(sweep, many, checkpoint, ray=True)
    one = (before + time_forwards(checkpoint, passes)) / (2 * passes * BATCH)
    whole, evaluations = ended[-1][0], sum(count for _, count in ended)
    steady = one * sum(count for _, count in ended[1:]) / (whole - ended[0][0])
    workers_start = whole - one * evaluations / steady
    return {
        "efficiency": one * evaluations / whole,
        "with_start": one * evaluations / (start + whole),
        "steady": steady,
        "three_minutes": (180 - workers_start) * steady / 180,
        "seconds": whole,
        "start_seconds": start,
        "evaluations": evaluations,
    }


@contextlib.contextmanager
def timed_compiling() -> Iterator[list[float]]:
    """Give a list of the seconds that each compiling takes while the body runs."""
    compiling: list[float] = []

    def timed(*given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        found = compile_networks(*given, **named)
        compiling.append(time.perf_counter() - began)
        return found

    with mock.patch.object(evaluate, "compile_networks", timed):
        yield compiling


def time_compiled(sweep: Sweep, images: pd.DataFrame, checkpoint: Checkpoint, compiling: list[float]) -> float:
    """Return the seconds of the sweep of a compiled network without those of compiling; see `timed_compiling`."""
    seconds = time_sweep(dataclasses.replace(sweep, compile=True), images, checkpoint)
    return seconds - compiling[-1]


def against_compiled(images: pd.DataFrame, rounds: int) -> dict[str, Any]:
    """Compare the sweep of an eager network with that of the compiled one."""
    checkpoint, sweep = make_checkpoint(EFFICIENTNET), make_sweep(EFFICIENTNET, COMMON)
    with timed_compiling() as compiling:
        time_compiled(sweep, images[:1], checkpoint, compiling)  # fills the cache
        pairs = [
            (time_sweep(sweep, images, checkpoint), time_compiled(sweep, images, checkpoint, compiling))
            for _ in range(rounds)
        ]
    ratio = statistics.median(eager / compiled for eager, compiled in pairs)
    return {"ratio": ratio, "compile_s": statistics.median(compiling[1:])}


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
    """Return the seconds of the plain loop over the same cells."""
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


def against_plain(images: pd.DataFrame, rounds: int) -> dict[str, Any]:
    """Compare the plain loop with the sweep of a compiled network."""
    checkpoint, sweep = make_checkpoint(EFFICIENTNET), make_sweep(EFFICIENTNET, list(PLAIN))
    with timed_compiling() as compiling:
        time_compiled(sweep, images[:1], checkpoint, compiling)  # fills the cache
        pairs = [
            (time_plain(sweep, images, checkpoint), time_compiled(sweep, images, checkpoint, compiling))
            for _ in range(rounds)
        ]
    return {"ratio": statistics.median(plain / ours for plain, ours in pairs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--long", action="store_true", help="three times the images, and three minutes over Ray")
    given = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    every = load("plumage", None, None, {}).split("test", "train")
    images = every.iloc[:: len(every) // 96][: 96 if given.long else 32]

    figures: dict[str, Any] = {"machine": {"cores": os.cpu_count(), "device": str(best_device())}}
    # AlexNet's sweep is short, and its start weighs little only beside twice the images.
    more = every.iloc[:: len(every) // 96][: 96 if given.long else 64]
    figures["paper"] = in_process(ALEXNET, PAPER, more, rounds=3)
    figures["common"] = in_process(EFFICIENTNET, COMMON, images, rounds=3)
    figures["compiled"] = against_compiled(images, rounds=3 if given.long else 2)
    figures["plain"] = against_plain(images, rounds=3 if given.long else 2)
    figures["ray"] = over_ray(every, figures["paper"]["forward_ms_per_image"] / 1e3, 180 if given.long else 45)

    shown = {f"{section}.{key}": value for section, values in figures.items() for key, value in values.items()}
    show("The sweep against its forward passes alone and the plain loop (224²)", shown, figures, given.json)


if __name__ == "__main__":
    main()
