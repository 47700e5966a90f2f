"""Removal of paths of the maker's machine from what a submission or a page shows."""

import json
import re
from pathlib import PurePath, PureWindowsPath
from typing import Any

from cnnsens_bench.utils.config_keys import FOLDER_KEYS, MACHINE_KEYS

FOLDER = "<folder>"
LONGEST_ERROR = 1000
_START = r"(?:[A-Za-z][A-Za-z0-9+.-]*://|~[\w.-]*/|/|[A-Za-z]:[\\/]|\\\\)"
_WHOLE = re.compile(_START)
_INSIDE = re.compile(
    # A path that begins a sentence or stands in quotes may hold blanks;
    rf"^{_START}[^:\n]*(?=: )|(?<=')(?:{_START})[^'\n]*(?=')|(?<=\")(?:{_START})[^\"\n]*(?=\")"
    # elsewhere a path ends at a blank. No path begins after a letter or a closing sign (`timm/resnet18`).
    rf"|(?<![\w.\-<>)\]/\\]){_START}[^\s'\"<>|,;()\[\]{{}}]*[^\s'\"<>|,;:.()\[\]{{}}]"
)


def shortened(text: str) -> str:
    """Return a path or URI without its folders; a relative path is returned as it is.

    Examples
    --------
    >>> shortened("/home/maker/photos/cat.jpg"), shortened("photos/cat.jpg")
    ('<folder>/cat.jpg', 'photos/cat.jpg')
    """
    if not _WHOLE.match(text):
        return text
    path = text.split("://", 1)[-1]
    parts = PureWindowsPath(path).parts if "\\" in path else PurePath(path).parts
    return f"{FOLDER}/{parts[-1].strip('/') if len(parts) > 1 else ''}"


def without_paths(text: str) -> str:
    """Return a sentence whose absolute paths are shortened."""
    return _INSIDE.sub(lambda found: shortened(found[0]), text)


def public(value: Any) -> Any:
    """Return a value of JSON whose strings, keys included, have no absolute paths."""
    if isinstance(value, str):
        return shortened(value) if _WHOLE.match(value) else without_paths(value)
    if isinstance(value, list):
        return [public(inner) for inner in value]
    if isinstance(value, dict):
        return {public(key): public(inner) for key, inner in value.items()}
    return value


def public_json(text: str) -> str:
    """Return a config or environment in JSON without absolute paths, and without the keys that change no result."""
    content = json.loads(text)
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key not in MACHINE_KEYS}
        # These folders are shortened even where they are relative: they belong to one machine too.
        for holder, key in (*((content, key) for key in FOLDER_KEYS), (content.get("dataset"), "root")):
            if isinstance(holder, dict) and isinstance(holder.get(key), str):
                holder[key] = f"{FOLDER}/{PurePath(holder[key]).name}"
    return json.dumps(public(content), ensure_ascii=False)


def public_error(text: str) -> str:
    """Return the text of an error without absolute paths, cut where it is very long."""
    return without_paths(text)[:LONGEST_ERROR]
