"""The data set `parquet`: files with a column of images and one of labels, as Hugging Face stores them."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from cnnsens_bench.datasets.base import dataset
from cnnsens_bench.datasets.folder import checked_name
from cnnsens_bench.datasets.hugging_face import parquet_files
from cnnsens_bench.datasets.listing import LeftOut
from cnnsens_bench.datasets.sample_table import repeated_id
from cnnsens_bench.datasets.samples import IN_MEMORY, Samples, cached_samples, make_samples
from cnnsens_bench.datasets.shards import FILES_AT_ONCE, class_list, files_of, label_codes, splits_of, version_of
from cnnsens_bench.utils.errors import UserError, first_line
from cnnsens_bench.utils.reading import is_uri, patiently
from cnnsens_bench.utils.storage import StoragePath

SOURCE = "it is made of .parquet files with the columns image (bytes, or a struct with bytes) and label"
LARGE_GROUP = 256 * 1024 * 1024


@dataclass(frozen=True)
class _File:
    """What is known of a Parquet file without its images.

    `kept` has its columns, as `_columns` returns them, where files are small; `labels` has each label that occurs.
    """

    uri: str
    rows: int
    labels: pa.Array
    has_ids: bool
    names: list[str] | None
    size: int
    largest_group: int
    kept: pa.Table | None


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
    folder = root if hf is None else parquet_files(hf, config)
    found = files_of("parquet", folder, files, "files", ".parquet", SOURCE)
    beside = [folder] if folder is not None and "{" not in str(folder) and folder.suffix != ".parquet" else []
    listed = class_list("parquet", classes, beside)
    columns = _Columns(image, label, ids)
    splits = splits_of(found, folder)
    version = version_of(found, [name, dataclasses.astuple(columns), classes, listed, splits])
    return cached_samples(version, lambda: _samples(name, found, columns, splits, classes is not None, listed))


@dataclass(frozen=True)
class _Columns:
    """The columns of the images and labels, and what ids are made of, as the options of the data set name them."""

    image: str
    label: str
    ids: str | None

    @property
    def id_column(self) -> str | None:
        """The column of the ids; None where they are paths or numbers of rows."""
        return None if self.ids in (None, "path", "row") else self.ids


def _samples(
    name: str,
    files: list[str],
    columns: _Columns,
    splits: tuple[list[str], bool],
    given: bool,
    listed: tuple[list[str] | None, tuple[str, ...]],
) -> Samples:
    """Return the samples of files. `listed` are the names of a list of classes, which the user has `given`, or not."""
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        read = list(pool.map(lambda file: _read(file, columns, IN_MEMORY // len(files)), files))
    left_out = LeftOut()
    image_ids, notes = _ids(read, columns)
    tables = functools.partial(_tables, read, columns, splits[0], image_ids, left_out)
    labels = pd.concat([_known(one.labels.to_pandas()) for one in read], ignore_index=True)
    if labels.empty:
        raise UserError(f"dataset 'parquet': no image of {files[0]} has a label: name another column or split")
    names, named = listed if given else _stored_names(read) or listed
    codes = label_codes("parquet", labels, names, tables)
    content = hashlib.sha256(repr([(one.size, one.rows) for one in read]).encode()).hexdigest()
    large = max(one.largest_group for one in read)
    slow = (f"row groups of {large >> 20} MB are slow to read: write them with row_group_size=100",)
    rows = (codes.complete(table, found) for table, found in tables())
    samples = make_samples(name, codes.classes, rows, has_split=splits[1], content=content)
    notes = (*named, *notes, *left_out.sentences(), *(slow if large > LARGE_GROUP else ()))
    return dataclasses.replace(samples, notes=notes)


def _read(file: str, columns: _Columns, most_kept: int) -> _File:
    """Return what is known of a file, with its columns where it has no more than some rows."""
    content = _opened(file, functools.partial(_facts, file, columns=columns))
    return content if content.rows <= most_kept else dataclasses.replace(content, kept=None)


def _columns(file: _File, columns: _Columns) -> pa.Table:
    """Return the columns `label` and, where the file has ids, `id` of a file."""
    return file.kept if file.kept is not None else _opened(file.uri, functools.partial(_read_columns, columns=columns))


def _opened(file: str, use: Callable[[pq.ParquetFile], Any]) -> Any:
    """Return what `use` makes of a file. Raise `UserError` where it is absent or damaged."""
    try:
        return patiently(file, lambda: _use_once(file, use))
    except (UserError, MemoryError):
        raise
    except FileNotFoundError:
        raise UserError(
            f"dataset 'parquet': the file {file} does not exist: mend the pattern, or get it again"
        ) from None
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"dataset 'parquet': {file} cannot be read ({first_line(error, 200)}): get it again") from None


def _use_once(file: str, use: Callable[[pq.ParquetFile], Any]) -> Any:
    source: Any = file
    if is_uri(file):
        found = UPath(file)
        found.fs.invalidate_cache()
        source = found.fs.open(found.path, "rb", block_size=1024 * 1024)
    try:
        with pq.ParquetFile(source) as content:
            return use(content)
    except OSError as error:
        if type(error) is OSError and error.errno is None:  # pyarrow says so that a file is damaged
            raise ValueError(str(error)) from error
        raise


def _facts(file: str, content: pq.ParquetFile, columns: _Columns) -> _File:
    image, label, id_column = columns.image, columns.label, columns.id_column
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
    table = _read_columns(content, columns)
    footer = content.metadata
    groups = [footer.row_group(i).total_byte_size for i in range(footer.num_row_groups)]
    labels, names = table["label"].unique(), _class_names(schema, label)
    has_ids = "id" in table.column_names
    return _File(file, table.num_rows, labels, has_ids, names, sum(groups), max(groups, default=0), table)


def _read_columns(content: pq.ParquetFile, columns: _Columns) -> pa.Table:
    """Return the labels and, where there are some, the ids of a file's rows."""
    image, id_column = columns.image, columns.id_column
    kind = content.schema_arrow.field(image).type
    paths = id_column
    if id_column is None and pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
        paths = f"{image}.path"
    table = content.read(columns=[columns.label, *([paths] if paths else [])])
    labels = table[columns.label]
    if pa.types.is_dictionary(labels.type):
        labels = labels.cast(labels.type.value_type)
    found = {"label": labels}
    if paths:
        found["id"] = table[id_column] if id_column else table[image].combine_chunks().field("path")
    return pa.table(found)


def _is_large(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_binary(kind))


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Return the names of the classes that Hugging Face has stored with a schema."""
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    return [str(one) for one in names] if isinstance(names, list) and names else None


def _stored_names(read: Sequence[_File]) -> tuple[list[str], tuple[str, ...]] | None:
    """Return the names of the classes that are stored in the files, with nothing to note; None where none are."""
    stored = [one.names for one in read if one.names]
    if not stored:
        return None
    if other := next((one for one in read if one.names and one.names != stored[0]), None):
        raise UserError(f"dataset 'parquet': {other.uri} has other classes than {read[0].uri}: name files of one set")
    return stored[0], ()


def _known(labels: pd.Series) -> pd.Series:
    """Return those labels that are known: Hugging Face has -1 where a test image's label is a secret."""
    return labels[labels.notna() & (labels != -1)]


def _tables(
    read: Sequence[_File], columns: _Columns, splits: list[str], use_ids: bool, left_out: LeftOut
) -> Iterator[tuple[pd.DataFrame, pd.Series]]:
    """Yield the images of each file that have a label, and their labels; count the others."""
    left_out.counts["unlabelled"].clear()
    column = "" if columns.image == "image" else f"{columns.image}:"
    for file, split in zip(read, splits, strict=True):
        table = _columns(file, columns)
        labels, rows = table["label"].to_pandas(), pd.Series(np.arange(file.rows)).astype(str)
        ids = table["id"].to_pandas().astype(str) if use_ids else _row_ids(file, rows, len(read))
        images = pd.DataFrame({"uri": f"{file.uri}#{column}" + rows, "split": split, "image_id": ids})
        known = labels.index.isin(_known(labels).index)
        left_out.add_all("unlabelled", images.loc[~known, "image_id"])
        yield images[known].reset_index(drop=True), labels[known].reset_index(drop=True)


def _row_ids(file: _File, rows: pd.Series, files: int) -> pd.Series:
    """Return the numbers of a file's rows as ids, with the file's name where there are several."""
    return rows if files == 1 else f"{_stem(file)}/" + rows


def _stem(file: _File) -> str:
    return file.uri.rpartition("/")[2].removesuffix(".parquet")


def _ids(read: Sequence[_File], columns: _Columns) -> tuple[bool, tuple[str, ...]]:
    """Return whether the column `id` has the images' ids, and a note where it is not clear of itself what they are."""
    ids = columns.ids
    if ids != "row" and all(one.has_ids for one in read):
        empty = any(_columns(one, columns)["id"].null_count for one in read)
        unique = not empty and repeated_id(lambda: (_columns(one, columns)["id"].to_pandas() for one in read)) is None
        if unique or ids is not None:
            if not unique:
                problem = "is empty" if empty else "is the same for several images"
                raise UserError(f"dataset 'parquet': {ids} {problem}: take dataset.options.ids=row")
            return True, ()
    elif ids not in (None, "row"):
        raise UserError("dataset 'parquet': the images have no path: take dataset.options.ids=row")
    if len({_stem(one) for one in read}) < len(read):
        raise UserError("dataset 'parquet': two files have the same name: name an id column by dataset.options.ids")
    return False, () if ids else ("image ids are the numbers of rows, since not every image has a path of its own",)
