"""Every degradation against one pass over the memory plus its draw, and against what a user would pick instead.

    python benchmarks/degradations.py [--json FILE] [--rounds N] [--only NAME ...] [--threads N]

A batch of 32 images of `plumage` at 224², degraded by the engine's own code as a sweep does it: drawn for the whole
batch, then applied to it. Milliseconds per image, at a degradation's middle level.

`<degradation>.vs_bound`: ours (draw and apply) ÷ the bound. The bound reads the float32 pixels once and writes a
float32 result once (`torch.add(pixels, 1, out=…)` over the same batch), and makes the same draw, timed alone: nothing
that gives a degraded copy of a batch can do less. It leaves out all arithmetic, and for moved, turned and bent boxes
the resampling, so that those cannot come near it.
`<degradation>.vs_skimage`, `.vs_kornia`, `.vs_albumentations`, `.vs_imagecorruptions`: theirs ÷ ours, where they have
such a thing and are installed (see `rivals.py`), their random numbers included. `.vs_fastest` is the smallest of them.
`.vs_skimage_hsv`, `.vs_kornia_hsv`: their round trip to HSV and back, without any noise, ÷ ours, for the paper's colour
and impulse noise.
`<degradation>.fast`: whether ours is as fast as the fastest of them, or takes at most 1.5 times its bound.
`<degradation>.seven`: one draw and seven levels ÷ one draw and one level. `sweep_of_seven.ratio`: the same for the
paper's random pixel degradations together, the sum of their seconds at seven levels ÷ the sum at one.
`common.ms_per_image`: the mean over the common corruptions with a draw for each level, and `.ms_per_image_of_sweep`:
with one draw for five levels, as in a sweep.

What is compared alternates, there and back; in a round the fastest of several calls counts, and figures are medians
over rounds of the ratios within a round. Where other work takes a core, torch's threads wait for each other by whole
time slices (a pass then takes ten times as long, and the ratios say nothing): take `--threads 1` there.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cnnsens_bench.utils.memory import keep_freed_memory

keep_freed_memory()  # before torch allocates

import numpy as np  # noqa: E402
import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from rivals import ALBUMENTATIONS, IMAGECORRUPTIONS, KORNIA, SKIMAGE, kornia_hsv, skimage_hsv  # noqa: E402

from cnnsens_bench import images  # noqa: E402
from cnnsens_bench.datasets import load  # noqa: E402
from cnnsens_bench.degradations import Degradation, Streams, degradations, parse_degradations  # noqa: E402
from cnnsens_bench.engine.degrade import Degrader  # noqa: E402
from cnnsens_bench.engine.sweep import Condition, Sweep  # noqa: E402
from cnnsens_bench.models.classifier import best_device  # noqa: E402
from cnnsens_bench.utils.errors import UserError  # noqa: E402

BATCH, SIZE = 32, 224
FEW = 4
"""Images that skimage and imagecorruptions, the slowest, are timed on."""
LONG_ENOUGH = 0.05
"""Seconds that go into a timing, which is the fastest call's: what else the machine does only adds to it."""
NEAR = 1.5
"""How many times its bound a degradation may take that is slower than another library's."""
COMMON, SEVERITIES = "common:", 5
SEVEN = 7
PIXEL_NOISE = (
    *("gaussian_rgb", "gaussian_intensity", "saturation", "hue_global", "hue_local"),
    *("pepper", "pepper_pixel"),
)
"""The paper's random pixel degradations, all of which have seven levels."""

Work = Callable[[], Any]
Rounds = dict[str, list[float]]
"""What is timed → milliseconds per image, round by round."""


class Profiler:
    """One batch, in the forms that ours and the others take."""

    def __init__(self) -> None:
        self.device = best_device()
        rows = load("plumage", None, None, {}).split("test").head(BATCH)
        boxes = rows[["box_x", "box_y", "box_w", "box_h"]].itertuples(index=False, name=None)
        decoded = [images.decode(uri, box) for uri, box in zip(rows["uri"], boxes, strict=True)]
        self.ids = rows["image_id"].tolist()
        pool = ThreadPoolExecutor(min(4, max(2, torch.get_num_threads())))  # as the engine's
        self.degrader = Degrader(Sweep("bench", "plumage", (), ()), SIZE, self.ids, decoded, self.device, pool)
        self.pixels = self.degrader.pixels
        self.out = torch.empty_like(self.pixels)
        self.unit = (self.pixels / 255).contiguous()
        eight_bit = self.pixels.permute(0, 2, 3, 1).byte().cpu().numpy()
        self.eight_bit = [np.ascontiguousarray(image) for image in eight_bit]
        self.floats = [image.astype(np.float32) / 255 for image in self.eight_bit]

    def ours(self, degradation: Degradation, levels: Sequence[float]) -> Work:
        """One draw and `levels`, as the engine does it."""
        condition = Condition(degradation.name, tuple(levels), 1)
        everyone = [np.arange(BATCH)] * len(levels)

        def work() -> None:
            for _ in self.degrader.run(condition, everyone):
                pass
            if self.degrader.failures:
                raise UserError(self.degrader.failures[0][2])

        return work

    def draw(self, degradation: Degradation) -> Work:
        """Its random numbers alone."""
        return lambda: degradation.draw(Streams(0, "plumage", self.ids, 0, self.device), SIZE)

    def once_over(self) -> None:
        """Read all pixels, write all pixels."""
        torch.add(self.pixels, 1, out=self.out)

    def rivals(self, name: str, level: float) -> dict[str, tuple[Work, int]]:
        """The libraries that have it → what to time, and on how many images."""
        found: dict[str, tuple[Work, int]] = {}
        if name in SKIMAGE:
            one = SKIMAGE[name](level)
            found["skimage"] = lambda: [one(image) for image in self.floats[:FEW]], FEW
        if name in KORNIA:
            batch = KORNIA[name](level)
            found["kornia"] = lambda: batch(self.unit), BATCH
        if name in ALBUMENTATIONS:
            transform = ALBUMENTATIONS[name](level)
            found["albumentations"] = lambda: [transform(image=image) for image in self.floats], BATCH
        if name in IMAGECORRUPTIONS:
            corruption = IMAGECORRUPTIONS[name](level)
            found["imagecorruptions"] = lambda: [corruption(image) for image in self.eight_bit[:FEW]], FEW
        if name in PIXEL_NOISE:
            there_and_back, all_together = skimage_hsv(), kornia_hsv()
            found["skimage_hsv"] = lambda: [there_and_back(image) for image in self.floats[:FEW]], FEW
            found["kornia_hsv"] = lambda: all_together(self.unit), BATCH
        return found

    def alternate(self, works: dict[str, tuple[Work, int]], rounds: int) -> Rounds:
        """Each work `rounds` times, in turn, after a first call that compiles and warms up."""
        repeats = {}
        for name, (work, _) in works.items():
            work()
            repeats[name] = min(100, max(1, round(LONG_ENOUGH / max(1e-6, self._fastest(work, 1)))))
        found: Rounds = {name: [] for name in works}
        for index in range(rounds):
            for name in list(works)[:: -1 if index % 2 else 1]:
                work, count = works[name]
                found[name].append(1e3 * self._fastest(work, repeats[name]) / count)
        return found

    def _fastest(self, work: Work, calls: int) -> float:
        """Seconds of the fastest of some calls."""
        seconds = []
        for _ in range(calls):
            began = time.perf_counter()
            work()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        return min(seconds)


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median of the ratios round by round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def measure(bench: Profiler, degradation: Degradation, rounds: int) -> tuple[dict[str, Any], Rounds]:
    """The figures of one degradation, and its timings."""
    levels = degradation.resolve_levels()
    level = levels[len(levels) // 2]
    works: dict[str, tuple[Work, int]] = {
        "ours": (bench.ours(degradation, [level]), BATCH),
        "pass": (bench.once_over, BATCH),
        "draw": (bench.draw(degradation), BATCH),
    }
    if degradation.random and len(levels) >= SEVEN:
        works["seven"] = bench.ours(degradation, levels[:SEVEN]), BATCH
    rivals = bench.rivals(degradation.name, level)
    times = bench.alternate(works | rivals, rounds)
    bound = [a + b for a, b in zip(times["pass"], times["draw"], strict=True)]
    figures: dict[str, Any] = {
        "level": level,
        "random": degradation.random,
        "ms_per_image": statistics.median(times["ours"]),
        "bound_ms_per_image": statistics.median(bound),
        "draw_ms_per_image": statistics.median(times["draw"]),
        "vs_bound": ratio(times["ours"], bound),
        **{f"vs_{name}": ratio(times[name], times["ours"]) for name in rivals},
    }
    if same := [figures[f"vs_{name}"] for name in rivals if not name.endswith("hsv")]:
        figures["vs_fastest"] = min(same)
    figures["fast"] = figures["vs_bound"] <= NEAR or figures.get("vs_fastest", 0) >= 1
    if "seven" in times:
        figures["seven"] = ratio(times["seven"], times["ours"])
    return figures, times


def sweep_of_seven(timings: dict[str, Rounds]) -> dict[str, Any]:
    """The headline over those of `PIXEL_NOISE` that were timed: empty where there are none."""
    kept = [times for name, times in timings.items() if name in PIXEL_NOISE and "seven" in times]
    if not kept:
        return {}
    together = {key: [sum(parts) for parts in zip(*(times[key] for times in kept), strict=True)]
                for key in ("seven", "ours")}  # fmt: skip
    return {"ratio": ratio(together["seven"], together["ours"]), "degradations": len(kept)}


def mean_of_common(figures: dict[str, Any]) -> dict[str, Any]:
    """The means over the common corruptions that were timed: empty where there are none."""
    kept = [values for name, values in figures.items() if name.startswith(COMMON)]
    if not kept:
        return {}
    alone = [values["ms_per_image"] for values in kept]
    saved = [values["draw_ms_per_image"] * (1 - 1 / SEVERITIES) if values["random"] else 0.0 for values in kept]
    return {
        "ms_per_image": statistics.mean(alone),
        "ms_per_image_of_sweep": statistics.mean(whole - less for whole, less in zip(alone, saved, strict=True)),
        "degradations": len(kept),
    }


def table_of(figures: dict[str, Any]) -> Table:
    """The figures as a person reads them."""
    columns = {
        "ms_per_image": "ms per\nimage",
        "draw_ms_per_image": "draw\nin ms",
        "bound_ms_per_image": "bound\nin ms",
        "vs_bound": "ours ÷\nbound",
        "vs_skimage": "skimage\n÷ ours",
        "vs_kornia": "kornia\n÷ ours",
        "vs_albumentations": "albument.\n÷ ours",
        "vs_imagecorruptions": "imagec.\n÷ ours",
        "fast": "fast\nenough",
        "seven": "7 levels\n÷ 1",
    }
    table = Table("degradation", title=f"Degradations at {SIZE}², batches of {BATCH}, one draw and one level")
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for name, values in figures.items():
        if "vs_bound" in values:
            cells = [_cell(values.get(key)) for key in columns]
            table.add_row(name, *cells)
    blanks = [""] * (len(columns) - 1)
    if "common" in figures:
        means = figures["common"]
        table.add_section()
        table.add_row(f"mean of {means['degradations']} common", f"{means['ms_per_image']:.3g}", *blanks)
        table.add_row("the same, one draw for 5 levels", f"{means['ms_per_image_of_sweep']:.3g}", *blanks)
    if figures.get("sweep_of_seven"):
        table.add_section()
        table.add_row("the paper's pixel noise together", *blanks, f"{figures['sweep_of_seven']['ratio']:.3g}")
    return table


def _cell(value: float | bool | None) -> str:
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    return f"{value:.3g}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names, patterns ('common:*') or chains")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch (default: all cores)")
    given = parser.parse_args()
    torch.set_num_threads(max(1, given.threads))
    bench = Profiler()
    figures: dict[str, Any] = {
        "machine": {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": str(bench.device),
            "rounds": given.rounds,
        }
    }
    timings: dict[str, Rounds] = {}
    try:
        chosen = {d.name: d for text in given.only or degradations for d in parse_degradations(text)}
        with torch.inference_mode():
            for name, degradation in chosen.items():
                figures[name], timings[name] = measure(bench, degradation, max(1, given.rounds))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if together := sweep_of_seven(timings):
        figures["sweep_of_seven"] = together
    if means := mean_of_common(figures):
        figures["common"] = means
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table_of(figures))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
