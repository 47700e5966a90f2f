"""The store and the page at 10 million predictions.

    python benchmarks/store.py [--json FILE] [--rows N] [--rounds 3] [--folder FOLDER]

Part files of made-up predictions, as workers write them (6 networks × 2 defenses, 5 degradations with their levels and
trials, chunks of 32 images), are brought in through `Store.ingest`; then the store and the page are asked.

`ingest_rows_per_s`: predictions ÷ seconds of `Store.ingest`, to the last byte on the disk. Beside it `CREATE TABLE AS
SELECT * FROM read_parquet(…)` of the same files: that much reading, converting and writing is the limit of any database
file, and what `ingest` adds are transactions, the check for rows that are there already, and the names of the parts.
`leaderboard_s`: `SELECT * FROM leaderboard` through the store. Beside it a bare scan that averages the hits of every
condition: the view also needs each image's share and its undegraded label, for intervals and p_Δ.
`page_s`, `page_mb`: `python -m leaderboard build`, with the start of the interpreter. Beside it one query that averages
hits and log-likelihoods of every image and condition, which is what the page cannot do without.
`peak_rss_gb`: the largest resident memory of these three, each a process of its own, as the operating system counts it.

What is compared alternates; figures are medians over rounds.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

# The rest is imported by the stages that need it: a process counts the memory of the one that started it as its own.
if TYPE_CHECKING:
    import numpy as np

    from cnnsens_bench.engine.sweep import Sweep

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("alexnet", "vgg19", "googlenet", "resnet18", "resnet50", "efficientnet_b0")
DEFENSES = ("none", "median_filter(size=3)")
TRIALS = {"gaussian_rgb": 5, "pepper": 5, "translation": 5, "rotation": 5, "flip_lr": 1}
CLASSES = 200
BATCH = 32


def make_sweep() -> "Sweep":
    """The paper's levels."""
    from cnnsens_bench.degradations import degradations
    from cnnsens_bench.engine.sweep import Condition, Entrant, Sweep

    entrants = [Entrant(f"torchvision/{model}", model, defense, model) for model in MODELS for defense in DEFENSES]
    conditions = [Condition(name, degradations[name].levels or (0.0,), trials) for name, trials in TRIALS.items()]
    return Sweep("bench", "made_up", tuple(entrants), tuple(conditions), batch_size=BATCH)


def generate(folder: Path, rows: int) -> dict[str, Any]:
    """Whole chunks of parts, of at least `rows` predictions."""
    import numpy as np

    from cnnsens_bench.engine.predictions import Prediction
    from cnnsens_bench.runtime import rows as row_tables
    from cnnsens_bench.store import write_part

    sweep, rng = make_sweep(), np.random.default_rng(0)
    per_chunk = BATCH * len(sweep.entrants) * len(sweep.cells())
    chunks = -(-rows // per_chunk)
    folder.mkdir(parents=True)
    for chunk in range(chunks):
        images = [
            {"image_id": f"{i % CLASSES:03}.a_class/an_image_{i:06}.jpg", "label": int(i % CLASSES), "split": "test",
             "uri": f"/data/{i}.jpg", "class_name": f"class {i % CLASSES}"}
            for i in range(chunk * BATCH, (chunk + 1) * BATCH)
        ]  # fmt: skip
        ease = rng.normal(2.0, 2.0, BATCH)
        strength = np.linspace(-0.5, 1.0, len(sweep.entrants))
        for name, levels, trials in [
            ("none", (0.0,), 1),
            *((c.degradation, c.levels, c.trials) for c in sweep.conditions),
        ]:
            columns = outcomes(rng, ease, strength, np.asarray(levels, float), trials, images)
            table = row_tables.prediction_table(sweep, images, Prediction(name, columns, []))
            write_part(folder, "predictions", f"{chunk:06}-{name}", table)
        speeds = {e: (per_chunk // len(sweep.entrants), 10 + rng.random()) for e in range(len(sweep.entrants))}
        write_part(folder, "speed", f"{chunk:06}", row_tables.speed_table(sweep, speeds, "a device", 2))
    return {"rows": chunks * per_chunk, "images": chunks * BATCH, "parts": len(list(folder.iterdir()))}


def outcomes(
    rng: "np.random.Generator",
    ease: "np.ndarray",
    strength: "np.ndarray",
    levels: "np.ndarray",
    trials: int,
    images: list[dict[str, Any]],
) -> "dict[str, np.ndarray]":
    """Columns of `Prediction`: margins of easy images and strong entrants are wide, and narrower at higher levels."""
    import numpy as np

    shape = (len(ease), len(strength), trials, len(levels))
    harm = 3 * np.arange(len(levels)) / max(1, len(levels) - 1) if levels.any() else np.zeros(1)
    margin = ease[:, None, None, None] + strength[:, None, None] - harm + rng.normal(0, 0.5, shape)
    margin = margin.ravel()
    image, entrant, trial, level = (index.ravel() for index in np.indices(shape))
    label = np.array([row["label"] for row in images])[image]
    right = margin > 0
    confidence = (1 / (1 + np.exp(-np.abs(margin)))).astype(np.float32)
    other = (label + 1 + rng.integers(0, 3, len(margin))) % CLASSES
    true = np.where(right, confidence, (1 - confidence) * rng.random(len(margin), np.float32))
    return {
        "image": image,
        "entrant": entrant,
        "level": levels[level],
        "trial": trial,
        "prediction": np.where(right, label, other),
        "confidence": confidence,
        "true_probability": true,
        "true_rank": np.where(right, 1, 2 + rng.integers(0, 8, len(margin))),
        "reference_logit": (5 + margin).astype(np.float32),
        "reference_probability": confidence,
    }


def bring_in(folder: Path, made: Path) -> dict[str, Any]:
    """Seconds of `Store.ingest`; `made`: the parts, which stay."""
    import pandas as pd

    from cnnsens_bench.store import Store, new_attempt

    store = Store(folder)
    store.open()
    store.begin_run("bench", "bench", "a protocol", {}, {})
    attempt = new_attempt(folder)
    for file in made.iterdir():
        os.link(file, str(attempt / file.name))
    began = time.perf_counter()
    store.ingest()
    seconds = time.perf_counter() - began
    store.put("models", pd.DataFrame(model_rows()))
    return {"seconds": seconds}


def model_rows() -> list[dict[str, Any]]:
    """Rows of `models`; without torch, whose memory is none of the store's."""
    return [
        {"model": f"torchvision/{model}", "architecture": model, "dataset": "made_up", "defense": defense,
         "weights_sha256": f"{model}{defense}", "num_parameters": 1_000_000}
        for model in MODELS for defense in DEFENSES
    ]  # fmt: skip


def copy(folder: Path, made: Path) -> dict[str, Any]:
    """Seconds of reading and writing alone."""
    import duckdb

    files = [str(file) for file in made.glob("predictions-*")]
    began = time.perf_counter()
    with duckdb.connect(str(folder / "copy.duckdb")) as connection:
        connection.execute("CREATE TABLE predictions AS SELECT * FROM read_parquet($files)", {"files": files})
    return {"seconds": time.perf_counter() - began}


SCAN = """
SELECT run_id, dataset, model, defense, degradation, level, avg((prediction = label)::INT), count(*)
FROM predictions GROUP BY ALL
"""
PER_IMAGE = """
SELECT count(*) AS n, avg(hit) AS hit, avg(nll) AS nll FROM (
    SELECT run_id, dataset, model, defense, degradation, level, image_id, count(*) AS trials,
        avg((prediction = label)::INT) AS hit, avg(-ln(greatest(true_probability, 1e-38))) AS nll
    FROM predictions GROUP BY ALL
)
"""
QUESTIONS = {"leaderboard": "SELECT * FROM leaderboard", "scan": SCAN, "per_image": PER_IMAGE}


def ask(folder: Path, question: str) -> dict[str, Any]:
    """Seconds of a question through the store, its connection included."""
    from cnnsens_bench.store import Store

    store = Store(folder)
    began = time.perf_counter()
    found = store.query(QUESTIONS[question])
    return {"seconds": time.perf_counter() - began, "answers": len(found)}


STAGES: dict[str, Callable[..., dict[str, Any]]] = {
    "generate": generate,
    "bring_in": bring_in,
    "copy": copy,
    "ask": ask,
}


def staged(name: str, *arguments: object) -> dict[str, Any]:
    """A stage in a process of its own: what it gives, and its peak memory."""
    words = [sys.executable, str(Path(__file__).resolve()), "--stage", name, *map(str, arguments)]
    text, _, peak = measured(words)
    return {**json.loads(text), "peak_gb": peak}


def measured(words: list[str]) -> tuple[str, float, float]:
    """A command's output, its seconds, and its peak resident memory in GB. Raises `RuntimeError` where it fails."""
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    assert process.stdout
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return text, time.perf_counter() - began, usage.ru_maxrss * unit / 1e9


def measure(folder: Path, rows: int, rounds: int) -> dict[str, Any]:
    """All figures; `folder`: empty, for databases and parts."""
    made = folder / "made"
    size = staged("generate", made, rows)
    every: dict[str, list[dict[str, Any]]] = {}
    for _ in range(rounds):
        output = folder / "out"
        shutil.rmtree(output, ignore_errors=True)
        (folder / "copy.duckdb").unlink(missing_ok=True)
        found: dict[str, dict[str, Any]] = {
            "copy": staged("copy", folder, made),
            "ingest": staged("bring_in", output, made),
        }
        for question in QUESTIONS:
            found[question] = staged("ask", output, question)
        site = folder / "site"
        build = [
            sys.executable,
            "-m",
            "leaderboard",
            "build",
            "--db",
            str(output / "results.duckdb"),
            "--out",
            str(site),
        ]
        _, whole, peak = measured(build)
        found["page"] = {"seconds": whole, "peak_gb": peak}
        for name, one in found.items():
            every.setdefault(name, []).append(one)
    seconds = {name: statistics.median(one["seconds"] for one in ones) for name, ones in every.items()}
    peaks = {name: max(one["peak_gb"] for one in every[name]) for name in ("ingest", "leaderboard", "page")}
    return {
        "ingest_rows_per_s": size["rows"] / seconds["ingest"],
        "leaderboard_s": seconds["leaderboard"],
        "page_s": seconds["page"],
        "page_mb": (folder / "site" / "index.html").stat().st_size / 1e6,
        "peak_rss_gb": max(peaks.values()),
        "vs_limit": {
            "ingest": seconds["ingest"] / seconds["copy"],
            "leaderboard": seconds["leaderboard"] / seconds["scan"],
            "page": seconds["page"] / seconds["per_image"],
        },
        "limits_s": {name: seconds[name] for name in ("copy", "scan", "per_image")},
        "peak_gb": peaks,
        "database_mb": (output / "results.duckdb").stat().st_size / 1e6,
        "rounds": {name: [one["seconds"] for one in ones] for name, ones in every.items()},
        "rows": size["rows"],
        "images": size["images"],
        "parts": size["parts"],
        "machine": {"cores": os.cpu_count()},
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--rows", type=int, default=10_000_000, help="predictions, rounded up to whole chunks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where databases lie meanwhile (a new folder of the system's)")
    parser.add_argument("--stage", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        name, folder, *rest = given.stage
        values = [int(one) if one.isdigit() else Path(one) if name != "ask" else one for one in rest]
        print(json.dumps(STAGES[name](Path(folder), *values)))
        return
    if given.folder and not given.folder.is_dir():
        print(f"error: there is no folder {given.folder}: --folder takes one that can be written", file=sys.stderr)
        sys.exit(2)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        figures = measure(Path(folder), max(1, given.rows), max(1, given.rounds))
    limits = figures["vs_limit"]
    table = Table(
        "figure", "value", "bar", "÷ its limit", title=f"{figures['rows']:,} predictions in {figures['parts']:,} parts"
    )
    table.add_row("ingest", f"{figures['ingest_rows_per_s']:,.0f} rows/s", "> 1,000,000", f"{limits['ingest']:.2f}")
    table.add_row("leaderboard", f"{figures['leaderboard_s']:.2f} s", "< 2 s", f"{limits['leaderboard']:.2f}")
    table.add_row("page", f"{figures['page_s']:.1f} s", "< 10 s", f"{limits['page']:.2f}")
    table.add_row("page's size", f"{figures['page_mb']:.2f} MB", "< 3 MB", "")
    table.add_row("peak memory", f"{figures['peak_rss_gb']:.2f} GB", "< 2 GB", "")
    Console(width=110).print(table)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
