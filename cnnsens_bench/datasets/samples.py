"""The samples of a data set: its classes and the table of its images, which `make_samples` checks and completes."""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cnnsens_bench.datasets.sample_file import read_table, sample_folder, write_table
from cnnsens_bench.datasets.sample_table import (
    BOX,
    COLUMNS,
    FRAME_ROWS,
    SPLITS,
    FileTable,
    ImageSelection,
    MemoryTable,
    SampleTable,
    repeated_id,
    texts_or_none,
)
from cnnsens_bench.utils.atomic import write_atomically
from cnnsens_bench.utils.errors import UserError

MASK_RANGE = (128, 255)
IN_MEMORY = 250_000
"""The most rows of a table that stays in memory; a larger one is written to the cache folder."""
VERSION = 1
"""The version of `cached_samples`, which is part of the names of its files."""


@dataclass(frozen=True)
class Samples:
    """The samples of a data set: what is known of each image, without its pixels.

    Attributes
    ----------
    name : str
        The name of the data set, as the tables of results show it.
    classes : tuple of str
        The names of the classes. `classes[label]` is the class of a label.
    rows : SampleTable
        One row for each image, in memory or in a file, with the columns `COLUMNS`:

        - `image_id` (text): unique, and the same on every machine, because random draws depend on it.
        - `split` (text): `train`, `val` or `test`.
        - `uri` (text): the path or URI of the image file.
        - `label` (int64): the class, from 0.
        - `class_name` (text): the name of the class.
        - `box_x`, `box_y`, `box_w`, `box_h` (float64): the left, top, width and height of the object's box in pixels
          of the upright image, from 0; NaN where there is no box.
        - `mask_uri` (text or None): the path or URI of a mask of the object, which is as large as the image.
    mask_range : tuple of int
        The lowest and the highest gray value that mean object in the masks.
    has_split : bool
        Whether the data set says which images are for training. Where it does not, the splits in the table are a
        proposal, and all images are tested in a run that trains nothing.
    notes : tuple of str
        What was left out or guessed while the data set was read, in sentences that a run says.
    content : str
        A digest of what is known of the images without decoding them, such as their sizes; empty where
        nothing is. It is part of the fingerprint, so that a file replaced by another of its name is noticed.
    """

    name: str
    classes: tuple[str, ...]
    rows: SampleTable
    mask_range: tuple[int, int] = MASK_RANGE
    has_split: bool = True
    notes: tuple[str, ...] = ()
    content: str = ""

    @property
    def table(self) -> pd.DataFrame:
        """All rows at once. A sweep reads the frames of `rows` instead, since there may be millions."""
        if isinstance(self.rows, MemoryTable):
            return self.rows.frame
        return pd.concat(list(self.rows.frames()), ignore_index=True)

    def with_table(self, table: pd.DataFrame) -> "Samples":
        """Return the samples with other rows, which have the same columns."""
        return dataclasses.replace(self, rows=MemoryTable(table))

    def all_test(self) -> "Samples":
        """Return the samples with every image in the split `test`."""
        return dataclasses.replace(self, rows=self.rows.all_test(), has_split=True)

    def select(self, *splits: str) -> ImageSelection:
        """Return the images of the given splits in the order of the table, without reading them."""
        return ImageSelection(self.rows, splits)

    def split(self, *names: str) -> pd.DataFrame:
        """Return all rows of the given splits at once, in the order of the table, with a fresh index."""
        return self.select(*names).load()

    def fingerprint(self) -> str:
        """Return a SHA-256 of the classes and of the table without its paths, which is equal on every machine."""
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        return self.rows.digest(_suffix(self.classes, self.content))


def make_samples(
    name: str,
    classes: Sequence[str],
    rows: pd.DataFrame | Iterable[pd.DataFrame],
    mask_range: tuple[int, int] = MASK_RANGE,
    has_split: bool = True,
    notes: tuple[str, ...] = (),
    content: str = "",
) -> Samples:
    """Check the rows of a data set, complete their columns, and return them as `Samples`.

    Parameters
    ----------
    name
        The name of the data set.
    classes
        The names of the classes by label.
    rows
        A row for each image with the columns `image_id`, `split`, `uri` and `label`, and optionally the other columns
        of `Samples.rows`. Further columns are dropped. Millions of rows are best given as an iterable of tables,
        such as a generator: they are written to a file of the cache folder one after the other, so that no more than
        one of them is in memory, beside eight bytes for each row.
    mask_range
        The lowest and the highest gray value that mean object in the masks.
    has_split, notes, content
        As in `Samples`.

    Raises
    ------
    UserError
        If there are no rows, an image id occurs twice, a label is not a class, a class has no images, a split is
        unknown, or the cache folder is needed and cannot be written.
    """
    names = tuple(classes)
    first, rest = _first_rows(_cut([rows] if isinstance(rows, pd.DataFrame) else rows))
    table: SampleTable
    if rest is None:
        _require_images(name, len(first))
        _require_unique(name, first["image_id"])
        table = MemoryTable(_completed(name, names, first))
    else:
        frames = (_completed(name, names, frame) for frame in _cut(itertools.chain([first], rest)))
        table = _in_file(name, frames, _suffix(names, content), has_split)
    _require_all_classes(name, names, table.counts)
    return Samples(name, names, table, mask_range, has_split, notes, content)


def cached_samples(version: str | None, build: Callable[[], Samples]) -> Samples:
    """Return the samples that were built before, if their version is the same, else build them.

    Parameters
    ----------
    version
        All that decides what the samples are, such as the names, sizes and times of a data set's files, and its
        options. None where that cannot be told.
    build
        Makes the samples.

    Raises
    ------
    UserError
        As `build` does.
    """
    if version is None:
        return build()
    entry = sample_folder() / f"{hashlib.sha256(f'{VERSION} {version}'.encode()).hexdigest()[:32]}.json"
    try:
        facts = json.loads(entry.read_text("utf-8"))
        rows = read_table(sample_folder() / facts.pop("rows"))
        for key in ("classes", "mask_range", "notes"):
            facts[key] = tuple(facts[key])
        return Samples(rows=rows, **facts)
    except (OSError, ValueError, KeyError, TypeError):  # it is not there, or was damaged
        samples = build()
    if isinstance(samples.rows, FileTable):  # a small table is built again at once
        facts = {field.name: getattr(samples, field.name) for field in dataclasses.fields(samples)}
        write_atomically(entry, json.dumps(facts | {"rows": samples.rows.path.name}))
    return samples


def _suffix(classes: tuple[str, ...], content: str) -> bytes:
    """Return what follows the rows in a fingerprint."""
    return repr(classes).encode() + content.encode()


def _cut(tables: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Yield the rows of tables, `FRAME_ROWS` at a time."""
    held: list[pd.DataFrame] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= FRAME_ROWS:
            together = pd.concat(held, ignore_index=True) if len(held) > 1 else table
            full = len(together) // FRAME_ROWS * FRAME_ROWS
            yield from (together.iloc[start : start + FRAME_ROWS] for start in range(0, full, FRAME_ROWS))
            held = [together.iloc[full:]] if full < len(together) else []
    if held:
        yield pd.concat(held, ignore_index=True)


def _first_rows(frames: Iterator[pd.DataFrame]) -> tuple[pd.DataFrame, Iterator[pd.DataFrame] | None]:
    """Return the first rows, and what yields the rest; all of them and None where they can stay in memory."""
    held: list[pd.DataFrame] = []
    while sum(map(len, held)) <= IN_MEMORY:
        if (frame := next(frames, None)) is None:
            return (pd.concat(held, ignore_index=True) if held else pd.DataFrame()), None
        held.append(frame)
    return pd.concat(held, ignore_index=True), frames


def _in_file(name: str, frames: Iterator[pd.DataFrame], suffix: bytes, has_split: bool) -> FileTable:
    """Return the table of complete rows in a file. Raise `UserError` where an id occurs twice."""
    table = write_table(frames, suffix, has_split)
    twice = repeated_id(lambda: (frame["image_id"] for frame in table.frames(("image_id",))))
    if twice is not None:
        table.path.unlink()
        raise UserError(f"dataset '{name}' lists image '{twice}' twice: image ids must be unique")
    return table


def _completed(name: str, classes: Sequence[str], rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the columns `COLUMNS`, once their labels and splits are checked."""
    absent = {column: float("nan") for column in (*BOX, "mask_uri") if column not in rows}
    table = rows.assign(**absent).astype(dict.fromkeys(BOX, "float64"))
    table["mask_uri"] = texts_or_none(table["mask_uri"])
    _check_labels(name, classes, table)
    table["label"] = table["label"].astype("int64")
    if "class_name" not in table:
        table["class_name"] = np.asarray(classes, object)[table["label"]]
    if not table["split"].isin(SPLITS).all():
        wrong = table.loc[~table["split"].isin(SPLITS), "image_id"].iloc[0]
        raise UserError(f"dataset '{name}': image '{wrong}' is in no split: use one of {', '.join(SPLITS)}")
    table["image_id"] = table["image_id"].astype(str)
    return table[list(COLUMNS)]


def _require_images(name: str, count: int) -> None:
    if not count:
        raise UserError(f"dataset '{name}' has no images: check its root and its lists")


def _require_unique(name: str, image_ids: pd.Series) -> None:
    if image_ids.duplicated().any():
        twice = image_ids[image_ids.duplicated()].iloc[0]
        raise UserError(f"dataset '{name}' lists image '{twice}' twice: image ids must be unique")


def _check_labels(name: str, classes: Sequence[str], table: pd.DataFrame) -> None:
    """Raise `UserError` unless the labels are whole numbers from 0 to the number of classes less 1."""
    outside = ~table["label"].between(0, len(classes) - 1)
    if outside.any():
        wrong = table.loc[outside, "image_id"].iloc[0]
        raise UserError(f"dataset '{name}': image '{wrong}' has a label outside its {len(classes)} classes")
    if not (table["label"] == table["label"].round()).all():
        raise UserError(f"dataset '{name}' has labels that are not whole numbers: number its classes 0, 1, 2, …")


def _require_all_classes(name: str, classes: Sequence[str], counts: pd.Series) -> None:
    """Raise `UserError` where a class has no images."""
    absent = sorted(set(range(len(classes))) - set(counts.index.get_level_values("label")))
    if absent:
        raise UserError(
            f"dataset '{name}': class '{classes[absent[0]]}' (label {absent[0]}) has no images: leave it out of the "
            "classes, and number the others 0, 1, 2, … without gaps"
        )
