"""A store with invented rows and scores of a sweep, for tests of what is computed from them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from cnnsens_bench.sensitivity.gradients import OUTPUTS
from cnnsens_bench.store import Store, new_attempt, write_part
from tests.store.empty import empty_store
from tests.store.part_schemas import PREDICTIONS, SENSITIVITY, SENSITIVITY_PREDICTIONS

IMAGES, TRIALS = 40, 10
LEVELS = {"gaussian_rgb": (1.0, 4.0), "pepper_pixel": (0.01,), "translation": (0.5,), "flip_lr": (0.0,)}
FREE = ("value", "grad_sq_norm", "pepper_sum", "pepper_sq_norm", "shift_x", "shift_y")


def sweep_rows() -> pd.DataFrame:
    """Return rows of `predictions`."""
    rng = np.random.default_rng(1)
    found = []
    for i in range(IMAGES):
        cells = [("none", 0.0, 0)]
        cells += [(n, level, t) for n, ls in LEVELS.items() for level in ls for t in range(TRIALS)]
        for name, level, trial in cells:
            found.append(
                {"run_id": "r", "dataset": "d", "image_id": f"i{i}", "model": "s/m", "architecture": "m",
                 "defense": "none", "degradation": name, "level": level, "trial": trial, "label": 0,
                 "prediction": int(rng.random() < 0.3) if name != "none" else 0, "confidence": 0.5 + i / 100,
                 "true_probability": 0.5, "true_rank": 1, "reference_logit": rng.normal() * (1 + i % 5),
                 "reference_probability": rng.random()}
            )  # fmt: skip
    return pd.DataFrame(found)


def score_rows() -> pd.DataFrame:
    """Return rows of `sensitivity`, rounded so that there are ties."""
    rng = np.random.default_rng(2)
    table = pd.DataFrame(rng.random((IMAGES * 3, len(FREE))).round(1), columns=FREE)
    table["pepper_sum"] = (table["pepper_sum"] - 0.5) * 50
    table = table.assign(run_id="r", dataset="d", model="s/m", defense="none", entropy=0.5)
    table["image_id"] = np.repeat([f"i{i}" for i in range(IMAGES)], 3)
    table["output"] = list(OUTPUTS) * IMAGES
    margin = table[table["output"] == "margin"].set_index("image_id")
    table["margin"] = margin["value"][table["image_id"]].to_numpy()
    table["margin_grad_sq_norm"] = margin["grad_sq_norm"][table["image_id"]].to_numpy()
    return table


def predicted_rows(scores: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `sensitivity_predictions`."""
    rng = np.random.default_rng(3)
    table = scores[["run_id", "dataset", "image_id", "model", "defense", "output"]].copy()
    table = table.assign(predictor="sampling(copies=3)", degradation="gaussian_rgb", level=4.0, passes=3)
    return table.assign(mean_change=rng.normal(size=len(table)), deviation=rng.random(len(table)))


def scored_store(folder: Path, rows: pd.DataFrame, scores: pd.DataFrame, predicted: pd.DataFrame) -> Store:
    """Return a store that has these rows under the protocol p."""
    store = empty_store(folder, "r")
    parts = new_attempt(store.output)
    for kind, table, schema in (
        ("predictions", rows, PREDICTIONS),
        ("sensitivity", scores, SENSITIVITY),
        ("sensitivity_predictions", predicted, SENSITIVITY_PREDICTIONS),
    ):
        write_part(parts, kind, "a", pa.Table.from_pandas(table.reindex(columns=schema.names), preserve_index=False))
    store.ingest()
    return store
