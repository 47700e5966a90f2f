"""Runs that are killed at random, then given again until they end: the tables must equal the undisturbed ones.

    python benchmarks/chaos.py [--runs 20] [--seed 0] [--json FILE]

Each run is the command itself, as a driver of a Ray cluster of three nodes (several raylets on this machine), with a
tiny network and a few images. Once, at a random time of the run, one of these dies by SIGKILL: the driver, a worker (an
actor that computes, or a task that decodes), a whole node (all its processes); or the driver is stopped as by Ctrl-C
(SIGINT) or by `ray job stop` (SIGTERM). A node that died comes back before the command is given again. Every third
run bears its kill late, where parts are brought into the database. Only processes of this script's own cluster are
killed, by their ids.

Verdict of a run: `predictions`, `images` and `models` without run and time equal the undisturbed ones, row for row;
`failures` is empty; nobody had to give the command more than a few times.
"""

import argparse
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_worker_niceness", "0")
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
WAYS = ("driver", "worker", "decoder", "node", "SIGINT", "SIGTERM")
NODES = 3
COMMANDS = 4
"""So often a run's command may be given before it must have ended."""


def make_images(root: Path, count: int = 48) -> None:
    """Two classes of noisy pictures."""
    rng = np.random.default_rng(0)
    for label, mean in enumerate((90, 160)):
        (root / f"class_{label}").mkdir(parents=True)
        for index in range(count // 2):
            pixels = np.clip(rng.normal(mean, 50, (48, 56, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"class_{label}" / f"{index:02d}.png")


def command(folder: Path, output: Path, *more: str) -> list[str]:
    """The command of every run. Two networks with two defenses in groups of one network each."""
    return [
        sys.executable, "-m", "cnnsens_bench.run", "dataset=folder", f"dataset.root={folder / 'images'}",
        f"cache={folder / 'cache'}", f"output={output}", "input_size=32", "trials=3", "training.epochs=0",
        "models=[{name: timm/test_resnet, weights: random},{name: timm/test_efficientnet, weights: random}]",
        "defenses=[none,gaussian_filter]", "batch_size=4", "tracking=off", "cluster.threads=1",
        "degradations=[{name: gaussian_rgb, levels: [4, 32]},{name: pepper, levels: [0.04, 0.3]},flip_lr]", *more,
    ]  # fmt: skip


class Nodes:
    """The cluster of this script: a head, where the driver is, and nodes that can be killed."""

    def __init__(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 10**8})
        self.workers: list[Any] = []
        self.mend()

    def mend(self) -> None:
        """As many nodes as there were."""
        while len(self.workers) < NODES - 1:
            self.workers.append(self.cluster.add_node(num_cpus=2, object_store_memory=10**8))
        self.cluster.wait_for_nodes()

    def kill_node(self, rng: random.Random) -> str:
        node = self.workers.pop(rng.randrange(len(self.workers)))
        self.cluster.remove_node(node, allow_graceful=False)
        return "a node"

    def processes(self, word: str) -> list[int]:
        """Ids of Ray's workers whose title has the word, of this cluster alone: children of its raylets."""
        raylets = {
            raylet.process.pid
            for node in self.cluster.list_all_nodes()
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


def strike(way: str, driver: subprocess.Popen, nodes: Nodes, rng: random.Random) -> str:
    """Kill; gives what was killed, or "nothing" where there was no such process at that time."""
    if way == "node":
        return nodes.kill_node(rng)
    if way in ("worker", "decoder"):
        processes = nodes.processes("MapWorker" if way == "worker" else "Read_Tickets")
        if not processes:
            return "nothing"
        try:
            os.kill(rng.choice(processes), signal.SIGKILL)
        except ProcessLookupError:
            return "nothing"
        return f"a {way}"
    driver.send_signal({"driver": signal.SIGKILL}.get(way) or getattr(signal, way))
    return f"the driver by {way if way != 'driver' else 'SIGKILL'}"


def one_run(seed: int, folder: Path, nodes: Nodes, typical: float) -> tuple[str, Path, int]:
    """Give the command, strike, give it until it ends; what was struck when, the output, how many commands."""
    rng = random.Random(seed)
    output = folder / f"run{seed}"
    way = WAYS[seed % len(WAYS)]
    # Late: parts are brought in when all is computed, and the database is there already.
    after = rng.uniform(0.9, 1.05) * typical if seed % 3 == 2 else rng.uniform(0.25, 1.0) * typical
    words = command(folder, output, "cluster.engine=ray", f"cluster.address={nodes.cluster.address}",
                    f"cluster.workers={NODES - 1}")  # fmt: skip
    struck = "nothing"
    for given in range(1, COMMANDS + 1):
        with (folder / f"run{seed}.log").open("a") as log:
            driver = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
            if given == 1:
                try:
                    driver.wait(timeout=after)
                except subprocess.TimeoutExpired:
                    began = time.monotonic() - after
                    while driver.poll() is None and struck == "nothing":  # until there is such a process
                        struck = strike(way, driver, nodes, rng)
                        time.sleep(0.2)
                    struck += f" after {time.monotonic() - began:.1f} s"
            try:
                driver.wait(timeout=20 * typical + 120)
            except subprocess.TimeoutExpired:
                driver.kill()
                driver.wait()
        nodes.mend()
        if driver.returncode == 0:
            return struck, output, given
    return f"{struck}; it never ended", output, COMMANDS


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the verdicts here too")
    given = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "images")
        subprocess.run(command(folder, folder / "whole"), check=True, stdout=subprocess.DEVNULL)
        expected = {table: Store(folder / "whole").query(question) for table, question in TABLES.items()}
        nodes = Nodes()
        verdicts = []
        try:
            began = time.monotonic()
            words = command(folder, folder / "calm", "cluster.engine=ray", f"cluster.address={nodes.cluster.address}",
                            f"cluster.workers={NODES - 1}")  # fmt: skip
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            typical = time.monotonic() - began
            print(f"undisturbed over {NODES} nodes in {typical:.1f} s: "
                  f"{difference(folder / 'calm', expected) or 'equal'}", flush=True)  # fmt: skip
            for number in range(given.runs):
                seed = given.seed + number
                struck, output, commands = one_run(seed, folder, nodes, typical)
                verdict = difference(output, expected) or "equal"
                verdicts.append({"seed": seed, "killed": struck, "commands": commands, "verdict": verdict})
                print(f"seed {seed}: {struck}, {commands} commands: {verdict}", flush=True)
                if verdict != "equal":
                    print("\n".join((folder / f"run{seed}.log").read_text().splitlines()[-15:]), flush=True)
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
