"""Reads files, and parts of files, by path or URI, and waits where their storage does not answer."""

import errno
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from cnnsens_bench.utils.errors import StorageError, UserError, first_line

T = TypeVar("T")

WAITS = (0.5, 2.0, 5.0)
"""Seconds before each further attempt to read from a storage that did not answer."""

ERRORS_OF_FILES = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
CODES_OF_FILES = (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO)
"""Errors of reading that concern this file or its name, as those above do; all others concern its storage."""

RANGE_BEYOND_THE_END = 416
"""The status with which a web server answers where a file is shorter than a range begins."""

VERSION_KEYS = ("ETag", "etag", "LastModified", "Last-Modified", "last_modified", "mtime", "modified", "created")
"""What the libraries behind URIs call the facts that change when a file is replaced."""


def is_uri(text: str) -> bool:
    """Return whether a text is a URI and not a path."""
    return "://" in text


def read_patiently(uri: str) -> bytes:
    """Return the content of a file that must not be empty, and try again where its storage does not answer.

    Parameters
    ----------
    uri
        A path of this machine, or a URI.

    Raises
    ------
    StorageError
        Where the storage does not answer after the last of `WAITS`.
    Exception
        What Python or fsspec raises where something is wrong with the file itself.
    """
    return patiently(uri, lambda: _read(uri))


def read_range(uri: str, start: int, end: int) -> bytes:
    """Return the bytes of a file from `start` to before `end`, fewer where the file ends earlier, as patiently.

    Parameters
    ----------
    uri
        A path of this machine, or a URI.
    start, end
        Positions in bytes, from 0.

    Raises
    ------
    StorageError
        Where the storage does not answer after the last of `WAITS`.
    Exception
        What Python or fsspec raises where something is wrong with the file itself.
    """
    return patiently(uri, lambda: _read_range(uri, start, end)) if end > start else b""


def patiently(uri: str, read: Callable[[], T]) -> T:
    """Return what a function reads of a file, and call it again where the storage of the file does not answer.

    Parameters
    ----------
    uri
        The path or URI of the file.
    read
        The function.

    Raises
    ------
    StorageError
        Where the storage does not answer after the last of `WAITS`.
    Exception
        What the function raises where something is wrong with the file itself.
    """
    waits = list(WAITS)
    while True:
        try:
            return read()
        except Exception as error:
            if _concerns_the_file(uri, error):
                raise
            if not waits:
                reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error, 300)
                raise StorageError(f"{uri} cannot be read now ({reason})") from error
        time.sleep(waits.pop(0))


def size_and_version(uri: str) -> tuple[int, str]:
    """Return the size of a file in bytes, and a text that differs once the file was replaced.

    The text is empty where the storage says nothing but the size.

    Parameters
    ----------
    uri
        A path of this machine, or a URI.

    Raises
    ------
    StorageError
        Where the storage does not answer after the last of `WAITS`.
    FileNotFoundError
        Where there is no such file.
    """
    if not is_uri(uri):
        status = os.stat(uri)
        return status.st_size, str(status.st_mtime_ns)
    facts = patiently(uri, lambda: _facts(uri))
    return int(facts.get("size") or 0), " ".join(str(facts[key]) for key in VERSION_KEYS if facts.get(key))


def _universal_path(uri: str) -> Any:
    from upath import UPath  # imported here because files of this machine do without it

    return UPath(uri)


def _facts(uri: str) -> dict[str, Any]:
    found = _universal_path(uri)
    found.fs.invalidate_cache()
    facts: dict[str, Any] = found.fs.info(found.path)
    return facts


def _concerns_the_file(uri: str, error: Exception) -> bool:
    """Whether an error of reading concerns the file itself, not the storage that it lies on."""
    if "://" in uri and isinstance(error, PermissionError):
        return False  # credentials have expired: reading any other file would fail too
    if isinstance(error, ERRORS_OF_FILES) or (isinstance(error, OSError) and error.errno in CODES_OF_FILES):
        return True
    # The libraries behind URIs have error classes of their own for servers that do not answer.
    known = (ValueError, TypeError, ImportError, UserError, MemoryError)
    return not isinstance(error, OSError) and ("://" not in uri or isinstance(error, known))


def _read(uri: str) -> bytes:
    if "://" in uri:
        found = _universal_path(uri)
        data: bytes = found.fs.cat_file(found.path)  # one request, which takes the name neither as pattern nor chain
    else:
        _require_file(uri)
        with open(uri, "rb") as file:
            data = file.read()
    if not data:
        raise ValueError("the file is empty")
    return data


def _read_range(uri: str, start: int, end: int) -> bytes:
    if "://" not in uri:
        _require_file(uri)
        with open(uri, "rb") as file:
            file.seek(start)
            return file.read(end - start)
    found = _universal_path(uri)
    try:
        data: bytes = found.fs.cat_file(found.path, start=start, end=end)
    except Exception as error:
        beyond = isinstance(error, OSError) and error.errno == errno.EINVAL
        if beyond or getattr(error, "status", None) == RANGE_BEYOND_THE_END:
            return b""
        raise
    if len(data) > end - start:
        raise UserError(f"the server of {uri} sends whole files where parts are asked for: copy the file to a disk")
    return data


def _require_file(path: str) -> None:
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise ValueError("neither a file nor a folder")  # reading a pipe would wait for ever
