"""Where files lie: a path, or a URI that fsspec knows, such as `s3://bucket/runs/x` of an object store.

Credentials and endpoints are fsspec's own configuration: the environment (`FSSPEC_S3_ENDPOINT_URL`, …) or files in
~/.config/fsspec. A URI's file appears whole or not at all, as object stores promise.
"""

import contextlib
import errno
import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from upath import UPath

from cnnsens_bench.utils.cache import cache_dir
from cnnsens_bench.utils.errors import StorageError, UserError, first_line

StoragePath = Path | UPath
"""A path of this machine, or a URI; `isinstance(place, Path)` tells them apart."""

WAITS = (0.5, 2.0, 5.0)
"""Seconds before each further try to read where storage did not answer."""

OF_THE_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
REASONS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO)
"""Errors of reading that are about this file or its name, as those above; all others are the storage's."""


def storage_path(text: str | StoragePath) -> StoragePath:
    """What the user wrote: with `://` a URI, else a path. Raises `UserError` for a URI that nobody here reads."""
    if not isinstance(text, str):
        return text
    if "://" not in text:
        return Path(text).expanduser()
    if text.startswith("file://"):
        return Path(unquote(urlsplit(text).path))
    if "::" in text:
        raise UserError(f"'{text}' chains URIs: name one, such as s3://bucket/folder")
    if set("*?[") & set(text):  # fsspec would look for what matches
        raise UserError(f"'{text}' is a pattern: name one place, without * ? and [")
    try:
        found = UPath(text.rstrip("/"))
        _ = found.fs
    except ImportError as error:
        raise UserError(f"'{text}' needs another package ({first_line(error)}): install it first") from None
    except Exception as error:
        raise UserError(f"'{text}' cannot be used ({first_line(error)}): name a path, or s3://bucket/folder") from None
    return found


def check_storage_paths(*texts: str | None) -> None:
    """Raises `UserError` for a URI that nobody here reads."""
    for text in texts:
        storage_path(text or ".")


def check_paths(**values: str | None) -> None:
    """Raises `UserError` for a URI where a path is needed; `values` by key of the config."""
    for key, value in values.items():
        if value and "://" in value:
            raise UserError(f"{key} is '{value}': it must be a path on this machine, not a URI")


def local_folder(output: StoragePath, cache: str | Path | None = None) -> Path:
    """Where what must lie on this machine's disk goes: the output itself, or, of a URI, a folder of its own below
    `cache` (default: the user's)."""
    if isinstance(output, Path):
        return output
    key = hashlib.blake2b(str(output).encode(), digest_size=8).hexdigest()
    return cache_dir(cache) / "outputs" / f"{output.name or 'output'}-{key}"


def require_writable(folder: Path, what: str, otherwise: str) -> None:
    """Make a folder where it is missing. Raises `UserError` when nothing can be written there: `what` names it,
    `otherwise` how to choose another."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{what} {folder} cannot be written ({reason}): choose another with {otherwise}") from None


def read_patiently(uri: str) -> bytes:
    """What a file (a path, or a URI) holds, and that is something.

    Where its storage does not answer it is tried again, in the end a `StorageError`. What is wrong with the file itself
    is what Python or fsspec raises.
    """
    waits = list(WAITS)
    while True:
        try:
            return _read(uri)
        except Exception as error:
            if _of_the_file(uri, error):
                raise
            if not waits:
                reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error, 300)
                raise StorageError(f"{uri} cannot be read now ({reason})") from error
        time.sleep(waits.pop(0))


def _of_the_file(uri: str, error: Exception) -> bool:
    """Whether an error of reading says something of the file itself, not of the storage that it lies on."""
    if "://" in uri and isinstance(error, PermissionError):
        return False  # credentials that have expired: it is so for every file from now on
    if isinstance(error, OF_THE_FILE) or (isinstance(error, OSError) and error.errno in REASONS):
        return True
    # Libraries behind URIs have errors of their own for servers that do not answer.
    known = (ValueError, TypeError, ImportError, UserError, MemoryError)
    return not isinstance(error, OSError) and ("://" not in uri or isinstance(error, known))


def _read(uri: str) -> bytes:
    if "://" in uri:
        found = UPath(uri)
        data: bytes = found.fs.cat_file(found.path)  # in one request: its name is no pattern and no chain
    else:
        if os.path.exists(uri) and not os.path.isfile(uri) and not os.path.isdir(uri):
            raise ValueError("neither a file nor a folder")  # reading a pipe would wait for ever
        with open(uri, "rb") as file:
            data = file.read()
    if not data:
        raise ValueError("the file is empty")
    return data


def write_whole(target: StoragePath, data: bytes) -> None:
    """Write a file whole or not at all. Raises `StorageError`."""
    with storing(target):
        if isinstance(target, Path):
            partial = target.with_name(f"{target.name}.{uuid.uuid4().hex[:12]}.partial")
            try:
                with partial.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, target)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        else:
            target.fs.pipe_file(target.path, data)


def upload(file: Path, target: UPath) -> None:
    """Copy a file of this machine to a URI. Raises `StorageError`."""
    with storing(target):
        target.fs.put_file(str(file), target.path)


def upload_folder(folder: Path, target: StoragePath) -> None:
    """Copy the files of a folder of this machine, if there is one, to a URI; a path is where they lie already."""
    if not isinstance(target, Path) and folder.is_dir():
        for name in names_below(folder):
            upload(folder / name, target / name)


def download(source: UPath, file: Path) -> None:
    """Copy a URI's file to this machine. Raises `FileNotFoundError` where there is none, `StorageError`."""
    with storing(source):
        source.fs.get_file(source.path, str(file))


def names_below(folder: StoragePath) -> list[str]:
    """Of all files, however deep, as sorted paths relative to `folder`; none where there is no folder.

    As it is now: listings that fsspec remembers are forgotten. Raises `StorageError`.
    """
    if isinstance(folder, Path):
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    with storing(folder):
        folder.fs.invalidate_cache()
        top = folder.path.rstrip("/") + "/"
        try:
            found = folder.fs.find(top)
        except FileNotFoundError:
            return []
        return sorted(name.removeprefix(top) for name in found if name.startswith(top) and not name.endswith("/"))


@contextlib.contextmanager
def storing(target: StoragePath) -> Iterator[None]:
    """Errors of the storage in the body become a `StorageError` of one sentence; `FileNotFoundError` stays itself."""
    try:
        yield
    except (StorageError, UserError, FileNotFoundError):
        raise
    except OSError as error:
        raise StorageError(_sentence(target, error)) from error
    except Exception as error:
        if isinstance(target, Path):
            raise
        raise StorageError(_sentence(target, error)) from error  # each library of fsspec's has errors of its own


def _sentence(target: Any, error: Exception) -> str:
    reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
    return f"{target} cannot be used now ({reason})"
