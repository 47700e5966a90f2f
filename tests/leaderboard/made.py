"""Databases for the leaderboard's tests, with made-up rows that lack whatever real ones may lack."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from cnnsens_bench.store import Store, new_attempt, write_part
from tests.store.empty import empty_store
from tests.store.part_schemas import FAILURES, PREDICTIONS, SPEED

CONDITIONS = {("gaussian_rgb", 4.0): 3, ("gaussian_rgb", 8.0): 3, ("pepper", 0.04): 2, ("flip_lr", 0.0): 1}
MODELS = ("torchvision/alexnet", "timm/b", "timm/c")
DEFENSES = ("none", "median_filter(size=3)")
CLASSES = 7
HOSTILE = (
    "timm/</script><script>window.hacked=1</script>",
    "timm/\"><img src=x onerror='window.hacked=1'>",
    "timm/line\nbreak\ttab\u2028sep",
    "timm/" + "x" * 300,
    "timm/\u202eabc \u05d0\u05d1",
    "timm/<!--<script>",
    "timm/__proto__",
)
"""Names of networks that try to be something else than text on a page."""


def sweep(
    run_id: str,
    dataset: str,
    images: Sequence[int],
    seed: int,
    models: Sequence[str] = MODELS,
    defenses: Sequence[str] = DEFENSES,
    conditions: dict[tuple[str, float], int] = CONDITIONS,
) -> pd.DataFrame:
    """Return rows of `predictions`.

    The model timm/c lacks pepper noise, image 7 its undegraded row, and image 3 a trial of each condition.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for strength, model in enumerate(models):
        for defense in defenses:
            for image in images:
                label, fragile = image % 5, rng.random()
                for (name, level), trials in {("none", 0.0): 1, **conditions}.items():
                    if (model == "timm/c" and name == "pepper") or (name == "none" and image == 7):
                        continue
                    for trial in range(max(1, trials - (image == 3))):
                        wrong = rng.random() < fragile * (0.15 + 0.1 * strength + 0.4 * (name != "none"))
                        prediction = (label + wrong * rng.integers(1, CLASSES)) % CLASSES
                        share = rng.dirichlet(np.ones(CLASSES))
                        key = (run_id, dataset, f"i{image:03}", model, model.split("/")[1], defense, name, level, trial)
                        rank = int(rng.integers(1, CLASSES + 1)) if wrong else 1
                        rows.append((*key, label, prediction, share.max(), share[0], rank, rng.normal(), share[1]))
    return pd.DataFrame(rows, columns=PREDICTIONS.names[: len(rows[0])])


def timings(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return rows of `speed` for every entrant of `rows`: unequal batches on two devices, for timm/b mostly a GPU."""
    rng = np.random.default_rng(seed)
    found = []
    entrants = rows[["run_id", "dataset", "model", "defense"]].drop_duplicates()
    for run_id, dataset, model, defense in entrants.itertuples(index=False):
        for batch in range(8):
            gpu = batch < (5 if model == "timm/b" else 2)
            images = int(rng.integers(20, 33))
            seconds = images * (0.002 if gpu else 0.02 + 0.001 * len(defense)) * rng.uniform(0.9, 1.1)
            device = ("A GPU", None) if gpu else ("A processor", 2)
            found.append((run_id, dataset, model, defense, *device, "float32", images, seconds))
    return pd.DataFrame(found, columns=SPEED.names).astype({"threads": "Int32"})


def write(
    folder: Path,
    rows: pd.DataFrame,
    protocols: dict[str, str],
    weights: str | None = "w",
    failures: pd.DataFrame | None = None,
    config: dict | None = None,
    speed: pd.DataFrame | None = None,
) -> Path:
    """Write a database of rows of `predictions`, and return its path; `protocols` maps each run to its protocol."""
    store = empty_store(folder)
    with duckdb.connect(str(store.path)):  # while one connection is open, each further one takes no time
        _fill(store, rows, protocols, weights, failures, config, speed)
    return store.path


def _fill(
    store: Store,
    rows: pd.DataFrame,
    protocols: dict[str, str],
    weights: str | None,
    failures: pd.DataFrame | None,
    config: dict | None,
    speed: pd.DataFrame | None,
) -> None:
    for run_id, protocol in protocols.items():
        store.begin_run(run_id, "quick", protocol, config or {"seed": 0, "trials": 3}, {"commit": "abc1234"})
    parts = new_attempt(store.output)
    write_part(
        parts,
        "predictions",
        "a",
        pa.Table.from_pandas(rows.reindex(columns=PREDICTIONS.names), PREDICTIONS, preserve_index=False),
    )
    if failures is not None:
        write_part(parts, "failures", "a", pa.Table.from_pandas(failures, FAILURES, preserve_index=False))
    if speed is not None:
        write_part(parts, "speed", "a", pa.Table.from_pandas(speed, SPEED, preserve_index=False))
    store.ingest()
    named = rows[["dataset", "model", "architecture", "defense"]].drop_duplicates()
    digests = [None if weights is None else f"{weights}{model}{defense}" for model, defense in
               zip(named["model"], named["defense"], strict=True)]  # fmt: skip
    store.put("models", named.assign(num_parameters=named["model"].str.len() * 1000, weights_sha256=digests))
    images = rows[["dataset", "image_id"]].drop_duplicates()
    store.put("images", images.assign(class_name="class of " + images["image_id"]))
