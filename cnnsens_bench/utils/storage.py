"""Paths of this machine and URIs that fsspec knows, such as `s3://bucket/runs/x`, behind the same functions.

Credentials and endpoints are fsspec's own configuration: the environment (`FSSPEC_S3_ENDPOINT_URL`, …) or files in
~/.config/fsspec. Object stores have no folders, and a file at a URI appears whole or not at all.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from upath import UPath

from cnnsens_bench.utils.atomic import replacing, sync_to_disk, write_atomically
from cnnsens_bench.utils.cache import cache_dir
from cnnsens_bench.utils.errors import StorageError, UserError, first_line

if TYPE_CHECKING:
    from typing_extensions import TypeIs

StoragePath = Path | UPath
"""A path of this machine, or a URI; `is_local` distinguishes them."""


def storage_path(text: str | StoragePath) -> StoragePath:
    """Return the path or URI that a user has written.

    Parameters
    ----------
    text
        A URI if it contains `://`, else a path, in which `~` is the user's home folder.

    Raises
    ------
    UserError
        For a URI that is a pattern or a chain, or whose protocol needs a package that is not installed.

    Examples
    --------
    >>> storage_path("runs/seed=1")
    PosixPath('runs/seed=1')
    >>> str(storage_path("memory://bucket/runs/"))
    'memory://bucket/runs'
    """
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


def is_local(path: StoragePath) -> "TypeIs[Path]":
    """Return whether this is a path of this machine, and not a URI."""
    return isinstance(path, Path)


def check_storage_paths(*texts: str | None) -> None:
    """Raise `UserError` where one of the texts is a URI that cannot be used; see `storage_path`."""
    for text in texts:
        storage_path(text or ".")


def check_paths(**values: str | None) -> None:
    """Raise `UserError` where a value is a URI but must be a path. The keywords are the config keys to name."""
    for key, value in values.items():
        if value and "://" in value:
            raise UserError(f"{key} is '{value}': it must be a path on this machine, not a URI")


def local_folder(output: StoragePath, cache: str | Path | None = None) -> Path:
    """Return the folder for those files of an output that must lie on this machine's disk.

    It is the output itself or, for a URI, a folder below `cache` (the default is the user's) that no other output has.
    """
    if is_local(output):
        return output
    key = hashlib.blake2b(str(output).encode(), digest_size=8).hexdigest()
    return cache_dir(cache) / "outputs" / f"{output.name or 'output'}-{key}"


def require_writable(folder: StoragePath, what: str, otherwise: str) -> None:
    """Make a folder where it is missing, and check that files can be written there.

    A URI is not checked: object stores have no folders.

    Parameters
    ----------
    what, otherwise
        What the folder is, and the option that chooses another, for the sentence of the error.

    Raises
    ------
    UserError
        Where nothing can be written.
    """
    if not is_local(folder):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{what} {folder} cannot be written ({reason}): choose another with {otherwise}") from None


def make_folder(folder: StoragePath) -> None:
    """Make a folder that is not there yet, and its parents; nothing for a URI. Raise `StorageError`."""
    if is_local(folder):
        with storing(folder):
            folder.mkdir(parents=True)


def remove_partial_files(folder: StoragePath, pattern: str = "*.partial") -> None:
    """Remove the temporary files that killed writers have left in a folder; a URI has none."""
    if is_local(folder):
        for partial in folder.glob(pattern):
            partial.unlink(missing_ok=True)


def remove_empty_folder(folder: StoragePath) -> None:
    """Remove a folder if it is there and empty; nothing for a URI."""
    if is_local(folder):
        with contextlib.suppress(OSError):
            folder.rmdir()


def read_file(path: StoragePath) -> bytes:
    """Return the content of a small file in one request. Raise `FileNotFoundError` or `StorageError`."""
    with storing(path):
        content: bytes = path.read_bytes() if is_local(path) else path.fs.cat_file(path.path)
        return content


def write_whole(target: StoragePath, data: bytes) -> None:
    """Write a file whole or not at all; a file of that name is replaced. Raise `StorageError`.

    `FileNotFoundError` is raised where the folder of a path is missing.
    """
    with storing(target):
        if is_local(target):
            write_atomically(target, data, sync=True)
        else:
            target.fs.pipe_file(target.path, data)


def create_object(target: StoragePath, data: bytes) -> None:
    """Write a file at a URI, unless one of that name exists: then the URI's library raises an error of its own.

    It also raises one where its storage cannot promise this. For a path `NotImplementedError` is raised: not every file
    system can promise it.
    """
    if is_local(target):
        raise NotImplementedError
    target.fs.pipe_file(target.path, data, mode="create")


def rename(source: StoragePath, target: StoragePath) -> None:
    """Rename a file within its storage. Raise `StorageError`."""
    with storing(source):
        source.rename(target)  # type: ignore[arg-type]  # both are paths, or both are URIs


def remove_files(folder: StoragePath, names: Sequence[str]) -> None:
    """Remove files of a folder; those that are gone already do not matter. Raise `StorageError`."""
    with storing(folder), contextlib.suppress(FileNotFoundError):
        if is_local(folder):
            for name in names:
                (folder / name).unlink(missing_ok=True)
        elif names:
            folder.fs.rm([(folder / name).path for name in names])
            folder.fs.invalidate_cache()


def upload(file: Path, target: UPath) -> None:
    """Copy a file of this machine to a URI. Raise `StorageError`."""
    with storing(target):
        target.fs.put_file(str(file), target.path)


def upload_folder(folder: Path, target: StoragePath) -> None:
    """Copy the files of a folder of this machine to a URI; do nothing where it is missing or `target` is a path."""
    if not is_local(target) and folder.is_dir():
        for name in names_below(folder):
            upload(folder / name, target / name)


def download(source: StoragePath, file: Path) -> None:
    """Copy a file to a path of this machine. Raise `FileNotFoundError` or `StorageError`."""
    with storing(source):
        if is_local(source):
            shutil.copyfile(source, file)
        else:
            source.fs.get_file(source.path, str(file))


def replace_file(file: Path, target: StoragePath, *, move: bool, partial: str, before: Callable[[], None]) -> None:
    """Put a file of this machine in place of another one, whole or not at all.

    Parameters
    ----------
    file
        The file. Where it is moved, it must lie on the file system of `target`.
    target
        The path or URI to replace.
    move
        Whether a path is replaced by the file itself and not by a copy. A URI always gets a copy.
    partial
        The name of the temporary copy beside a path.
    before
        Called directly before the path is replaced, or before the upload. Nothing is replaced where it raises.

    Raises
    ------
    StorageError
        Where the target cannot be written.
    """
    if not is_local(target):
        before()
        upload(file, target)
        return
    with storing(target):
        if move:
            before()
            os.replace(file, target)
        else:
            with replacing(target, target.with_name(partial)) as copy:
                shutil.copyfile(file, copy)
                sync_to_disk(copy)
                before()
        sync_to_disk(target.parent)


def names_below(folder: StoragePath) -> list[str]:
    """Return the files below a folder, however deep, as sorted paths relative to it.

    The list is up to date: listings that fsspec remembers are forgotten. It is empty where there is no such folder.
    Raise `StorageError`.
    """
    if is_local(folder):
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
    """Turn errors of the storage in the body into a `StorageError` of one sentence; `FileNotFoundError` passes."""
    try:
        yield
    except (StorageError, UserError, FileNotFoundError):
        raise
    except OSError as error:
        raise StorageError(_sentence(target, error)) from error
    except Exception as error:
        if is_local(target):
            raise
        raise StorageError(_sentence(target, error)) from error  # each library of fsspec's has error classes of its own


def _sentence(target: StoragePath, error: Exception) -> str:
    reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
    return f"{target} cannot be used now ({reason})"
