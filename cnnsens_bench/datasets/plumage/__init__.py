"""`plumage`: a fine-grained task drawn by this program, so that everything runs without a download.

Eight species of birds in look-alike pairs; labels, boxes and masks; drawn once and kept in the cache.
"""

import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cnnsens_bench.datasets.base import Samples, dataset, make_samples
from cnnsens_bench.datasets.plumage.birds import SPECIES
from cnnsens_bench.datasets.plumage.scene import draw_scene
from cnnsens_bench.utils.cache import cache_dir
from cnnsens_bench.utils.errors import UserError

VERSION = 1
"""Raised when the drawing changes, so that older pictures are not taken for it."""
SPLITS = ("train", "test")


@dataset("plumage", folder=None, source="it is drawn by this program")
def plumage(
    root: Path | None, *, seed: int = 0, train_per_class: int = 100, test_per_class: int = 25, size: int = 224
) -> Samples:
    """`root`: where pictures are kept (None: the cache); `size`: side of the square pictures in pixels, above 160.

    A picture depends only on (seed, split, species, index): more per class adds pictures, and changes none.
    Raises `UserError` for impossible parameters.
    """
    if size <= 160:
        raise UserError(f"plumage: size is {size}: pictures must be larger than 160 px")
    if train_per_class < 1 or test_per_class < 1:
        raise UserError("plumage: train_per_class and test_per_class must be at least 1")
    if seed < 0:
        raise UserError(f"plumage: seed is {seed}: it must be at least 0")
    parameters = {"version": VERSION, "seed": seed, "train": train_per_class, "test": test_per_class, "size": size}
    key = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:16]
    folder = (root or cache_dir() / "plumage") / key
    if not folder.is_dir():
        _draw_all(folder, parameters)
    table = pd.read_csv(folder / "samples.csv")
    for column in ("uri", "mask_uri"):
        table[column] = [str(folder / name) for name in table[column]]
    return make_samples("plumage", [species.name for species in SPECIES], table)


def _draw_all(folder: Path, parameters: dict[str, int]) -> None:
    """Draw into a folder beside, then rename: an interrupted drawing leaves nothing that looks whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".drawing-"))
    try:
        jobs = [
            (split, label, index)
            for split in SPLITS
            for label in range(len(SPECIES))
            for index in range(parameters[split])
        ]
        draw = functools.partial(draw_one, work, parameters["size"], parameters["seed"])
        if len(jobs) < 64 or (os.cpu_count() or 1) < 2:
            rows = [draw(job) for job in jobs]
        else:
            # Not forked: torch's threads may be running already.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
                rows = list(pool.map(draw, jobs, chunksize=16))
        pd.DataFrame(rows).to_csv(work / "samples.csv", index=False)
        try:
            work.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise  # else another process was first: its pictures are the same
    finally:
        shutil.rmtree(work, ignore_errors=True)


def draw_one(folder: Path, size: int, seed: int, job: tuple[str, int, int]) -> dict[str, object]:
    """Draw picture and mask of one (split, label, index) into `folder`; gives its row of the sample table."""
    split, label, index = job
    species = SPECIES[label]
    # The pair's number, not the species': the two of a pair share poses and places, and differ in their mark.
    # Test pictures come from another branch than training pictures.
    scene = draw_scene(species, size, [seed, SPLITS.index(split), species.pair, 2 * index + label % 2])
    name = f"{species.name}_{split}_{index:04d}"
    Image.fromarray(scene.image).save(folder / f"{name}.jpg", quality=95, subsampling=0)
    Image.fromarray(scene.mask).save(folder / f"{name}_mask.png", compress_level=1)
    rows, columns = np.flatnonzero(scene.mask.any(axis=1)), np.flatnonzero(scene.mask.any(axis=0))
    return {
        "image_id": name,
        "split": split,
        "uri": f"{name}.jpg",
        "mask_uri": f"{name}_mask.png",
        "label": label,
        "class_name": species.name,
        "box_x": float(columns[0]),
        "box_y": float(rows[0]),
        "box_w": float(columns[-1] - columns[0] + 1),
        "box_h": float(rows[-1] - rows[0] + 1),
    }
