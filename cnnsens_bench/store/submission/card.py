"""The card of a submission, `card.json`, and the files that it names: what each must hold before it is read on."""

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cnnsens_bench.utils.errors import UserError

FORMAT = "cnnsens_bench submission"
FORMAT_VERSION = 1
CARD = "card.json"
LARGEST_CARD = 16 * 2**20
LONGEST_TEXT = 10_000
DEEPEST = 40

Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Entry(BaseModel):
    """An object of the card, with exactly these keys and types."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Program(_Entry):
    """The program that wrote a submission."""

    version: Text
    commit: Text


class Protocol(_Entry):
    """A protocol and a data set, with the size of what was evaluated."""

    protocol: Text
    dataset: Text
    test_images: Count
    conditions: Count


class CardEntrant(_Entry):
    """A model with a defense, evaluated under a protocol on a data set."""

    protocol: Text
    dataset: Text
    model: Text
    defense: Text
    architecture: Text
    weights_sha256: Text
    predictions: Count


class SubmittedFile(_Entry):
    """What a file of a submission holds."""

    rows: Count
    bytes: Count
    sha256: Text


class Card(_Entry):
    """A card: who submits what, and the files by name."""

    format: Text
    format_version: Count
    schema_version: Count
    program: Program
    created: Text
    by: Text
    note: Text
    protocols: list[Protocol]
    entrants: list[CardEntrant]
    files: dict[str, SubmittedFile]


def refuse(location: str, sentence: str) -> UserError:
    """Return the error that refuses a submission.

    Parameters
    ----------
    location
        A file of the submission, and where in it.
    sentence
        What is wrong there. What others wrote is escaped and cut, so that it fits into one line.
    """
    text = f"{location}: {sentence}"
    return UserError("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)[:600])


def strict_json(text: str | bytes, location: str) -> dict[str, Any]:
    """Return an object in JSON as RFC 8259 defines it: without NaN, repeated keys or endless nesting.

    Parameters
    ----------
    text
        The JSON.
    location
        Where the text was found, for the error.

    Raises
    ------
    UserError
        Where the text is not such an object.

    Examples
    --------
    >>> strict_json('{"a": [1]}', "a file")
    {'a': [1]}
    """
    try:
        content = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
        if _depth(content) > DEEPEST:
            raise ValueError("it is nested too deeply")
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise refuse(location, f"it is not JSON that this program reads ({reason})") from None
    if not isinstance(content, dict):
        raise refuse(location, "it is JSON, but no object")
    return content


def read_card(folder: Path, schema_version: int) -> Card:
    """Return the card of a submission. Raise `UserError` where it is not a card of this program's versions."""
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
    try:
        return Card.model_validate(card)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        raise refuse(f"{CARD}, {_key(wrong['loc'])}", wrong["msg"]) from None


def check_files(folder: Path, card: Card, tables: Collection[str], needed: Collection[str]) -> None:
    """Check that a folder holds the card and the tables that it names, whole, and nothing else.

    Parameters
    ----------
    folder
        The submission.
    card
        Its card.
    tables, needed
        The tables that a submission may hold, and those that it must hold.

    Raises
    ------
    UserError
        Where something is missing, damaged or too much.
    """
    for name in card.files:
        if name not in {file_of(table) for table in tables}:
            raise refuse(CARD, f"files: '{name}' is not a table of a submission")
    for table in needed:
        if file_of(table) not in card.files:
            raise refuse(CARD, f"files: {file_of(table)} is missing")
    with os.scandir(folder) as entries:
        found = {entry.name: entry for entry in entries}
    for name, entry in sorted(found.items()):
        if entry.is_symlink() or not entry.is_file(follow_symlinks=False):
            raise refuse(name, "it is a link, a folder or a device: a submission holds plain files only")
        if name != CARD and name not in card.files:
            raise refuse(name, f"{CARD} does not name it: remove it, or export again")
    for name, file in card.files.items():
        if name not in found:
            raise refuse(name, f"{CARD} names it, but it is missing: export again")
        if found[name].stat(follow_symlinks=False).st_size != file.bytes:
            raise refuse(name, f"it has not the {file.bytes} bytes that {CARD} says: copy it again")
        if digest(folder / name) != file.sha256:
            raise refuse(name, f"its SHA-256 is not the one in {CARD}: it was changed or damaged, copy it again")


def file_of(table: str) -> str:
    """Return the file name of a table in a submission."""
    return f"{table}.parquet"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _key(location: tuple[str | int, ...]) -> str:
    """Return where in the card something is, such as `protocols[0].dataset`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key[:80]}" for key in location).removeprefix(".")


def _depth(content: Any) -> int:
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key comes twice")
    return content
