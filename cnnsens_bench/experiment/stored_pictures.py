"""Finds the pre-made pictures that a config's `stored:` degradations show, and checks that they fit the data set."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cnnsens_bench.config.schema import Config
from cnnsens_bench.datasets import Samples, datasets
from cnnsens_bench.degradations import Degradation, parse_degradation
from cnnsens_bench.degradations.expressions import OTHERWISE
from cnnsens_bench.degradations.stored import PREFIX, stored_degradation
from cnnsens_bench.engine.sweep import Condition
from cnnsens_bench.experiment.camera_mix import with_camera_mixes
from cnnsens_bench.images.stored import LAYOUT, StoredReader, StoredSet, find_stored
from cnnsens_bench.utils.errors import ImageError, UserError
from cnnsens_bench.utils.registry import near
from cnnsens_bench.utils.storage import storage_path

FOLDERS = {"cifar10": "CIFAR-10-C", "cifar100": "CIFAR-100-C"}
"""The official folders of pre-made pictures by data set; of all others it is `IMAGENET_C`."""
IMAGENET_C = "imagenet-c"
PRE_MADE = {"imagenet_c": "imagenet", "cifar10_c": "cifar10", "cifar100_c": "cifar100"}
"""The data sets of pre-made pictures, and those of their undegraded images."""
TRIED = 8
"""How many images are looked up before a run, to see whether the pictures are of these images at all."""


class SettledPictures(NamedTuple):
    """A config without `otherwise`, the pre-made set that it needs, and what a run says about both.

    `stored` is None where no degradation shows pre-made pictures.
    """

    config: Config
    stored: StoredSet | None
    notes: tuple[str, ...]

    @property
    def variants(self) -> Mapping[str, Degradation]:
        """The corruptions of the set as degradations with the severities that are there, by name."""
        corruptions = self.stored.corruptions if self.stored else ()
        return {PREFIX + one.name: stored_degradation(PREFIX + one.name, one.severities) for one in corruptions}


def settle_pictures(config: Config) -> SettledPictures:
    """Find the pre-made pictures that a config asks for, and decide where it names what is taken otherwise.

    Parameters
    ----------
    config
        The config. Its key `stored_root` names the folder; else it is the official one below `data_root`.

    Raises
    ------
    UserError
        If pictures are asked for, and there are none.
    """
    config = with_camera_mixes(config)
    entries = config.degradations
    if not any(map(_shows_pictures, entries)):
        return SettledPictures(config, None, _without_undegraded(config))
    root = config.stored_root
    folder = FOLDERS.get(config.dataset.name, IMAGENET_C)
    if root is None and config.data_root is not None:
        root = str(storage_path(config.data_root) / folder)
    stored = find_stored(storage_path(root).absolute()) if root else None
    if config.stored_root and not stored:
        raise UserError(f"stored_root: {root} has no pre-made pictures: expected {LAYOUT}")
    ways = f"stored_root=<folder>, or {folder} below data_root=<folder>"
    settled, notes = [], []
    for entry in entries:
        if not isinstance(entry, Mapping) or OTHERWISE not in entry:
            if _shows_pictures(entry) and not stored:
                raise UserError(f"degradations: '{_text(entry)}' needs pre-made pictures: name them with {ways}")
            settled.append(entry)
            continue
        other, rest = entry[OTHERWISE], {key: value for key, value in entry.items() if key != OTHERWISE}
        if not isinstance(other, str):
            raise UserError(f"degradations: otherwise of '{_text(entry)}' is {other!r}: it must be a name")
        if not stored:
            rest["name"] = other
            notes.append(f"{other} is computed, as there are no pre-made pictures ({ways})")
        settled.append(rest["name"] if list(rest) == ["name"] else rest)
    if stored:
        notes.append(f"stored: shows pre-made pictures, {stored.describe()}")
    config = dataclasses.replace(config, degradations=settled)
    return SettledPictures(config, stored, (*notes, *_without_undegraded(config)))


def check_pictures(stored: StoredSet | None, conditions: Iterable[Condition], samples: Samples) -> None:
    """Raise `UserError` where a condition shows pictures that are not there, or that are of other images.

    Parameters
    ----------
    stored
        The pre-made set; None where no condition shows one.
    conditions
        The conditions of a study.
    samples
        Its data set, with its split settled.
    """
    wanted = [
        (condition.degradation, picture)
        for condition in conditions
        for level in condition.levels
        if (picture := parse_degradation(condition.degradation).picture(level))
    ]
    if not wanted:
        return
    if stored is None:
        raise UserError(f"'{wanted[0][0]}' shows pre-made pictures, which only the key degradations can ask for")
    for name, picture in wanted:
        if picture.corruption not in stored.names:
            raise UserError(
                f"degradation '{name}': {stored.root} has no corruption '{picture.corruption}'"
                f"{near(picture.corruption, stored.names, limit=20)}"
            )
        severities = stored[picture.corruption].severities
        if picture.severity not in severities:
            raise UserError(
                f"degradation '{name}': {stored.root} has no severity {picture.severity} of '{picture.corruption}': it "
                f"has {', '.join(map(str, severities))}"
            )
    tested = samples.select("test")
    tried = tested.at(np.linspace(0, max(0, len(tested) - 1), TRIED).astype(int))
    _check_pairs(stored, wanted[0][1], tried, samples.name)


def _check_pairs(stored: StoredSet, picture: tuple[str, int], rows: pd.DataFrame, dataset: str) -> None:
    """Raise `UserError` where none of these images has a picture, or an image is one of the pictures itself."""
    reader, first = StoredReader(stored), ""
    for row in rows.to_dict("records"):
        if any(str(row["uri"]).startswith(f"{reader.root / one.path}") for one in stored.corruptions):
            raise UserError(
                f"dataset '{dataset}' is {stored.root} itself: stored: compares its pictures with the undegraded "
                "images, so name their data set, or leave stored: out, which gives accuracy only"
            )
        uris = reader.uris(row, *picture)
        first = first or (uris[0] if uris else f"a row for '{row['image_id']}' in {stored.root}")
        try:
            if reader.read(row, *picture):
                return
        except ImageError:  # it is there
            return
    if len(rows):
        raise UserError(
            f"stored: {stored.root} has no pictures of the images of '{dataset}': looked for {first} and "
            f"{len(rows) - 1} more; pictures are named like their images, in folders of the same classes"
        )


def without_data(error: UserError, settled: SettledPictures) -> UserError:
    """Return the error of a data set that cannot be loaded; where it is absent, with what its pictures give alone."""
    name, root, above = settled.config.dataset.name, settled.config.dataset.root, settled.config.data_root
    alone = next((other for other, of in PRE_MADE.items() if of == name), None)
    folder = datasets[name].folder if name in datasets else None
    root = root or (str(storage_path(above) / folder) if above and folder else None)
    if not settled.stored or not alone or (root and storage_path(root).is_dir()):
        return error
    return UserError(
        f"{error} (without the undegraded images there is accuracy only, of one corruption and severity a run: "
        f"dataset={alone} dataset.options.corruption=fog dataset.options.severity=3 degradations=[])"
    )


def _without_undegraded(config: Config) -> tuple[str, ...]:
    """Say that a data set of pre-made pictures alone has no undegraded images."""
    undegraded = PRE_MADE.get(config.dataset.name)
    if not undegraded:
        return ()
    return (
        f"dataset {config.dataset.name} has no undegraded images: there is accuracy only; label change, curves and mCE "
        f"need dataset={undegraded} with degradations=[stored:*]",
    )


def _shows_pictures(entry: Any) -> bool:
    """Return whether an entry of `degradations` shows pre-made pictures, or may."""
    if isinstance(entry, Mapping):
        return OTHERWISE in entry or _shows_pictures(entry.get("name"))
    if isinstance(entry, Sequence) and not isinstance(entry, str):
        return any(map(_shows_pictures, entry))
    return isinstance(entry, str) and PREFIX in entry


def _text(entry: Any) -> str:
    return str(entry.get("name")) if isinstance(entry, Mapping) else str(entry)
