"""A store as `suite=paper` leaves it, with made-up predictions: four models on birds, one on two other data sets."""

import itertools
import zlib

import numpy as np
import pandas as pd
import pyarrow as pa

from cnnsens_bench.figures.paper import NOISES
from cnnsens_bench.figures.published import COMBINATION
from cnnsens_bench.store import Store, new_attempt, write_part
from tests.store.part_schemas import PREDICTIONS

MODELS = {"torchvision/alexnet": 61_000_000, "torchvision/vgg19": 144_000_000, "timm/resnet18": 11_700_000,
          "timm/resnet34": 21_800_000}  # fmt: skip
LEVELS = {
    **dict.fromkeys(NOISES[:5], (1.0, 4.0, 16.0, 64.0)),
    "pepper": (0.01, 0.02, 0.04, 0.16),
    "translation": (1.0, 4.0, 16.0),
    "rotation": (45.0,),
    **dict.fromkeys(("flip_ud", "flip_lr", COMBINATION), (0.0,)),
}
FILTER = "gaussian_filter(size=3, sigma=0.5)"
IMAGES = 30


def entrants() -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Return the data set, model, defense and degradations of each entrant."""
    some = ("gaussian_rgb", "gaussian_intensity", "pepper", "translation")
    return [
        *(("cub200", model, "none", tuple(LEVELS)) for model in list(MODELS)[:2]),
        *(("cub200", model, "none", some) for model in list(MODELS)[2:]),
        *((dataset, "torchvision/alexnet", "none", tuple(LEVELS)) for dataset in ("flowers102", "oxford_pets")),
        ("cub200", "torchvision/alexnet", FILTER, ("gaussian_rgb", "pepper")),
    ]


def paper_store(store: Store) -> Store:
    """Fill a store with the made-up predictions, and return it."""
    store.open()
    rows = []
    for dataset, model, defense, degradations in entrants():
        store.begin_run(dataset, "paper", f"p-{dataset}", {}, {})
        rng = np.random.default_rng(zlib.crc32(f"{dataset}{model}{defense}".encode()))
        conditions = [("none", 0.0), *((name, level) for name in degradations for level in LEVELS[name])]
        for (name, level), image in itertools.product(conditions, range(IMAGES)):
            hard = 0.1 if name == "none" else min(0.8, 0.15 + 0.01 * level if level >= 1 else 0.2 + 3 * level)
            hard += 0.1 if defense != "none" and name == "none" else 0
            right = rng.random() > hard
            rows.append((dataset, f"i{image}", model, model.partition("/")[2], defense, name, level, image % 3, right))
    columns = ["dataset", "image_id", "model", "architecture", "defense", "degradation", "level", "label", "right"]
    table = pd.DataFrame(rows, columns=columns)
    table["prediction"] = np.where(table["right"], table["label"], (table["label"] + 1) % 3)
    table = table.assign(run_id=table["dataset"], trial=0, confidence=0.6, true_probability=0.5, true_rank=1,
                         reference_logit=0.0, reference_probability=0.5)  # fmt: skip
    part = pa.Table.from_pandas(table.reindex(columns=PREDICTIONS.names), schema=PREDICTIONS, preserve_index=False)
    write_part(new_attempt(store.output), "predictions", "a", part)
    store.ingest()
    known = table[["model", "architecture", "dataset", "defense"]].drop_duplicates()
    store.put("models", known.assign(num_parameters=known["model"].map(MODELS), weights_sha256="w", input_size=224))
    return store
