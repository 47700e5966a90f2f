"""The data set `parquet`: files with a column of images and one of labels, as Hugging Face stores them."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from cnnsens_bench.datasets.base import Samples, dataset, make_samples
from cnnsens_bench.datasets.folder import checked_name
from cnnsens_bench.datasets.hugging_face import parquet_files
from cnnsens_bench.datasets.listing import LeftOut
from cnnsens_bench.datasets.shards import class_list, files_of, splits_of, with_classes
from cnnsens_bench.utils.errors import UserError, first_line
from cnnsens_bench.utils.reading import is_uri, patiently
from cnnsens_bench.utils.storage import StoragePath

SOURCE = "it is made of .parquet files with the columns image (bytes, or a struct with bytes) and label"
FILES_AT_ONCE = 8
LARGE_GROUP = 256 * 1024 * 1024


@dataclass(frozen=True)
class _File:
    """What is read of a Parquet file: all but its images."""

    labels: pa.Array
    paths: pa.Array | None
    names: list[str] | None
    size: int
    largest_group: int


@dataset("parquet", folder=None, source=SOURCE)
def parquet(
    root: StoragePath | None,
    *,
    files: Any = None,
    hf: str | None = None,
    config: str | None = None,
    image: str = "image",
    label: str = "label",
    classes: Any = None,
    ids: str | None = None,
    name: str = "parquet",
) -> Samples:
    """Return the images of Parquet files. Their ids are the `path` that is stored with each, else their rows' numbers.

    Files are for training or testing where folders, or the beginnings of their names, are `train` and `test`, `val` or
    `validation`; else all images are tested. Rows without a label are left out, and a note counts them.

    Parameters
    ----------
    root
        A folder with Parquet files, one file, or a pattern with braces; a path or a URI.
    files
        A pattern with braces, or a list of patterns, below the root or absolute. The default is every `.parquet` file.
    hf, config
        The name of a data set on the Hugging Face hub, or a folder, which the package `datasets` prepares as Parquet
        files in the cache folder, and its configuration.
    image
        The column of the images.
    label
        The column of the labels: numbers, or names.
    classes
        The names of the classes by number: a list, or a text file with a name a line. The default is what Hugging Face
        stores in the file, else the file `classnames.txt` beside the files.
    ids
        `path`, `row`, or a column. The default is `path` where every image has one of its own, else `row`.
    name
        The name of the data set in the results.

    Raises
    ------
    UserError
        If a file is absent or damaged, lacks a column, or a label is no class.
    """
    name = checked_name("parquet", name)
    folder = root
    if hf is not None:
        folder = parquet_files(hf, config)
    found = files_of("parquet", folder, files, "files", ".parquet", SOURCE)
    id_column = None if ids in (None, "path", "row") else ids
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        read = list(pool.map(lambda file: _read(file, image, label, id_column), found))
    splits, has_split = splits_of(found, folder)
    number = np.repeat(np.arange(len(found)), [len(one.labels) for one in read])
    row = np.concatenate([np.arange(len(one.labels)) for one in read])
    labels = pd.concat([one.labels.to_pandas() for one in read], ignore_index=True)
    column = "" if image == "image" else f"{image}:"
    uris = np.asarray(found, object)[number] + f"#{column}" + pd.Series(row).astype(str)
    table = pd.DataFrame({"uri": uris, "split": np.asarray(splits, object)[number]})
    table["image_id"], notes = _ids(found, read, number, row, ids)
    left_out = LeftOut()
    labelled = labels.notna() & (labels != -1)  # Hugging Face has -1 where a test image's label is a secret
    left_out.add_all("unlabelled", table.loc[~labelled, "image_id"])
    if not labelled.any():
        raise UserError(f"dataset 'parquet': no image of {found[0]} has a label: name another column or split")
    table, labels = table[labelled].reset_index(drop=True), labels[labelled].reset_index(drop=True)
    names, named = _classes(found, read, classes, folder)
    table, present = with_classes("parquet", table, labels, names)
    content = hashlib.sha256(repr([(one.size, len(one.labels)) for one in read]).encode()).hexdigest()
    large = max(one.largest_group for one in read)
    slow = (f"row groups of {large >> 20} MB are slow to read: write them with row_group_size=100",)
    notes = (*named, *notes, *left_out.sentences(), *(slow if large > LARGE_GROUP else ()))
    return make_samples(name, present, table, has_split=has_split, notes=notes, content=content)


def _read(file: str, image: str, label: str, id_column: str | None) -> _File:
    try:
        return patiently(file, lambda: _read_once(file, image, label, id_column))
    except (UserError, MemoryError):
        raise
    except FileNotFoundError:
        raise UserError(
            f"dataset 'parquet': the file {file} does not exist: mend the pattern, or get it again"
        ) from None
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"dataset 'parquet': {file} cannot be read ({first_line(error, 200)}): get it again") from None


def _read_once(file: str, image: str, label: str, id_column: str | None) -> _File:
    source: Any = file
    if is_uri(file):
        found = UPath(file)
        found.fs.invalidate_cache()
        source = found.fs.open(found.path, "rb", block_size=1024 * 1024)
    try:
        with pq.ParquetFile(source) as content:
            return _content(file, content, image, label, id_column)
    except OSError as error:
        if type(error) is OSError and error.errno is None:  # pyarrow says so that a file is damaged
            raise ValueError(str(error)) from error
        raise


def _content(file: str, content: pq.ParquetFile, image: str, label: str, id_column: str | None) -> _File:
    schema = content.schema_arrow
    for column, option in ((image, "image"), (label, "label"), (id_column, "ids")):
        if column is not None and column not in schema.names:
            raise UserError(
                f"dataset 'parquet': {file} has no column '{column}' (it has {', '.join(schema.names)}): "
                f"set dataset.options.{option}"
            )
    kind = schema.field(image).type
    is_struct = pa.types.is_struct(kind)
    if not (kind.get_field_index("bytes") >= 0 if is_struct else pa.types.is_binary(kind) or _is_large(kind)):
        raise UserError(
            f"dataset 'parquet': the column '{image}' of {file} holds {str(kind)[:60]}: it must be bytes, or a struct "
            "with bytes; set dataset.options.image"
        )
    if pa.types.is_nested(schema.field(label).type) or pa.types.is_floating(schema.field(label).type):
        raise UserError(
            f"dataset 'parquet': the column '{label}' of {file} holds {schema.field(label).type}: labels are whole "
            "numbers or names; set dataset.options.label"
        )
    has_path = is_struct and kind.get_field_index("path") >= 0
    paths = f"{image}.path" if has_path and id_column is None else id_column
    table = content.read(columns=[label, *([paths] if paths else [])])
    found = table[id_column or image] if paths else None
    if found is not None and id_column is None:
        found = found.combine_chunks().field("path")
    footer = content.metadata
    groups = [footer.row_group(i).total_byte_size for i in range(footer.num_row_groups)]
    leaf = table[label]
    if pa.types.is_dictionary(leaf.type):
        leaf = leaf.cast(leaf.type.value_type)
    return _File(leaf, found, _class_names(schema, label), sum(groups), max(groups, default=0))


def _is_large(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_binary(kind))


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Return the names of the classes that Hugging Face has stored with a schema."""
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    return [str(one) for one in names] if isinstance(names, list) and names else None


def _classes(
    files: Sequence[str], read: Sequence[_File], given: Any, folder: StoragePath | None
) -> tuple[list[str] | None, tuple[str, ...]]:
    """Return the names of the classes by number: the user's, those in the files, or those in a list beside them."""
    if given is None and (stored := [one.names for one in read if one.names]):
        if other := next((i for i, one in enumerate(read) if one.names and one.names != stored[0]), None):
            raise UserError(
                f"dataset 'parquet': {files[other]} has other classes than {files[0]}: name files of one set"
            )
        return stored[0], ()
    beside = [folder] if folder is not None and "{" not in str(folder) and folder.suffix != ".parquet" else []
    return class_list("parquet", given, beside)


def _ids(
    files: Sequence[str], read: Sequence[_File], number: np.ndarray, row: np.ndarray, ids: str | None
) -> tuple[pd.Series, tuple[str, ...]]:
    """Return the ids of the images, and a note where it is not clear of itself what they are."""
    if ids != "row" and all(one.paths is not None for one in read):
        paths = pd.concat(
            [pd.Series(one.paths.to_pandas()) for one in read if one.paths is not None], ignore_index=True
        )
        unique = paths.notna().all() and not paths.duplicated().any()
        if unique or ids is not None:
            if not unique:
                problem = "is empty" if paths.isna().any() else "is the same for several images"
                raise UserError(f"dataset 'parquet': {ids} {problem}: take dataset.options.ids=row")
            return paths.astype(str), ()
    elif ids not in (None, "row"):
        raise UserError("dataset 'parquet': the images have no path: take dataset.options.ids=row")
    rows = pd.Series(row).astype(str)
    if len(files) > 1:
        stems = [file.rpartition("/")[2].removesuffix(".parquet") for file in files]
        rows = np.asarray(stems, object)[number] + "/" + rows
        if rows.duplicated().any():
            raise UserError("dataset 'parquet': two files have the same name: name an id column by dataset.options.ids")
    return rows, () if ids else ("image ids are the numbers of rows, since not every image has a path of its own",)
