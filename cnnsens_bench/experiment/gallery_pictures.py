"""Makes the small pictures of a gallery: chosen images in chosen cells, as the networks of a recorded run saw them."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cnnsens_bench.engine.cell_pixels import cell_pixels
from cnnsens_bench.engine.sweep import NONE
from cnnsens_bench.experiment.prepare import ResolvedStudy
from cnnsens_bench.experiment.recompute import CELL, image_rows
from cnnsens_bench.images import Decoded, PublishedView, decode_row, thumbnail
from cnnsens_bench.runtime.stored import StoredPictures
from cnnsens_bench.utils.atomic import write_atomically

AT_ONCE = 32
"""The number of images whose pixels are in memory together."""


class PictureKey(NamedTuple):
    """An image in a cell."""

    image_id: str
    degradation: str
    level: float
    trial: int


class PictureFolder:
    """Writes pictures into a folder, each once, under names that say nothing about the images.

    Parameters
    ----------
    folder
        An existing folder.
    side
        The side of a picture in pixels.

    Attributes
    ----------
    names
        The names of the files that were written.
    """

    def __init__(self, folder: Path, side: int) -> None:
        self.folder, self.side = folder, side
        self.names: set[str] = set()

    def add(self, study: ResolvedStudy, keys: Iterable[PictureKey]) -> tuple[dict[PictureKey, str], list[str]]:
        """Write the pictures of images in cells as the first network of a study sees them, before any defense.

        Parameters
        ----------
        study
            A study that has these cells.
        keys
            The images and their cells.

        Returns
        -------
        tuple
            The name of the file by key, without those that could not be made, and a sentence for each reason.
        """
        seen = study.models[0].preprocessing(study.settings.view)
        names = {key: self._name(study, seen.input_size, seen.view, key) for key in keys}
        lacking = [key for key, name in names.items() if name not in self.names]
        failures: list[str] = []
        for key, pixels in _pixels(study, seen.input_size, seen.view, lacking, failures):
            write_atomically(self.folder / names[key], thumbnail(pixels, self.side))
            self.names.add(names[key])
        return {key: name for key, name in names.items() if name in self.names}, failures

    def _name(self, study: ResolvedStudy, size: int, view: PublishedView | None, key: PictureKey) -> str:
        shown = [study.protocol, study.samples.name, size, str(view), self.side, *key]
        return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16] + ".jpg"


def _pixels(
    study: ResolvedStudy, size: int, view: PublishedView | None, keys: Iterable[PictureKey], failures: list[str]
) -> Iterator[tuple[PictureKey, np.ndarray]]:
    """Yield the pixels of images in cells, and add to `failures` why some cannot be made."""
    sweep = study.sweep()
    cells = {(cell.degradation, cell.level, cell.trial): i for i, cell in enumerate(sweep.cells())}
    named = {i: cell for cell, i in cells.items()}
    wanted_of: dict[str, list[int]] = {}
    for key in keys:
        wanted_of.setdefault(key.image_id, []).append(cells[key.degradation, key.level, key.trial])
    table = image_rows(study.samples, set(wanted_of)).to_dict("records")
    if absent := set(wanted_of) - {row["image_id"] for row in table}:
        failures.append(f"{min(absent)}: the data set of this machine has no such image")
    stored = StoredPictures(sweep.stored) if sweep.stored else None
    reach = sweep.reach(size)
    for start in range(0, len(table), AT_ONCE):
        rows: list[Mapping[str, Any]] = []
        decoded: list[Decoded] = []
        for row in table[start : start + AT_ONCE]:
            image = decode_row(row, reach)
            refusal = image if isinstance(image, str) else view.refusal(image.width, image.height) if view else None
            if refusal or isinstance(image, str):
                failures.append(f"{row['image_id']}: {refusal}")
            else:
                rows.append(row)
                decoded.append(image)
        if not rows:
            continue
        if stored:
            stored.begin(rows)
        ids = [row["image_id"] for row in rows]
        wanted = np.zeros((len(ids), len(cells)), bool)
        for i, image_id in enumerate(ids):
            wanted[i, wanted_of[image_id]] = True
        made = cell_pixels(sweep, size, ids, decoded, wanted, view=view, read_stored=stored)
        failures += made.failures
        for (i, cell), pixels in made.pixels.items():
            yield PictureKey(ids[i], *named[cell]), pixels


def picture_keys(image_ids: Iterable[str], changes: pd.DataFrame) -> list[PictureKey]:
    """Return the keys of undegraded images and of images in cells.

    Parameters
    ----------
    image_ids
        The images that are shown undegraded.
    changes
        A row for each degraded picture, with the columns image_id, degradation, level and trial.
    """
    degraded = changes[["image_id", *CELL]].itertuples(index=False, name=None)
    return [PictureKey(image_id, NONE, 0.0, 0) for image_id in image_ids] + [
        PictureKey(str(image_id), str(name), float(level), int(trial)) for image_id, name, level, trial in degraded
    ]
