"""The data set `plumage`: birds that this program draws, so that a run needs no download.

It has eight species in four pairs that look alike, with labels, boxes and masks. `birds.py` draws a bird, and
`scene.py` the photograph around it.
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

from cnnsens_bench.datasets.base import dataset
from cnnsens_bench.datasets.plumage.birds import SPECIES
from cnnsens_bench.datasets.plumage.scene import draw_scene
from cnnsens_bench.datasets.sample_table import BOX
from cnnsens_bench.datasets.samples import Samples, make_samples
from cnnsens_bench.utils.cache import cache_dir
from cnnsens_bench.utils.errors import UserError

VERSION = 1
"""The version of the drawing, which is part of the name of the folder in the cache."""
SPLITS = ("train", "test")


@dataset("plumage", folder=None, source="it is drawn by this program", shareable=True)
def plumage(
    root: Path | None, *, seed: int = 0, train_per_class: int = 100, test_per_class: int = 25, size: int = 224
) -> Samples:
    """Return the samples of the drawn pictures. The first call with some options draws them into a folder.

    A picture depends only on the seed, the split, the species and its index, so that a larger number of pictures adds
    some and changes none.

    Parameters
    ----------
    root
        The folder that keeps the pictures; None for the cache.
    seed
        The seed of the drawing, at least 0.
    train_per_class, test_per_class
        The number of training and of test pictures of each species, at least 1.
    size
        The side of the square pictures in pixels, above 160.

    Raises
    ------
    UserError
        If an option is out of its range.
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
    """Draw all pictures into a temporary folder and rename it, so that no folder is ever incomplete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".drawing-"))
    try:
        pictures = [
            (split, label, index)
            for split in SPLITS
            for label in range(len(SPECIES))
            for index in range(parameters[split])
        ]
        draw = functools.partial(_draw_picture, work, parameters["size"], parameters["seed"])
        if len(pictures) < 64 or (os.cpu_count() or 1) < 2:
            rows = [draw(picture) for picture in pictures]
        else:
            # The processes are not forked, because torch's threads may be running already.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
                rows = list(pool.map(draw, pictures, chunksize=16))
        pd.DataFrame(rows).to_csv(work / "samples.csv", index=False)
        try:
            work.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise  # otherwise another process was faster, and its pictures are the same
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _draw_picture(folder: Path, size: int, seed: int, picture: tuple[str, int, int]) -> dict[str, object]:
    """Draw the picture of a (split, label, index) and its mask into a folder, and return its row of the samples."""
    split, label, index = picture
    species = SPECIES[label]
    # Both species of a pair draw from the same kind of random states, so that they differ in their field mark alone.
    # Training and test pictures have different states.
    scene = draw_scene(species, size, [seed, SPLITS.index(split), species.pair, 2 * index + label % 2])
    name = f"{species.name}_{split}_{index:04d}"
    Image.fromarray(scene.image).save(folder / f"{name}.jpg", quality=95, subsampling=0)
    Image.fromarray(scene.mask).save(folder / f"{name}_mask.png", compress_level=1)
    rows, columns = np.flatnonzero(scene.mask.any(axis=1)), np.flatnonzero(scene.mask.any(axis=0))
    sides = (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
    files = {"uri": f"{name}.jpg", "mask_uri": f"{name}_mask.png"}
    box = dict(zip(BOX, map(float, sides), strict=True))
    return {"image_id": name, "split": split, **files, "label": label, "class_name": species.name, **box}
