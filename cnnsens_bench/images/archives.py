"""Images inside larger files: members of tar shards, rows of Parquet files and of arrays, read in place.

The URI of such an image is the path or URI of its file, `#`, and what finds the image in it:

- `<file>#<offset>+<size>`: an image file of `size` bytes at a byte offset, such as a member of a tar file;
- `<file>#<offset>+<size>,3x<h>x<w>`: pixels of 8 bits without a header, colour by colour, as CIFAR has them;
- `<file>.npy#<row>`: a row of an array (N, H, W, 3) uint8;
- `<file>.parquet#<row>` or `<file>.parquet#<column>:<row>`: a row of a column of image files, which holds bytes, or a
  struct with the field `bytes`; the column is `image` where none is named.
"""

import functools
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from cnnsens_bench.utils.array_files import array_header
from cnnsens_bench.utils.errors import ImageError
from cnnsens_bench.utils.reading import is_uri, read_patiently, read_range, size_and_version

if TYPE_CHECKING:
    from cnnsens_bench.images.parquet_rows import ParquetRows

Content = bytes | np.ndarray
"""What is read of an image: an image file's bytes, or pixels (h, w, 3) uint8."""
Reader = Callable[[], Content]
"""Returns what is read of one image, or raises why it cannot be read. It may wait for a request that is under way."""

RANGE = re.compile(r"(?P<file>.+)#(?P<offset>\d{1,18})\+(?P<size>\d{1,18})(?:,3x(?P<h>\d{1,5})x(?P<w>\d{1,5}))?", re.S)
ARRAY_ROW = re.compile(r"(?P<file>.+\.npy)#(?P<row>\d{1,18})", re.S)
PARQUET_ROW = re.compile(r"(?P<file>.+\.parquet)#(?:(?P<column>[^#]+):)?(?P<row>\d{1,18})", re.S)
DEFAULT_COLUMN = "image"

NEAR = 64 * 1024
"""Byte ranges of one file that are less than this far apart are read in one request."""
MOST_PER_REQUEST = 16 * 1024 * 1024
"""The bytes up to which ranges are joined."""
REQUESTS_AT_ONCE = 32
ARRAYS_KEPT, PARQUETS_KEPT = 64, 3
"""The numbers of files of which a process remembers the header, or the footer and a row group."""


@dataclass(frozen=True)
class ByteRange:
    """Where an image lies in a file.

    For pixels without a header `shape` is (3, h, w), or (h, w, 3) where `planar` is false; else it is None.
    """

    file: str
    offset: int
    size: int
    shape: tuple[int, ...] | None = None
    planar: bool = True


@dataclass(frozen=True)
class ParquetCell:
    """A row of a column of a Parquet file."""

    file: str
    column: str
    row: int


Address = ByteRange | ParquetCell


def address_of(uri: str) -> Address | None:
    """Return where an image lies inside a larger file, or None for an image that is a file of its own.

    Parameters
    ----------
    uri
        The path or URI of the image. A file of this machine whose whole name is `uri` is a file of its own.

    Raises
    ------
    ImageError
        If the row of an array is beyond its end, or the array is no array of images.

    Examples
    --------
    >>> address_of("s3://bucket/shard-000000.tar#1536+2048")
    ByteRange(file='s3://bucket/shard-000000.tar', offset=1536, size=2048, shape=None, planar=True)
    >>> address_of("train.parquet#img:7")
    ParquetCell(file='train.parquet', column='img', row=7)
    >>> address_of("photos/7.jpg")
    """
    if "#" not in uri or (not is_uri(uri) and os.path.lexists(uri)):
        return None
    if found := PARQUET_ROW.fullmatch(uri):
        return ParquetCell(found["file"], found["column"] or DEFAULT_COLUMN, int(found["row"]))
    if found := ARRAY_ROW.fullmatch(uri):
        return _row_range(found["file"], int(found["row"]))
    if found := RANGE.fullmatch(uri):
        shape = (3, int(found["h"]), int(found["w"])) if found["h"] else None
        return ByteRange(found["file"], int(found["offset"]), int(found["size"]), shape)
    return None


def read_content(uri: str) -> Content:
    """Return what an image consists of: the bytes of its file, or its pixels where it lies in an array.

    Parameters
    ----------
    uri
        The path or URI of the image.

    Raises
    ------
    ImageError
        If there is nothing at that place of a file.
    StorageError
        If the storage of the file does not answer.
    Exception
        What Python or fsspec raises where something is wrong with the file itself.
    """
    address = address_of(uri)
    if address is None:
        return read_patiently(uri)
    if isinstance(address, ParquetCell):
        return _parquet(address.file).read(address.column, [address.row])[0]
    return _content(address, read_range(address.file, address.offset, address.offset + address.size))


def read_ahead(uris: Sequence[str]) -> list[Reader]:
    """Begin to read images in the background, and return for each a function that waits for it.

    Images of one file that lie close together are read in one request, and up to `REQUESTS_AT_ONCE` requests run at a
    time. Images that are files of this machine are read by the returned function itself.

    Parameters
    ----------
    uris
        The paths or URIs of the images.

    Returns
    -------
    list
        Functions that return or raise what `read_content` does, in the order of `uris`.
    """
    readers: list[Reader | None] = [None] * len(uris)
    ranges: dict[str, list[tuple[int, ByteRange]]] = {}
    cells: dict[tuple[str, str], list[tuple[int, ParquetCell]]] = {}
    for position, uri in enumerate(uris):
        try:
            address = address_of(uri)
        except Exception as error:
            readers[position] = functools.partial(_raise, error)
            continue
        if isinstance(address, ByteRange):
            ranges.setdefault(address.file, []).append((position, address))
        elif isinstance(address, ParquetCell):
            cells.setdefault((address.file, address.column), []).append((position, address))
        elif is_uri(uri):
            readers[position] = _pool().submit(read_patiently, uri).result
        else:
            readers[position] = functools.partial(read_patiently, uri)
    for placed in ranges.values():
        for joined in _joined(placed):
            start, end = joined[0][1].offset, max(one.offset + one.size for _, one in joined)
            request = _pool().submit(read_range, joined[0][1].file, start, end)
            for position, one in joined:
                readers[position] = functools.partial(_cut, request, start, one)
    for (file, column), wanted in cells.items():
        answer = _pool().submit(_rows_of, file, column, [cell.row for _, cell in wanted])
        for number, (position, _) in enumerate(wanted):
            readers[position] = functools.partial(_pick, answer, number)
    return [reader for reader in readers if reader is not None]


def stop_reading() -> None:
    """Give up the requests of `read_ahead` that have not begun; those who wait for them get a `CancelledError`."""
    with _lock:
        if found := _pools.pop(os.getpid(), None):
            found.shutdown(wait=False, cancel_futures=True)


def _joined(placed: list[tuple[int, ByteRange]]) -> list[list[tuple[int, ByteRange]]]:
    """Return the byte ranges of one file in groups, each of which is read in one request."""
    groups: list[list[tuple[int, ByteRange]]] = []
    start = end = 0
    for position, one in sorted(placed, key=lambda pair: (pair[1].offset, pair[0])):
        if groups and one.offset - end < NEAR and one.offset + one.size - start <= MOST_PER_REQUEST:
            groups[-1].append((position, one))
        else:
            groups.append([(position, one)])
            start = end = one.offset
        end = max(end, one.offset + one.size)
    return groups


def _cut(request: Future[bytes], start: int, one: ByteRange) -> Content:
    return _content(one, request.result()[one.offset - start : one.offset - start + one.size])


def _pick(answer: "Future[list[bytes | Exception]]", number: int) -> bytes:
    found = answer.result()[number]
    if isinstance(found, Exception):
        raise found
    return found


def _raise(error: Exception) -> Content:
    raise error


def _rows_of(file: str, column: str, rows: list[int]) -> list[bytes | Exception]:
    """Return the content of some rows of a Parquet file; where they cannot be read together, each or its error."""
    found = _parquet(file)
    try:
        return list(found.read(column, rows))
    except ImageError:
        answers: list[bytes | Exception] = []
        for row in rows:
            try:
                answers += found.read(column, [row])
            except ImageError as error:
                answers.append(error)
        return answers


def _content(one: ByteRange, data: bytes) -> Content:
    """Return the content of a byte range, once it is known to be complete."""
    if not one.size:
        raise ImageError(f"{one.file}#{one.offset}+0: the member is empty")
    if len(data) < one.size:
        raise ImageError(
            f"{one.file}#{one.offset}+{one.size}: the file ends {one.size - len(data)} bytes before the image does: "
            "it is truncated, or was replaced by another"
        )
    if one.shape is None:
        return data
    pixels = np.frombuffer(data, np.uint8)
    if pixels.size != np.prod(one.shape):
        raise ImageError(f"{one.file}#{one.offset}+{one.size}: {one.size} bytes are no pixels of the shape {one.shape}")
    pixels = pixels.reshape(one.shape)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0)) if one.planar else pixels


def _row_range(file: str, row: int) -> ByteRange:
    """Return the byte range of a row of an array file."""
    shape, start = _array_header(file)
    if row >= shape[0]:
        raise ImageError(f"{file}#{row}: the array has {shape[0]} images only")
    size = shape[1] * shape[2] * 3
    return ByteRange(file, start + row * size, size, shape[1:], planar=False)


def _array_header(file: str) -> tuple[tuple[int, ...], int]:
    """Return the shape of an array (N, H, W, 3) uint8 in a file, and the byte at which its values begin."""
    try:
        return _arrays.get(file, lambda: array_header(file))
    except ValueError as error:
        raise ImageError(str(error)) from None


def _parquet(file: str) -> "ParquetRows":
    from cnnsens_bench.images.parquet_rows import ParquetRows  # pyarrow is needed by these files alone

    return _footers.get(file, lambda: ParquetRows(file))


V = TypeVar("V")


class _FileCache(Generic[V]):
    """Remembers something of the files that were used last, for as long as they are the same."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[str, tuple[object, V]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, file: str, make: Callable[[], V]) -> V:
        """Return what is known of a file, and make it where the file is another than before."""
        # A file at a URI is asked for its version where an index is made, not for each image.
        version = "" if is_uri(file) else size_and_version(file)
        with self._lock:
            known = self._known.get(file)
            if known and known[0] == version:
                self._known.move_to_end(file)
                return known[1]
        made = make()
        with self._lock:
            self._known[file] = version, made
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return made

    def clear(self) -> None:
        """Forget all files."""
        with self._lock:
            self._known.clear()


_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}
_arrays = _FileCache[tuple[tuple[int, ...], int]](ARRAYS_KEPT)
_footers = _FileCache["ParquetRows"](PARQUETS_KEPT)


def forget_files() -> None:
    """Forget what is known of files, some of which may have been replaced by others of the same names."""
    _arrays.clear()
    _footers.clear()


def _pool() -> ThreadPoolExecutor:
    """Return the threads of this process that wait for storage."""
    with _lock:
        if os.getpid() not in _pools:
            _pools[os.getpid()] = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="read-ahead")
        return _pools[os.getpid()]
