"""The page of a large board: how long it takes to build, how large it is, and how quickly a browser shows and sorts it.

    python benchmarks/board.py [--json FILE] [--entrants 500] [--conditions 150] [--images 200] [--folder FOLDER]

Made-up predictions with one trial, 15 million rows by default, are brought into a database. The page is built from it
in a process of its own, and opened from disk in headless Chromium.

`build_s`, `build_cpu_s`, `build_peak_gb`: `python -m leaderboard build` with the start of the interpreter: its seconds,
those of all cores that it kept busy, and its largest resident memory. `page_mb`, `folder_mb`: the size of `index.html`,
and of all files of the page. `first_paint_s`: from the navigation to the first contentful paint. `sort_ms`: a press of
a heading, until the rows are in their new order and laid out; the median of several. The last two are left out where
there is no Chromium with its driver.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from reporting import show

from cnnsens_bench.store import Store, new_attempt, write_part
from cnnsens_bench.store.schema import part_schema

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = ("resnet", "convnext", "vit", "swin", "efficientnet", "densenet", "regnet", "mobilenet", "vgg", "deit")
DEFENSES = ("none", "none", "none", "median_filter(size=3)")
"""Every fourth entrant is the network before it, with a defense."""
CLASSES = 100
LEVELS = 5
BATCH = 32


def entrants_of(count: int) -> pd.DataFrame:
    """Return made-up entrants: model, architecture, defense, num_parameters, strength and seconds per image."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for i in range(count):
        defense = DEFENSES[i % len(DEFENSES)]
        if defense != "none":
            last = rows[-1]
            rows.append(last | {"defense": defense, "strength": last["strength"] - 0.1, "hold": last["hold"] + 0.3})
            continue
        family = i // len(DEFENSES) % len(FAMILIES)
        size = rng.uniform(0, 1)
        rows.append(
            {"model": f"timm/{FAMILIES[family]}{i}", "architecture": f"{FAMILIES[family]}{i}", "defense": defense,
             "num_parameters": int(10 ** (6.3 + 0.2 * (family % 4) + 1.3 * size)),
             "strength": 0.4 + 0.1 * family + 0.9 * size + rng.normal(0, 0.15), "hold": rng.normal(0.05 * family, 0.2),
             "seconds": 10 ** (-2.6 + 1.1 * size + rng.normal(0, 0.1))}
        )  # fmt: skip
    return pd.DataFrame(rows)


def generate(folder: Path, entrants: int, conditions: int, images: int) -> int:
    """Bring made-up predictions into a database in the folder, and return their number."""
    rng = np.random.default_rng(1)
    table = entrants_of(entrants)
    keys = [("none", 0.0), *((f"common:made_{i // LEVELS:02}", float(i % LEVELS + 1)) for i in range(conditions))]
    ease = rng.normal(1.2, 1.5, images)
    harm = np.array([0.0, *(0.3 * (i % LEVELS + 1) + 0.03 * (i // LEVELS) for i in range(conditions))])
    shape = (len(keys), images)
    condition, image = (index.ravel() for index in np.indices(shape))
    label = image % CLASSES
    ids = np.array([f"{i % CLASSES:03}.a_class/an_image_{i:06}.jpg" for i in range(images)])
    constant = {
        "run_id": "bench", "dataset": "made_up", "image_id": ids[image], "trial": 0, "label": label,
        "degradation": np.array([name for name, _ in keys])[condition],
        "level": np.array([level for _, level in keys])[condition],
    }  # fmt: skip
    store = Store(folder)
    store.open()
    store.begin_run("bench", "bench", "a protocol", {"seed": 0, "trials": 1}, {"device": "a processor"})
    attempt = new_attempt(folder)
    noise = rng.normal(0, 0.6, shape)
    for number, one in table.iterrows():
        margin = one["strength"] + ease - harm[:, None] * (1 - one["hold"]) + 0.5 * noise + rng.normal(0, 0.4, shape)
        right = margin.ravel() > 0
        confidence = (1 / (1 + np.exp(-np.abs(margin.ravel())))).astype(np.float32)
        rows = pd.DataFrame(constant).assign(
            **one[["model", "architecture", "defense"]],
            prediction=np.where(right, label, (label + rng.integers(1, 4, len(label))) % CLASSES),
            confidence=confidence,
            true_probability=np.where(right, confidence, (1 - confidence) * rng.random(len(label))),
            true_rank=np.where(right, 1, rng.integers(2, 9, len(label))),
        )
        schema = part_schema("predictions")
        written = pa.Table.from_pandas(rows.reindex(columns=schema.names), schema, preserve_index=False)
        write_part(attempt, "predictions", f"{number:06}", written)
    store.ingest()
    named = table.assign(
        dataset="made_up", weights_sha256=[f"{i:064x}" for i in table["model"].rank(method="dense").astype(int)]
    )
    store.put("models", named[["model", "architecture", "dataset", "defense", "weights_sha256", "num_parameters"]])
    speed = table.loc[table.index.repeat(4), ["model", "defense", "seconds"]].assign(
        run_id="bench", dataset="made_up", device="a processor", threads=2, images=BATCH, precision="float32"
    )
    speed["seconds"] *= BATCH * rng.uniform(0.95, 1.05, len(speed))
    schema = part_schema("speed")
    timed = pa.Table.from_pandas(speed.reindex(columns=schema.names), schema, preserve_index=False)
    write_part(new_attempt(folder), "speed", "a", timed)
    store.ingest()
    return len(keys) * images * len(table)


def build(database: Path, site: Path) -> dict[str, float]:
    """Build the page in a process of its own, and return its seconds, its peak memory and the sizes of the files."""
    command = [sys.executable, "-m", "leaderboard", "build", "--db", str(database), "--out", str(site)]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return {
        "build_s": time.perf_counter() - began,
        "build_cpu_s": usage.ru_utime + usage.ru_stime,
        "build_peak_gb": usage.ru_maxrss * unit / 1e9,
        "page_mb": (site / "index.html").stat().st_size / 1e6,
        "folder_mb": sum(file.stat().st_size for file in site.rglob("*") if file.is_file()) / 1e6,
    }


FIRST_PAINT = """
const found = performance.getEntriesByName("first-contentful-paint")[0];
return found ? found.startTime : null;
"""
SORT = """
const began = performance.now();
document.querySelector(`[data-sort=${arguments[0]}]`).click();
document.body.getBoundingClientRect();
return performance.now() - began;
"""


def browse(page: Path, presses: int) -> dict[str, float]:
    """Open the page in headless Chromium, and return its first paint and the milliseconds of a sorting."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import WebDriverWait

    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        return {}
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1600,900"):
        options.add_argument(argument)
    with webdriver.Chrome(options=options, service=Service(driver)) as chromium:
        chromium.get(page.as_uri())
        paint = WebDriverWait(chromium, 60).until(lambda one: one.execute_script(FIRST_PAINT))
        measures = ("mean_label_change", "accuracy", "parameters")
        times = [chromium.execute_script(SORT, measures[i % len(measures)]) for i in range(presses)]
    return {"first_paint_s": paint / 1000, "sort_ms": statistics.median(times)}


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--entrants", type=int, default=500)
    parser.add_argument("--conditions", type=int, default=150)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument(
        "--folder", type=Path, help="keep the database and the page in this folder, and take what is there"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        database = folder / "results.duckdb"
        if not database.exists():
            generate(folder, given.entrants, given.conditions, given.images)
        figures = build(database, folder / "site") | browse(folder / "site" / "index.html", presses=9)
    size = f"{given.entrants} entrants × {given.conditions} conditions × {given.images} images"
    show(f"The page of {size}", figures, figures, given.json)


if __name__ == "__main__":
    main()
