"""Entries `camera:<file>` of a config's list `degradations`: the mix of a camera that was measured, as one chain."""

from collections.abc import Mapping, Sequence
from typing import Any

from cnnsens_bench.camera.report import read_mix
from cnnsens_bench.utils.errors import UserError

PREFIX = "camera:"


def with_cameras(entries: Sequence[Any]) -> list[Any]:
    """Return entries of `degradations` with the mix of its file in place of each `camera:<file>`.

    So the database names the degradations themselves, and a file that changes makes another condition.

    Parameters
    ----------
    entries
        Texts, mappings with a `name`, and lists of these, as the config's key takes them.

    Raises
    ------
    UserError
        If such a file cannot be read or has no mix, or a camera is given a level or arguments.
    """
    return [_with_camera(entry) for entry in entries]


def camera_files(entries: Sequence[Any]) -> list[str]:
    """Return the files of the cameras that entries of `degradations` name, each once."""
    found: list[str] = []
    for entry in entries:
        if isinstance(entry, list):
            found += camera_files(entry)
        name = entry.get("name") if isinstance(entry, Mapping) else entry
        if isinstance(name, str) and name.startswith(PREFIX):
            found.append(name.removeprefix(PREFIX))
    return list(dict.fromkeys(found))


def _with_camera(entry: Any) -> Any:
    if isinstance(entry, str):
        return read_mix(entry.removeprefix(PREFIX)) if entry.startswith(PREFIX) else entry
    if isinstance(entry, list):
        return with_cameras(entry)
    if not isinstance(entry, Mapping) or not str(entry.get("name", "")).startswith(PREFIX):
        return entry
    for key in ("level", "levels", "arguments"):
        if entry.get(key) is not None:
            raise UserError(f"degradations: '{entry['name']}' has the levels of its file: leave {key} out")
    return {**entry, "name": _with_camera(entry["name"])}
