"""Databases for tests of submissions, and a function that returns all rows of a database."""

from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from cnnsens_bench.store import Store
from cnnsens_bench.store.read import results
from tests.leaderboard.made import sweep, write
from tests.store.scored import predicted_rows, score_rows, scored_store, sweep_rows

IMAGES = range(7)
"""Image 7 of `sweep` lacks its undegraded row."""
MODELS = ("torchvision/alexnet", "timm/b")
CONFIG = {
    "seed": 0,
    "trials": 3,
    "output": "/home/maker/runs",
    "data_root": "/home/maker/data",
    "models": [{"name": "torchvision/alexnet", "weights": "/home/maker/alexnet.pth"}],
}


def made(folder: Path, **more: Any) -> Path:
    """Make a database of two data sets under two protocols, with failures, labels and paths of its maker's machine."""
    few = {"models": MODELS, "conditions": {("gaussian_rgb", 4.0): 3, ("flip_lr", 0.0): 1, ("pepper", 0.04): 1}}
    rows = pd.concat([sweep("r1", "birds", IMAGES, 0, **few), sweep("r2", "pets", IMAGES, 1, **few)])
    failed = [("r1", "birds", "i090", "decode", "/home/maker/a b/i090.jpg: the image cannot be read")]
    failures = pd.DataFrame(failed, columns=["run_id", "dataset", "image_id", "stage", "error"])
    path = write(folder, rows, {"r1": "p1", "r2": "p2"}, failures=failures, config=CONFIG, **more)
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "INSERT INTO speed BY NAME SELECT run_id, dataset, model, defense, 'a device' AS device, 1 AS threads, "
            "'float32' AS precision, count(*) AS images, count(*) / 50 AS seconds FROM predictions GROUP BY ALL"
        )
        connection.execute("UPDATE images SET uri = '/home/maker/' || image_id || '.jpg'")
        connection.execute("UPDATE images SET label = substr(image_id, 2)::INTEGER % 5")
    return path


def scored(folder: Path) -> Store:
    """Make a database with scores."""
    scores = score_rows()
    store = scored_store(folder, sweep_rows(), scores, predicted_rows(scores))
    store.put(
        "models",
        pd.DataFrame([{"model": "s/m", "architecture": "m", "dataset": "d", "defense": "none", "weights_sha256": "w"}]),
    )
    store.put("images", pd.DataFrame({"dataset": "d", "image_id": scores["image_id"].unique()}))
    return store


def everything(path: Path) -> dict[str, Any]:
    """Return all rows of all tables."""
    store = results(path)
    tables = store.query("SELECT table_name FROM duckdb_tables() ORDER BY ALL")["table_name"]
    found = {}
    for table in tables:
        rows = store.query("SELECT t::VARCHAR AS row FROM query_table(?) AS t ORDER BY ALL", [table])
        found[table] = rows["row"].tolist()
    return found
