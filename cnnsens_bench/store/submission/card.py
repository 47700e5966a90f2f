"""The card of a submission, and the files that it names: whose, how many rows, which digest."""

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from cnnsens_bench.utils.errors import UserError

FORMAT = "cnnsens_bench submission"
FORMAT_VERSION = 1
CARD = "card.json"
LARGEST_CARD = 16 * 2**20
LONGEST_TEXT = 10_000
DEEPEST = 40
SHAPE: dict[Any, Any] = {
    "format": str,
    "format_version": int,
    "schema_version": int,
    "program": {"version": str, "commit": str},
    "created": str,
    "by": str,
    "note": str,
    "protocols": [{"protocol": str, "dataset": str, "test_images": int, "conditions": int}],
    "entrants": [
        {
            "protocol": str,
            "dataset": str,
            "model": str,
            "defense": str,
            "architecture": str,
            "weights_sha256": str,
            "predictions": int,
        }
    ],
    "files": {...: {"rows": int, "bytes": int, "sha256": str}},
}
"""A card: every key, and no other; `...` is any file's name."""


def refuse(place: str, sentence: str) -> UserError:
    """To raise: `place` is a file, and a row or column of it. What others wrote is made fit for one line."""
    text = f"{place}: {sentence}"
    return UserError("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)[:600])


def strict_json(text: str | bytes, place: str) -> dict[str, Any]:
    """An object in JSON as RFC 8259 has it: no NaN, no key twice, not nested without end. Raises `UserError`."""
    try:
        content = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
        if _depth(content) > DEEPEST:
            raise ValueError("it is nested too deeply")
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise refuse(place, f"it is not JSON that this program reads ({reason})") from None
    if not isinstance(content, dict):
        raise refuse(place, "it is JSON, but no object")
    return content


def read_card(folder: Path, schema_version: int) -> dict[str, Any]:
    """The card, its shape and versions checked. Raises `UserError`."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: python -m leaderboard export writes one")
    path = folder / CARD
    if path.is_symlink() or not path.is_file():
        raise UserError(f"{folder} has no {CARD}: it is not a submission of python -m leaderboard export")
    if path.stat().st_size > LARGEST_CARD:
        raise refuse(CARD, f"it is larger than {LARGEST_CARD} bytes")
    card = strict_json(path.read_bytes(), CARD)
    if card.get("format") != FORMAT:
        raise refuse(CARD, f"its format is not '{FORMAT}'")
    for key, ours in (("format_version", FORMAT_VERSION), ("schema_version", schema_version)):
        if type(card.get(key)) is not int or card[key] != ours:
            raise refuse(CARD, f"its {key} is {str(card.get(key))[:40]}, this program reads {ours}: export it again")
    _fit(card, SHAPE, "")
    return card


def check_files(folder: Path, card: dict[str, Any], tables: Collection[str], needed: Collection[str]) -> None:
    """That the folder holds the card and the tables that it names, whole, and nothing else. Raises `UserError`.

    `tables`: what a submission may hold; `needed`: what it must.
    """
    listed = card["files"]
    for name in listed:
        if name not in {file_of(table) for table in tables}:
            raise refuse(CARD, f"files: '{name}' is not a table of a submission")
    for table in needed:
        if file_of(table) not in listed:
            raise refuse(CARD, f"files: {file_of(table)} is missing")
    with os.scandir(folder) as entries:
        found = {entry.name: entry for entry in entries}
    for name, entry in sorted(found.items()):
        if entry.is_symlink() or not entry.is_file(follow_symlinks=False):
            raise refuse(name, "it is a link, a folder or a device: a submission holds plain files only")
        if name != CARD and name not in listed:
            raise refuse(name, f"{CARD} does not name it: remove it, or export again")
    for name, said in listed.items():
        if name not in found:
            raise refuse(name, f"{CARD} names it, but it is missing: export again")
        if found[name].stat(follow_symlinks=False).st_size != said["bytes"]:
            raise refuse(name, f"it has not the {said['bytes']} bytes that {CARD} says: copy it again")
        if digest(folder / name) != said["sha256"]:
            raise refuse(name, f"its SHA-256 is not the one in {CARD}: it was changed or damaged, copy it again")


def file_of(table: str) -> str:
    """Its name in a submission."""
    return f"{table}.parquet"


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fit(value: Any, shape: Any, where: str) -> None:
    place = f"{CARD}, {where}" if where else CARD
    if isinstance(shape, type):
        if type(value) is not shape:
            raise refuse(place, f"it must be {'a text' if shape is str else 'a whole number'}")
        if isinstance(value, str):
            if len(value) > LONGEST_TEXT:
                raise refuse(place, f"it is longer than {LONGEST_TEXT} letters")
            try:
                value.encode()
            except UnicodeEncodeError:
                raise refuse(place, "it is not Unicode text") from None
        elif isinstance(value, int) and not 0 <= value < 2**63:
            raise refuse(place, "it is out of range")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise refuse(place, "it must be a list")
        for number, inner in enumerate(value):
            _fit(inner, shape[0], f"{where}[{number}]")
    else:
        if not isinstance(value, dict):
            raise refuse(place, "it must be an object")
        if ... not in shape:
            for key in shape.keys() - value.keys():
                raise refuse(place, f"the key '{key}' is missing")
            for key in value.keys() - shape.keys():
                raise refuse(place, f"the key '{key[:80]}' is unknown")
        for key, inner in value.items():
            _fit(inner, shape.get(key, shape.get(...)), f"{where}.{key[:80]}" if where else key[:80])


def _depth(content: Any) -> int:
    deepest, level = 0, [content]
    while level:
        deepest += 1
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    return deepest


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key comes twice")
    return content
