"""Runs that are killed, then given again until they end: the tables must equal the undisturbed ones.

    python benchmarks/chaos.py [--runs 20] [--seed 0] [--kinds driver node …] [--json FILE]

Each run is the command itself, as a driver of a Ray cluster of three nodes (several raylets on this machine), with tiny
networks and a few images whose decoding and computing are slowed a little (`faults.py`, a plugin). Each bears one
strike, at a moment that is drawn from what it has written by then, so that every strike hits. Kinds:

- `driver`: SIGKILL; `SIGINT`: as by Ctrl-C; `SIGTERM`: as by `ray job stop`. The same command is given again.
- `worker`: SIGKILL for an actor that computes; `decoder`: for a task that decodes; `trainer`: for one that fine-tunes;
  `node`: for a whole node (all its processes), which comes back some seconds later; `lost`: for one that does not come
  back, with no room for its worker on the others. The run must end without being given again.
- `older`: SIGKILL for the driver, in an output that an earlier run with fewer degradations has left.
- `ingest`, `publish`: SIGKILL for the driver while parts are brought into the working copy of the database, or while
  that is put in the place of the published one and its parts are removed.

Verdict of a run: `predictions`, `images` and `models` without run and time equal the undisturbed ones, row for row;
`failures` is empty; the exit codes are as they should be; the command was given as often as the kind allows. Only
processes of this script's own cluster are killed, by their ids.
"""

import argparse
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("RAY_health_check_period_ms", "1000")  # a node that died is missed sooner
ROOT = Path(__file__).resolve().parents[1]
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import ray  # noqa: E402
from PIL import Image  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from cnnsens_bench.store import Store  # noqa: E402

TABLES = {
    "predictions": "SELECT * EXCLUDE (run_id) FROM predictions ORDER BY ALL",
    "images": "SELECT * FROM images ORDER BY ALL",
    "models": "SELECT * EXCLUDE (trained_by) FROM models ORDER BY ALL",
    "failures": "SELECT image_id, stage, error FROM failures ORDER BY ALL",
}
KINDS = {
    "driver": -signal.SIGKILL,
    "worker": 0,
    "decoder": 0,
    "trainer": 0,
    "node": 0,
    "lost": 0,
    "SIGINT": 130,
    "SIGTERM": 130,
    "ingest": -signal.SIGKILL,
    "publish": -signal.SIGKILL,
    "older": -signal.SIGKILL,
}
"""What dies, and the exit code of the command that bears it."""
NODES = 3
SLOW, PATIENCE, EVERY = "0.1", "6", "1"
"""Seconds: see `faults.py`; `runtime.cluster.PATIENCE`; `store.publish.EVERY`."""
FEWER = "degradations=[{name: gaussian_rgb, levels: [4]},flip_lr]"
"""Of an earlier run."""
TITLES = {"worker": "MapWorker", "decoder": "Read_TaskSource", "trainer": "_train"}
"""What Ray calls the processes."""


def make_images(root: Path, count: int = 24) -> None:
    """Two classes of noisy pictures."""
    rng = np.random.default_rng(0)
    for label, mean in enumerate((90, 160)):
        (root / f"class_{label}").mkdir(parents=True)
        for index in range(count // 2):
            pixels = np.clip(rng.normal(mean, 50, (48, 56, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"class_{label}" / f"{index:02d}.png")


def command(folder: Path, output: Path, *more: str) -> list[str]:
    """The command of every run: two networks with two defenses."""
    return [
        sys.executable, "-m", "cnnsens_bench.run", "dataset=folder", f"dataset.root={folder / 'images'}",
        f"cache={folder / 'cache'}", f"output={output}", "input_size=32", "trials=2", "training.epochs=1",
        "training.batch_size=4",
        "models=[{name: timm/test_resnet, weights: random},{name: timm/test_efficientnet, weights: random}]",
        "defenses=[none,gaussian_filter]", "batch_size=4", "tracking=off", "cluster.threads=1",
        "plugins=[benchmarks.faults]",
        "degradations=[{name: gaussian_rgb, levels: [4, 32]},{name: pepper, levels: [0.04, 0.3]},flip_lr]", *more,
    ]  # fmt: skip


@dataclass
class Calm:
    """The undisturbed run over the cluster: seconds, parts of predictions, and the driver's calls (stage, seconds)."""

    seconds: float
    parts: int
    calls: dict[str, list[float]]


class Nodes:
    """The cluster of this script: a head, where the driver is, and nodes that can be killed."""

    def __init__(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 10**8})
        self.workers: list[Any] = []
        self.mend()

    def over(self) -> list[str]:
        """The words of a command that runs on it."""
        return ["cluster.engine=ray", f"cluster.address={self.cluster.address}", f"cluster.workers={NODES - 1}"]

    def mend(self) -> None:
        """As many nodes as there were."""
        while len(self.workers) < NODES - 1:
            self.workers.append(self.cluster.add_node(num_cpus=1, object_store_memory=10**8))
        self.cluster.wait_for_nodes()

    def kill_node(self, rng: random.Random) -> str:
        """One that has a worker, if there is such a one."""
        busy = [node for node in self.workers if self.processes("MapWorker", [node])]
        node = rng.choice(busy or self.workers)
        self.workers.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)
        return "a node with a worker" if busy else "a node"

    def processes(self, word: str, nodes: Sequence[Any] | None = None) -> list[int]:
        """Ids of Ray's workers whose title has the word, of this cluster (or some nodes of it) alone: children of its
        raylets."""
        raylets = {
            raylet.process.pid
            for node in (self.cluster.list_all_nodes() if nodes is None else nodes)
            for raylet in node.all_processes.get("raylet", [])
        }
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
                title = (place / "cmdline").read_text()
            except OSError:
                continue  # it has ended
            if parent in raylets and word in title:
                found.append(int(place.name))
        return found


def strike(kind: str, driver: subprocess.Popen, nodes: Nodes, rng: random.Random) -> str:
    """Kill; gives what was killed, or nothing where there is no such process now."""
    if kind in ("node", "lost"):
        return nodes.kill_node(rng)
    if kind in TITLES:
        processes = nodes.processes(TITLES[kind])
        if not processes:
            return ""
        try:
            os.kill(rng.choice(processes), signal.SIGKILL)
        except ProcessLookupError:
            return ""
        return f"a {kind}"
    driver.send_signal(signal.SIGKILL if KINDS[kind] < 0 else getattr(signal, kind))
    return f"the driver by {'SIGKILL' if KINDS[kind] < 0 else kind}"


def one_run(seed: int, kind: str, folder: Path, nodes: Nodes, calm: Calm) -> dict[str, Any]:
    """Give the command, strike, and give it again if that ended it."""
    rng = random.Random(f"{seed} {kind}")
    output = folder / f"run{seed}"
    environment = dict(os.environ)
    struck = ""
    if kind in calm.calls:
        number = rng.randrange(max(1, int(0.7 * len(calm.calls[kind]))))  # a run may need fewer calls than another
        seconds = rng.random() * calm.calls[kind][number]
        environment["CHAOS_STRIKE"] = f"{kind} {number + 1} {seconds}"
        struck = f"the driver {1000 * seconds:.0f} ms into {kind} {number + 1} of {len(calm.calls[kind])}"
    # Most kinds early and late alike; those who decode are soon done, and training comes first.
    after = int(rng.uniform(0, 0 if kind in ("decoder", "trainer") else 0.85) * calm.parts)
    more = [f"cache={folder / f'cache{seed}'}"] if kind == "trainer" else []  # else trained before
    if kind == "older":
        shutil.copytree(folder / "older", output)
    began = time.monotonic()
    codes = []
    with (folder / f"run{seed}.log").open("w") as log:
        for given in range(2):
            words = command(folder, output, *nodes.over(), *more)
            driver = subprocess.Popen(words, stdout=log, stderr=log, env=environment if given == 0 else None)
            until = time.monotonic() + 8 * calm.seconds + 60
            seen: set[str] = set()
            try:
                while driver.poll() is None and time.monotonic() < until:
                    seen.update(path.name for path in output.glob("parts/*/predictions-*.parquet"))
                    begun = kind == "trainer" or list(output.glob("plan/*/*.parquet"))
                    if not struck and len(seen) >= after and begun:
                        struck = strike(kind, driver, nodes, rng)
                        if struck:
                            struck += f" after {len(seen)} of {calm.parts} parts"
                            if kind == "node":
                                nodes.mend()
                    time.sleep(0.01)
            finally:
                codes.append(driver.poll())  # None: it hung
                driver.kill()
                driver.wait()
            if codes[-1] == 0 or codes[-1] is None:
                break
    nodes.mend()
    expected = [KINDS[kind], 0] if KINDS[kind] else [0]
    verdict = "" if struck else "nothing was struck"
    if not verdict and codes != expected:
        verdict = f"exit codes {codes} instead of {expected}"
    return {"seed": seed, "kind": kind, "killed": struck, "seconds": time.monotonic() - began, "verdict": verdict}


def difference(output: Path, expected: dict[str, pd.DataFrame]) -> str:
    """What is not as in the undisturbed run; empty: nothing."""
    for table, question in TABLES.items():
        found = Store(output).query(question)
        if len(found) != len(expected[table]):
            return f"{table} has {len(found)} rows, not {len(expected[table])}"
        try:
            pd.testing.assert_frame_equal(found, expected[table])
        except AssertionError as error:
            return f"{table} differs: {' '.join(str(error).split())[:200]}"
    return ""


def undisturbed(folder: Path, nodes: Nodes) -> Calm:
    """One run over the cluster, whose calls are timed."""
    times = folder / "times"
    output = folder / "calm"
    began = time.monotonic()
    driver = subprocess.Popen(
        command(folder, output, *nodes.over()), stdout=subprocess.DEVNULL, env=os.environ | {"CHAOS_TIMES": str(times)}
    )
    seen: set[str] = set()
    while driver.poll() is None:
        seen.update(path.name for path in output.glob("parts/*/predictions-*.parquet"))
        time.sleep(0.01)
    if driver.returncode:
        raise SystemExit("the undisturbed run failed")
    seconds = time.monotonic() - began
    calls: dict[str, list[float]] = {"ingest": [], "publish": []}
    for line in times.read_text().splitlines():
        stage, _, took = line.split()
        calls[stage].append(float(took))
    return Calm(seconds, len(seen), calls)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="in turn")
    parser.add_argument("--json", type=Path, help="write the verdicts here too")
    given = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    os.environ |= {"CHAOS_SECONDS": SLOW, "CHAOS_PATIENCE": PATIENCE, "CHAOS_EVERY": EVERY}
    verdicts = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "images")
        for name_of, words in (("whole", []), ("older", [FEWER])):
            subprocess.run(command(folder, folder / name_of, *words), check=True, stdout=subprocess.DEVNULL)
        expected = {table: Store(folder / "whole").query(question) for table, question in TABLES.items()}
        nodes = Nodes()
        try:
            calm = undisturbed(folder, nodes)
            print(f"undisturbed over {NODES} nodes in {calm.seconds:.1f} s, {calm.parts} parts, {calm.calls}: "
                  f"{difference(folder / 'calm', expected) or 'equal'}", flush=True)  # fmt: skip
            for number in range(given.runs):
                seed = given.seed + number
                run = one_run(seed, given.kinds[seed % len(given.kinds)], folder, nodes, calm)
                run["verdict"] = run["verdict"] or difference(folder / f"run{seed}", expected) or "equal"
                verdicts.append(run)
                print(f"seed {seed}, {run['kind']}: {run['killed']}, {run['seconds']:.0f} s: {run['verdict']}",
                      flush=True)  # fmt: skip
                if run["verdict"] != "equal":
                    print("\n".join((folder / f"run{seed}.log").read_text().splitlines()[-40:]), flush=True)
        finally:
            ray.shutdown()
            nodes.cluster.shutdown()
    bad = sum(verdict["verdict"] != "equal" for verdict in verdicts)
    print(f"{len(verdicts) - bad} of {len(verdicts)} runs equal the undisturbed one")
    if given.json:
        given.json.write_text(json.dumps({"runs": len(verdicts), "bad": bad, "verdicts": verdicts}, indent=2) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
