"""Images and labels that a caller of the Python interface hands over, as samples."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from cnnsens_bench.datasets import Samples, datasets
from cnnsens_bench.datasets.sample_table import COLUMNS, MemoryTable
from cnnsens_bench.datasets.samples import make_samples
from cnnsens_bench.images import write_png
from cnnsens_bench.images.memory import decoded_in_memory
from cnnsens_bench.models.classes import OutputClasses
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near
from cnnsens_bench.utils.storage import require_writable

ARRAYS, TABLE = "arrays", "table"
"""The names of data sets that have none: images in memory, and a table of samples."""
SHARDS = {".tar": "webdataset", ".parquet": "parquet"}
"""The data sets that files of some endings are read by; a pattern with braces may stand for several."""


def named_dataset(data: Any) -> dict[str, Any] | None:
    """Return the section `dataset` of a config for a data set's name, a folder or shards, None for data in memory.

    Raises
    ------
    UserError
        For a text that is neither.
    """
    if not isinstance(data, str | os.PathLike):
        return None
    text = os.fspath(data)
    if text in datasets:
        return {"name": text}
    for ending, name in SHARDS.items():
        if text.endswith(ending):
            return {"name": name, "root": text}
    if "://" in text or Path(text).expanduser().is_dir():
        return {"name": "folder", "root": text}
    raise UserError(f"data='{text}' is neither a folder nor a data set{near(text, datasets)}")


def samples_of(data: Any, head: OutputClasses | None, cache: Path, classes: Sequence[str] | None = None) -> Samples:
    """Return data in memory as samples.

    Parameters
    ----------
    data
        `Samples`; a table with a row for each image, whose columns are those of `make_samples`, `uri` and `label` at
        least; or images and labels: (N, H, W, 3) uint8 or a list of Pillow's images or arrays, and a list of N classes.
    head
        What the outputs of the network mean: labels that are whole numbers are its outputs. None where it is unknown.
    cache
        The folder below which images in memory are written as PNGs, each named by its content.
    classes
        The names of the classes, by label.

    Raises
    ------
    UserError
        If it is anything else, or something is missing.
    """
    if isinstance(data, Samples):
        return data
    if isinstance(data, pd.DataFrame):
        return _from_table(data, head, classes)
    if isinstance(data, tuple | list) and len(data) == 2 and _length(data[0]) == _length(data[1]) is not None:
        pictures, labels = data[0], _listed_labels(data[1])
        path = next((picture for picture in pictures if isinstance(picture, str | os.PathLike)), None)
        if path is not None:
            raise UserError(
                f"'{os.fspath(path)}' is the path of an image: give paths in a table, as "
                "pandas.DataFrame({'uri': paths, 'label': labels})"
            )
        names = [_stored(picture, cache / "images") for picture in pictures]
        width = len(str(max(0, len(names) - 1)))
        # The id has the content, so that other images under the same numbers are other images in a database.
        ids = [f"{number:0{width}}-{Path(name).stem[:12]}" for number, name in enumerate(names)]
        table = pd.DataFrame({"image_id": ids, "uri": names, "label": labels})
        return _labelled(ARRAYS, table, head, classes)
    raise UserError(
        f"data is a {type(data).__name__} that is not understood: give a data set's name, a folder, Samples, a table "
        "with the columns uri and label, or (images, labels) of equal lengths"
    )


def _length(values: Any) -> int | None:
    """Return the length of a list, an array or the like, None for something without one."""
    try:
        return len(values)
    except TypeError:
        return None


def _listed_labels(labels: Any) -> list[Any]:
    """Return labels as a list. Raise `UserError` unless there is one number or name for each image."""
    values = labels.detach().cpu() if isinstance(labels, Tensor) else labels
    if isinstance(values, str) or any(_length(value) is not None and not isinstance(value, str) for value in values):
        raise UserError(
            "labels are a number or a name for each image, not a row of numbers for each: give their argmax"
        )
    return list(np.asarray(values).tolist())


def _stored(picture: Any, folder: Path) -> str:
    """Write an image in memory as a lossless PNG named by its content, unless it is there, and return its path."""
    pixels = decoded_in_memory(picture).pixels
    digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()[:32]
    path = folder / f"{digest}.png"
    if not path.is_file():
        require_writable(folder, "the cache folder", "cache=… or CNNSENS_CACHE")
        partial = folder / f"{digest}-{os.getpid()}-{os.urandom(4).hex()}.partial"
        write_png(partial, pixels)
        partial.replace(path)
    return str(path)


def _from_table(table: pd.DataFrame, head: OutputClasses | None, classes: Sequence[str] | None) -> Samples:
    for column in ("uri", "label"):
        if column not in table:
            has = ", ".join(map(str, table.columns))
            raise UserError(f"the table of samples has no column '{column}' (it has {has}): uri and label are needed")
    uris = [uri if "://" in uri else str(Path(uri).expanduser().absolute()) for uri in map(str, table["uri"])]
    known = table.assign(uri=uris, **({} if "image_id" in table else {"image_id": table["uri"].astype(str)}))
    if "class_name" in table and classes is None:
        named = known.groupby("label")["class_name"].first()
        classes = (
            list(map(str, named.reindex(range(len(named))))) if pd.api.types.is_numeric_dtype(known["label"]) else None
        )
    return _labelled(TABLE, known.reset_index(drop=True), head, classes)


def _labelled(name: str, table: pd.DataFrame, head: OutputClasses | None, classes: Sequence[str] | None) -> Samples:
    """Return the samples of a table whose labels are outputs of the network or names of classes."""
    labels = table["label"]
    if len(table) == 0:
        raise UserError("data has no images")
    if not pd.api.types.is_numeric_dtype(labels):
        texts = labels.astype(str)
        names = list(classes) if classes is not None else sorted(texts.unique())
        absent = sorted(set(texts) - set(names))
        if absent:
            raise UserError(f"label '{absent[0]}' is none of the classes{near(absent[0], names)}")
        labels = texts.map({text: label for label, text in enumerate(names)})
    else:
        names = list(map(str, classes)) if classes is not None else _output_names(head, int(labels.max()) + 1)
    table = table.assign(label=labels, class_name=[names[int(i)] if 0 <= i < len(names) else "" for i in labels])
    if "split" not in table:
        table["split"] = "test"
    present = sorted(set(table["label"]))
    wrong = [label for label in present if not (float(label).is_integer() and 0 <= label < len(names))]
    if wrong:
        raise UserError(f"label {wrong[0]} is none of the {len(names)} classes: labels are whole numbers from 0")
    # Classes without an image are fine here, since labels are outputs of the network.
    checked = make_samples(name, [names[int(i)] for i in present], _renumbered(table, present))
    whole = checked.table.assign(label=[present[i] for i in checked.table["label"]]).astype({"label": "int64"})
    return Samples(name, tuple(names), MemoryTable(whole[list(COLUMNS)]))


def _renumbered(table: pd.DataFrame, present: list[Any]) -> pd.DataFrame:
    return table.assign(label=table["label"].map({label: i for i, label in enumerate(present)}))


def _output_names(head: OutputClasses | None, least: int) -> list[str]:
    """Return the names of a network's outputs, each once: its own, else their WordNet ids, else their numbers."""
    if head is None:
        return list(map(str, range(least)))
    for names in (head.names, head.wnids):
        if names and len(set(names)) == len(names):
            return list(names)
    return list(map(str, range(head.count)))
