"""Rows of Parquet files that hold images, read a row group at a time."""

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from cnnsens_bench.utils.errors import ImageError, StorageError
from cnnsens_bench.utils.reading import is_uri, patiently

T = TypeVar("T")

LARGEST_GROUP = 32 * 1024 * 1024
"""The bytes up to which a row group's images are held in memory; larger groups are read as a stream."""
STREAM_ROWS = 16
"""The rows that are held of a row group which is read as a stream."""


class ParquetRows:
    """The images of a Parquet file. It keeps the footer, and the images of the row group that was read last.

    Parameters
    ----------
    file
        The path or URI of the file.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._parquet = self._guarded(self._open)
        groups = [self._parquet.metadata.row_group(i).num_rows for i in range(self._parquet.metadata.num_row_groups)]
        self._ends = np.cumsum(groups)
        self._kept: tuple[str, int, int] | None = None  # the column, the row group, and the first row that is kept
        self._values: list[bytes | None] = []
        self._stream: Iterator[pa.RecordBatch] | None = None

    def read(self, column: str, rows: Sequence[int]) -> list[bytes]:
        """Return the image files in some rows.

        Parameters
        ----------
        column
            The name of the column. It holds bytes, or a struct with the field `bytes`.
        rows
            The numbers of the rows, from 0.

        Raises
        ------
        ImageError
            If there is no such row or column, or the row is empty or damaged.
        StorageError
            If the storage of the file does not answer.
        """
        found: dict[int, bytes] = {}
        with self._lock:
            for row in sorted(set(rows)):
                value = self._value(column, row)
                if not value:
                    raise ImageError(f"{self.file}#{column}:{row}: the row holds no image")
                found[row] = value
        return [found[row] for row in rows]

    def _value(self, column: str, row: int) -> bytes | None:
        group = int(np.searchsorted(self._ends, row, side="right"))
        if group >= len(self._ends):
            total = int(self._ends[-1]) if len(self._ends) else 0
            raise ImageError(f"{self.file}#{column}:{row}: the file has {total} rows only")
        inside = row - (int(self._ends[group - 1]) if group else 0)
        first = self._kept[2] if self._kept and self._kept[:2] == (column, group) else None
        if first is None or inside < first:
            first = 0
            self._values = self._first_values(column, group)
        while inside >= first + len(self._values):
            first += len(self._values)
            self._values = self._guarded(functools.partial(self._streamed, column, group, first))
        self._kept = column, group, first
        return self._values[inside - first]

    def _first_values(self, column: str, group: int) -> list[bytes | None]:
        """Return the images of a row group, or only the first ones where the group is large."""
        leaf = self._leaf(column)
        self._kept, self._values, self._stream = None, [], None
        facts = self._parquet.metadata.row_group(group)
        columns = [facts.column(i) for i in range(facts.num_columns)]
        if sum(one.total_uncompressed_size for one in columns if one.path_in_schema == leaf) > LARGEST_GROUP:
            return self._guarded(functools.partial(self._streamed, column, group, 0))
        return self._guarded(lambda: _bytes_of(self._parquet.read_row_group(group, columns=[leaf]).column(0)))

    def _streamed(self, column: str, group: int, first: int) -> list[bytes | None]:
        """Return the next images of a large row group, of which those before the row `first` were read before."""
        if self._stream is None:
            parquet = self._open(buffer_size=1024 * 1024)
            self._stream = parquet.iter_batches(STREAM_ROWS, row_groups=[group], columns=[self._leaf(column)])
            for _ in range(first // STREAM_ROWS):
                next(self._stream)
        try:
            return _bytes_of(next(self._stream).column(0))
        except StopIteration:
            raise ValueError("a row group ends early") from None
        except Exception:
            self._stream = None
            raise

    def _leaf(self, column: str) -> str:
        """Return the path of the column's bytes, as the schema has it."""
        schema = self._parquet.schema_arrow
        kind = schema.field(column).type if column in schema.names else None
        if kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            return column
        if kind is not None and pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return f"{column}.bytes"
        raise ImageError(f"{self.file}: the column '{column}' holds neither bytes nor a struct with bytes")

    def _open(self, **options: Any) -> pq.ParquetFile:
        if not is_uri(self.file):
            return pq.ParquetFile(self.file, pre_buffer=False, **options)
        found = UPath(self.file)
        file = found.fs.open(found.path, "rb", cache_type="none")
        return pq.ParquetFile(file, pre_buffer=not options, **options)

    def _guarded(self, read: Callable[[], T]) -> T:
        """Return what a function reads; a damaged file becomes an `ImageError`."""
        try:
            return patiently(self.file, lambda: _of_pyarrow(read))
        except (ImageError, StorageError, FileNotFoundError):
            raise
        except Exception as error:
            raise ImageError(f"{self.file} cannot be read as Parquet ({error})") from None


def _of_pyarrow(read: Callable[[], T]) -> T:
    """Call a function of pyarrow's, which says that a file is damaged by an `OSError` without a number."""
    try:
        return read()
    except OSError as error:
        if type(error) is OSError and error.errno is None:
            raise ValueError(str(error)) from error
        raise


def _bytes_of(array: Any) -> list[bytes | None]:
    """Return the values of a column of bytes, or of a struct of which only the field `bytes` was read."""
    if pa.types.is_struct(array.type):
        return [value["bytes"] if value else None for value in array.to_pylist()]
    values: list[bytes | None] = array.to_pylist()
    return values
