"""Check a GPU, and compare the sweep on it with its limit, the forward passes alone.

    python benchmarks/gpu.py [--json FILE] [--device cuda|cpu] [--minutes 7]

It needs torch, torchvision, timm, pandas, numpy and Pillow, no other package, and this repository. Nothing is
downloaded: weights are random and images are made, because speed does not depend on them.

`equal_bits`: whether the device draws the numbers of the CPU, and degrades to the pixels of the golden file of the
tests. `differing` lists the degradations of which this is not true, with the largest difference in gray levels.
`synchronisations`: how often the host waited for the device while a batch of images went through all degradations, not
counting the results, which are fetched late; `synchronised_at` lists the lines of code.
`<network>.efficiency`: seconds of the forward passes alone ÷ seconds of a sweep over the degradations of the paper and
the 15 common corruptions at their levels. The forward passes are the limit, because nothing can predict without them:
batches of the same shape, their pixels on the device. `<network>.images_per_s`: evaluations of that sweep in a second.
These are float32; `<network>.compiled` and `<network>.bfloat16` have the same figures, of compiled networks and of
lower precision.

With `--device cpu` all of it runs at a small size, by the tensor operations of a GPU.
"""

import argparse
import dataclasses
import hashlib
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]


if __name__ == "__main__" and "cpu" in sys.argv:  # without these two libraries the CPU does what a GPU does
    sys.modules["numba"] = sys.modules["cv2"] = None  # type: ignore[assignment]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from conditions import COMMON, PAPER  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from cnnsens_bench import images  # noqa: E402
from cnnsens_bench.defenses import parse_defense  # noqa: E402
from cnnsens_bench.degradations import Streams, degradations  # noqa: E402
from cnnsens_bench.engine.evaluate import Evaluator  # noqa: E402
from cnnsens_bench.engine.networks import LoadedEntrant  # noqa: E402
from cnnsens_bench.engine.sweep import Condition, Entrant, Sweep  # noqa: E402
from cnnsens_bench.engine.timing import device_name  # noqa: E402
from cnnsens_bench.models import Classifier, split_name  # noqa: E402
from cnnsens_bench.utils.cpu_libraries import INSTALLED  # noqa: E402
from cnnsens_bench.utils.errors import UserError  # noqa: E402

NETWORKS = (
    "torchvision/alexnet",
    "torchvision/vgg19",
    "torchvision/googlenet",
    "torchvision/resnet50",
    "timm/tf_efficientnet_lite0",
)
MODES: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "compiled": {"compile": True},  # it comes last, because compiling takes most of the time
}
TURNED = ("rotation", "radial_distortion")
"""The degradations whose views need numba and OpenCV."""

GOLDEN = ROOT / "tests" / "degradations" / "golden.json"
GOLDEN_IDS, GOLDEN_SIZE = [f"image_{i}" for i in range(4)], 24


def golden_pixels(count: int = 4, size: int = GOLDEN_SIZE) -> Tensor:
    """Return the images of the golden file: (N, 3, size, size) float32, with lines of black, white, gray and red."""
    values = (torch.arange(count * 3 * size * size) * 7919 % 25501).float().div(100).view(count, 3, size, size)
    values[:, :, 0], values[:, :, 1], values[:, :, 2], values[:, 1:, 3] = 0, 255, 90, 0
    return values.contiguous(memory_format=torch.channels_last)


def degraded(name: str, level: float, device: torch.device) -> tuple[Tensor, list[Tensor]]:
    """Return the golden images under a degradation, and the draw, on the CPU."""
    chosen = degradations[name]
    draw = chosen.draw(Streams(0, "data", GOLDEN_IDS, 0, device), GOLDEN_SIZE)
    parts = [part.cpu() for part in (draw if isinstance(draw, tuple) else (draw,)) if isinstance(part, Tensor)]
    if chosen.geometric:
        pixels = golden_pixels(1, 90)[0].permute(1, 2, 0).byte().numpy()
        picture = images.Decoded(pixels, 0, 0, 90, 90, (20.0, 15.5, 48.0, 60.0))
        views = chosen.motion(draw, level).views(len(GOLDEN_IDS))
        return torch.from_numpy(np.stack([images.render(picture, GOLDEN_SIZE, *view) for view in views])), parts
    result = chosen.apply(golden_pixels().to(device), draw, level)
    return result.cpu().clamp(0, 255).contiguous(memory_format=torch.contiguous_format), parts


def compare_bits(device: torch.device) -> dict[str, Any]:
    """Compare draws with the CPU's and pixels with the golden file, at the first and the last level of each."""
    golden, differing = json.loads(GOLDEN.read_text()), {}
    left_out = [] if INSTALLED else [name for name in degradations if name in TURNED]
    if left_out:
        print(f"left out, because this machine lacks numba or OpenCV: {', '.join(left_out)}")
    for name, chosen in degradations.items():
        for level in sorted({(chosen.levels or (0.0,))[0], (chosen.levels or (0.0,))[-1]}):
            if name in left_out:
                continue
            here, numbers = degraded(name, level, torch.device("cpu"))
            there, drawn = degraded(name, level, device)
            same_draws = all(torch.equal(a, b) for a, b in zip(numbers, drawn, strict=True))
            digest = hashlib.sha256(there.numpy().tobytes()).hexdigest()[:16]
            if not same_draws or digest != golden[f"{name} {level:g}"]:
                differing[f"{name} {level:g}"] = float((here.float() - there.float()).abs().max())
    return {"equal_bits": not differing, "differing": differing}


class HostReads(TorchDispatchMode):
    """Counts on a CPU what would make the host wait for a GPU, by the name of the operation.

    Copies do not reach it, because on a CPU there are none: `counted_waits` counts the methods that begin them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        name = operation.overloadpacket.__name__
        indices = arguments[1] if name in ("index", "index_put", "index_put_") else ()
        masked = any(isinstance(index, Tensor) and index.dtype == torch.bool for index in indices)
        if masked or name in ("_local_scalar_dense", "nonzero", "masked_select", "equal"):
            self.counts[name] += 1
        return operation(*arguments, **(keywords or {}))


COPIES = ("cpu", "numpy", "tolist", "item")
"""The methods of a tensor that bring it to the host."""


@contextmanager
def counted_waits(device: torch.device) -> Iterator[Counter[str]]:
    """Count by line of code (on a CPU: by operation) how often the host waits for the device."""
    counts: Counter[str] = Counter()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                yield counts
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits = [each for each in caught if "called a synchronizing" in str(each.message)]
        counts.update(f"{Path(each.filename).name}:{each.lineno}" for each in waits)
        return
    methods = {name: getattr(Tensor, name) for name in COPIES}

    def counting(name: str) -> Any:
        def method(tensor: Tensor, *arguments: Any, **keywords: Any) -> Any:
            caller = Path(sys._getframe(1).f_code.co_filename).name
            # What a late fetch returns is on the host already, and the numbers of views were drawn there.
            if caller not in ("transfer.py", "motion.py", "sensor.py", "streams.py", "digital.py"):
                counts[f"{name} in {caller}"] += 1
            return methods[name](tensor, *arguments, **keywords)

        return method

    try:
        for name in methods:
            setattr(Tensor, name, counting(name))
        with HostReads() as reads:
            yield counts
    finally:
        for name, method in methods.items():
            setattr(Tensor, name, method)
    counts.update(reads.counts)


def make_sweep(model: str, names: Sequence[str], batch: int, levels: int | None = None, **options: Any) -> Sweep:
    """Return a sweep of one network under degradations at their levels, or the first few of them."""
    chosen = [degradations[name] for name in names]
    return Sweep(
        run_id="benchmark",
        dataset="made",
        entrants=(Entrant(model, model.partition("/")[2], "none", model),),
        conditions=tuple(Condition(each.name, (each.levels or (0.0,))[:levels], 1) for each in chosen),
        batch_size=batch,
        **options,
    )


def make_images(count: int, side: int) -> list[images.Decoded]:
    """Return pictures of waves of several colours with some noise."""
    rng = np.random.default_rng(0)
    across = np.arange(side) / side
    found = []
    for _ in range(count):
        waves = np.sin(across[:, None, None] * rng.uniform(5, 40, 3) + across[None, :, None] * rng.uniform(5, 40, 3))
        pixels = (127 + 90 * waves + rng.normal(0, 12, (side, side, 3))).clip(0, 255).astype(np.uint8)
        found.append(images.Decoded(pixels, 0, 0, side, side, (0.0, 0.0, float(side), float(side))))
    return found


def make_classifier(model: str, size: int) -> Classifier:
    """Return a network of 1,000 classes with random weights."""
    torch.manual_seed(0)
    source, name = split_name(model)
    preprocessing = dataclasses.replace(source.describe(name), input_size=size, view=None)
    return Classifier(source.build(name, 1000, size), preprocessing)


def wait_for(device: torch.device) -> None:
    """Wait until the device has done all of its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def run_sweep(evaluator: Evaluator, pictures: list[images.Decoded]) -> float:
    """Return the seconds of a sweep over the pictures, whose results are all finite."""
    ids = [f"image_{i}" for i in range(len(pictures))]
    wanted = np.ones((len(pictures), 1, len(evaluator.cells)), bool)
    began, rows = time.perf_counter(), 0
    for prediction in evaluator.evaluate(ids, [0] * len(pictures), pictures, wanted):
        if prediction.failures:
            raise UserError(prediction.failures[0][2])
        rows += len(prediction.columns["image"])
    seconds = time.perf_counter() - began
    assert rows == wanted.size
    return seconds


def time_passes(evaluator: Evaluator, size: int, batches: int) -> float:
    """Return the seconds of so many forward passes, made as the engine makes them."""
    device, batch = evaluator.device, evaluator.sweep.batch_size
    network = evaluator.compiled.get(0, evaluator.entrants[0].classifier)
    pixels = (torch.rand(batch, 3, size, size, device=device) * 255).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), evaluator.autocast():
        for _ in range(2):
            network(pixels)
        wait_for(device)
        began = time.perf_counter()
        for _ in range(batches):
            network(pixels)
        wait_for(device)
        return (time.perf_counter() - began) / batches


def compare_speed(
    sweep: Sweep, classifier: Classifier, pictures: list[images.Decoded], device: torch.device
) -> dict[str, float]:
    """Compare the forward passes alone with the sweep; half of them come before it and half after it."""
    evaluator = Evaluator(sweep, [LoadedEntrant(classifier, parse_defense("none"))], device)
    size = classifier.preprocessing.input_size
    try:
        evaluations = len(pictures) * len(evaluator.cells)
        passes = -(-evaluations // sweep.batch_size)
        before = time_passes(evaluator, size, max(4, passes // 16))
        seconds = run_sweep(evaluator, pictures)
        alone = (before + time_passes(evaluator, size, max(4, passes // 16))) / 2 * passes
    finally:
        evaluator.close()
    return {"efficiency": alone / seconds, "images_per_s": evaluations / seconds}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=7, help="after so many no further comparison begins")
    parser.add_argument("--networks", nargs="+", help="compare these alone, such as resnet50")
    return parser.parse_args()


def main() -> None:
    given = parse_arguments()
    began, device = time.perf_counter(), torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no GPU here: add --device cpu")
    small = device.type == "cpu"
    size, batch, count, levels = (64, 4, 8, 1) if small else (224, 256, 256, None)
    figures: dict[str, Any] = {"machine": {"device": device_name(device), "torch": torch.__version__}}
    with torch.inference_mode():
        figures |= compare_bits(device)
    print(f"equal bits: {figures['equal_bits']}  {figures['differing'] or ''}")

    names = [name for name in (*PAPER, *COMMON) if INSTALLED or name not in TURNED]
    pictures = make_images(count, size * 5 // 4)
    wanted = [model for model in NETWORKS if not given.networks or model.partition("/")[2] in given.networks]
    if not wanted:
        sys.exit(
            f"none of the networks is {' or '.join(given.networks)}: take {', '.join(NETWORKS)} without the prefix"
        )
    sweep = make_sweep(wanted[0], names, batch, levels)
    evaluator = Evaluator(sweep, [LoadedEntrant(make_classifier(wanted[0], size), parse_defense("none"))], device)
    run_sweep(evaluator, pictures[:batch])  # what is made once is made here
    with counted_waits(device) as waits:
        run_sweep(evaluator, pictures[:batch])
    evaluator.close()
    figures |= {"synchronisations": waits.total(), "synchronised_at": dict(waits)}
    print(f"synchronisations: {waits.total()}  {dict(waits) or ''}")

    skipped = []
    print(f"\n{'network':24}{'mode':12}{'efficiency':>12}{'images/s':>12}")
    for mode, options in MODES.items():
        for model in wanted:
            name = model.partition("/")[2]
            if time.perf_counter() - began > 60 * given.minutes:
                skipped.append(f"{name} {mode}")
                continue
            try:
                sweep = make_sweep(model, names, batch, levels, **options)
                found = compare_speed(sweep, make_classifier(model, size), pictures, device)
            except UserError as error:
                print(f"{name:24}{mode:12}left out: {error}")
                continue
            print(f"{name:24}{mode:12}{found['efficiency']:12.3f}{found['images_per_s']:12.0f}", flush=True)
            of_network = figures.setdefault(name, {})
            of_network.update(found if mode == "float32" else {mode: found})
    if skipped:
        print(f"left out, because {given.minutes:g} minutes were over (--minutes): {', '.join(skipped)}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
