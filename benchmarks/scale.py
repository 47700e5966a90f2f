"""The engine's own overhead: workers of fixed cost over simulated nodes, and the driver's memory over many images.

    python benchmarks/scale.py [--json FILE] [--images 1536]

`efficiency_<n>_workers`: time of a sweep on one worker ÷ (n × time on n workers), each worker on a node of its own (a
Ray cluster of several raylets on this machine). The network sleeps for a fixed time per batch and computes next to
nothing, so that n workers need no n cores and what is missing to 1 is the engine's: planning, decoding, handing out,
writing parts. Times run from the first outcome's worker being ready to the last outcome; starting actors is a fixed
cost that no larger cluster spreads, and is given beside it (`start_s`).

`driver_rss_ratio`: the most memory that the driver holds in a sweep of 100,000 images ÷ that in one of 1,000, each in a
process of its own, with all that a driver does: planning, tickets, bringing parts into the database, publishing it, and
asking it what is missing when the same sweep is given again (`resume_s`). Images are rows that name one small file, and
the network costs next to nothing.
"""

import argparse
import dataclasses
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_worker_niceness", "0")  # as the driver's: other work on the machine slows both alike
ROOT = Path(__file__).resolve().parents[1]
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import ray  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from reporting import show  # noqa: E402
from rich.console import Console  # noqa: E402

from cnnsens_bench.config.compose import compose  # noqa: E402
from cnnsens_bench.engine.plan import plan  # noqa: E402
from cnnsens_bench.engine.sweep import Condition, Entrant, Sweep  # noqa: E402
from cnnsens_bench.experiment.resolve import resolve_settings  # noqa: E402
from cnnsens_bench.experiment.runner import run_sweep  # noqa: E402
from cnnsens_bench.models import Checkpoint, split_name  # noqa: E402
from cnnsens_bench.runtime.cluster import connect  # noqa: E402
from cnnsens_bench.runtime.plan_store import stored_plan  # noqa: E402
from cnnsens_bench.runtime.ray_pipeline import run_ray  # noqa: E402
from cnnsens_bench.runtime.resources import ExecutionOptions, Layout  # noqa: E402
from cnnsens_bench.store import Store, new_attempt, writing  # noqa: E402
from cnnsens_bench.utils.plugins import load_plugins  # noqa: E402

PLUGIN = '''
import os
import time

import torch
from torch import nn

from cnnsens_bench.models import Preprocessing, model_source


class Sleeper(nn.Module):
    """Sleeps for a fixed time per batch; its weights only say what its input is like."""

    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(3, classes)

    def forward(self, pixels):
        time.sleep(float(os.environ["SCALE_SECONDS"]))
        return self.head(pixels.mean((2, 3)))


PREPROCESSING = Preprocessing(16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


@model_source("scale", names=lambda: ["sleeper"], describe=lambda name: PREPROCESSING)
def build(name, num_classes, input_size):
    return Sleeper(num_classes)
'''
MODEL = "scale/sleeper"
BATCH = 32


def sweep_of(cells: int, plugins: tuple[str, ...]) -> Sweep:
    """One network, the undegraded images and `cells` − 1 flips of level-free noise."""
    conditions = (Condition("pepper", tuple(0.01 * (i + 1) for i in range(cells - 1)), 1),)
    return Sweep("scale", "scale", (Entrant(MODEL, "sleeper", "none", MODEL),), conditions, 0, batch_size=BATCH,
                 plugins=plugins)  # fmt: skip


def images_of(count: int, folder: Path) -> pd.DataFrame:
    """A sample table of `count` rows that all name one small file."""
    file = folder / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3)).astype(np.uint8)).save(file)
    return pd.DataFrame(
        {
            "split": "test",
            "image_id": [f"{n:06d}.png" for n in range(count)],
            "uri": str(file),
            "label": np.arange(count) % 10,
            "class_name": [f"class {n % 10}" for n in range(count)],
            "box_x": 0.0, "box_y": 0.0, "box_w": 24.0, "box_h": 24.0,
        }
    )  # fmt: skip


def checkpoint() -> Checkpoint:
    """The sleeper's."""
    source, name = split_name(MODEL)
    torch.manual_seed(0)
    classes = tuple(f"class {i}" for i in range(10))
    return Checkpoint(MODEL, classes, source.describe(name), source.build(name, 10, 16).state_dict())


def one_worker_a_node(workers: int) -> Layout:
    """Each node has two CPUs: one for its worker, one that decodes."""
    return Layout(workers, threads=1, gpus=0.0, reserved_cpus=1)


def time_sweep(workers: int, count: int, cells: int, folder: Path) -> tuple[float, float]:
    """Seconds of a sweep over so many nodes, and those before its workers were ready."""
    cluster = Cluster()
    for _ in range(workers):
        cluster.add_node(num_cpus=2, object_store_memory=2 * 10**8)
    ray.init(address=cluster.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        images = images_of(count, folder)
        sweep = sweep_of(cells, ("scale_sleeper",))
        parts = new_attempt(folder / f"out{workers}")
        began = time.perf_counter()
        with stored_plan(sweep, plan(sweep, images, None), parts) as stored:
            options = ExecutionOptions(layout=lambda *_: one_worker_a_node(workers))
            run = run_ray(sweep, stored, {MODEL: checkpoint()}, parts, options)
            ready, done, at_ready = began, 0, 0
            for number, outcome in enumerate(run, 1):
                done += outcome.evaluations
                if number == workers:  # all have one task behind them
                    ready, at_ready = time.perf_counter(), done
            ended = time.perf_counter()
        assert done == count * cells, f"{done} of {count * cells} evaluations"
        # Seconds for all, at the pace after each worker's first piece.
        return (ended - ready) * done / (done - at_ready), ready - began
    finally:
        ray.shutdown()
        cluster.shutdown()


class Peak(threading.Thread):
    """The most resident bytes of this process, without the object store's pages, which are everybody's."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self.over = 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
            own = {words[0]: int(words[1]) for words in lines if words and words[0] in ("RssAnon:", "RssFile:")}
            self.bytes = max(self.bytes, 1024 * sum(own.values()))


def driver_memory(count: int) -> dict[str, float]:
    """Of a process that drives a sweep of `count` images, and once more when nothing is missing; to be called in a
    fresh process."""
    words = ["cluster.engine=ray", "cluster.workers=1", "cluster.threads=1", "tracking=off"]
    settings = resolve_settings(compose(words))
    connect("local")
    console = Console(file=io.StringIO())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = images_of(count, folder)
        sweep = dataclasses.replace(sweep_of(8, ("scale_sleeper",)), batch_size=64)
        peak, times = Peak(), []
        peak.start()
        with writing(folder / "out") as store:
            store.begin_run(sweep.run_id, "scale", "scale", {}, {})
            for _ in range(2):
                began = time.perf_counter()
                parts = new_attempt(folder / "out")
                failed = run_sweep(settings, sweep, images, {MODEL: checkpoint()}, parts, store, "scale", console)
                store.ingest()
                times.append(time.perf_counter() - began)
                assert not failed
            store.finish_run(sweep.run_id, "done")
        peak.over.set()
        found = Store(folder / "out").query("SELECT count(*) AS n FROM predictions")["n"][0]
        assert found == count * 8, found
        assert f"{count * 8} of {count * 8} evaluations are in the store" in console.file.getvalue()  # type: ignore[attr-defined]
    ray.shutdown()
    return {"bytes": float(peak.bytes), "sweep_s": times[0], "resume_s": times[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--images", type=int, default=1536, help="of the timed sweeps")
    parser.add_argument("--seconds", type=float, default=0.25, help="that a batch takes")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--many", type=int, nargs="+", default=[100, 1_000, 100_000], help="images of a driver")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ["SCALE_SECONDS"] = str(given.seconds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "scale_sleeper.py").write_text(PLUGIN)
        os.environ["PYTHONPATH"] = os.pathsep.join([name, os.environ["PYTHONPATH"]])
        sys.path.insert(0, name)
        load_plugins(["scale_sleeper"])
        if given.memory_of:
            print(json.dumps(driver_memory(given.memory_of)))
            return
        times = {}
        for n in given.workers:
            times[n] = time_sweep(n, given.images, 8, folder)
            print(f"{n} workers: {times[n][0]:.1f} s, after {times[n][1]:.1f} s of starting", flush=True)
    base = given.workers[0]
    figures: dict[str, Any] = {"machine": {"cores": os.cpu_count()}, "seconds_per_batch": given.seconds}
    for n, (seconds, start) in times.items():
        figures[f"{n}_workers"] = {"seconds": seconds, "start_s": start}
        figures[f"efficiency_{n}_workers"] = base * times[base][0] / (n * seconds)
    memory = {}
    for count in given.many:
        words = [sys.executable, str(Path(__file__).resolve()), "--seconds", "0", "--memory-of", str(count)]
        said = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        memory[count] = said.pop("bytes")
        figures[f"driver_{count}_images"] = {"mb": memory[count] / 1e6, **said}
        print(f"{count} images: {memory[count] / 1e6:.0f} MB in the driver, {said}", flush=True)
    if len(memory) > 1:
        figures["driver_rss_ratio"] = memory[given.many[-1]] / memory[given.many[-2]]
    shown = {
        key: ", ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items())
        if isinstance(value, dict)
        else value
        for key, value in figures.items()
    }
    show("Overhead of the engine: workers of fixed cost, and the driver's memory", shown, figures, given.json)


if __name__ == "__main__":
    main()
