"""The samples of a tar shard: its members grouped by their keys. What was found is kept in the cache folder."""

import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cnnsens_bench.datasets.tar_index import TarMember, TarReader
from cnnsens_bench.utils.atomic import write_atomically
from cnnsens_bench.utils.cache import cache_dir
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.image_formats import photograph_endings

KEY_AND_ENDING = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.S)
"""The key of a member is its name up to the first dot of its last part."""
SCHEMA = pa.schema(
    {"key": pa.string(), "offset": pa.int64(), "size": pa.int64(), "check": pa.int64(), "label": pa.string()}
)
VERSION = 1
"""The version of the index, which is part of the names of its files."""
CHECKED = 4096
"""The bytes at the beginning of an image that its checksum is taken of."""
LARGEST_LABEL = 64 * 1024
SHARDS_AT_ONCE = 8


@dataclass(frozen=True)
class ShardIndex:
    """The samples of a shard that have an image.

    Attributes
    ----------
    kept : pyarrow.Table or Path
        The table that `table` returns, or the file of the cache folder that it is in.
    rows : int
        The number of its rows.
    labels : list
        Each label that occurs, null included, in the order of their first rows.
    left_out : dict
        For each kind of `listing.KINDS`, the counts of what is left out, by name or ending.
    damage : str
        What is wrong with the end of the shard, or an empty text.
    """

    kept: pa.Table | Path
    rows: int
    labels: list[str | None]
    left_out: dict[str, dict[str, int]]
    damage: str

    def table(self) -> pa.Table:
        """Return for each image its `key`, the `offset` and `size` of its bytes, a checksum of the first of them as
        `check`, and the text of its `label` or null.
        """
        if isinstance(self.kept, pa.Table):
            return self.kept
        return pq.read_table(self.kept).replace_schema_metadata()


def index_shards(uris: Sequence[str], label: str, image: str | None) -> list[ShardIndex]:
    """Return the samples of shards, some of which are read at a time.

    Parameters
    ----------
    uris
        The paths or URIs of tar files.
    label
        The ending of the members that hold labels, such as `cls`; for JSON followed by a field, such as `json.label`.
    image
        The ending of the images; None for every ending of a photograph.

    Raises
    ------
    UserError
        If a shard does not exist, is compressed or no tar file, or has two images or labels of one key.
    StorageError
        If the storage of a shard does not answer.
    """
    with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
        return list(pool.map(lambda uri: index_shard(uri, label, image), uris))


def index_shard(uri: str, label: str, image: str | None) -> ShardIndex:
    """Return the samples of one shard, from the cache folder where the shard is the same as before.

    The parameters and errors are those of `index_shards`.
    """
    reader = TarReader(uri)
    file = None
    if reader.version:  # what cannot be told from another shard of that size is read again
        facts = json.dumps([VERSION, uri, reader.size, reader.version, label, image])
        file = cache_dir() / "shards" / f"{hashlib.blake2b(facts.encode(), digest_size=16).hexdigest()}.parquet"
        if found := _cached(file):
            return found
    table, left_out = _read(reader, label, image)
    kept = _keep(file, table, {"left_out": left_out, "damage": reader.damage}) if file is not None else table
    return ShardIndex(kept, table.num_rows, table["label"].unique().to_pylist(), left_out, reader.damage)


def _cached(file: Path) -> ShardIndex | None:
    try:
        table = pq.read_table(file)
        known = json.loads(table.schema.metadata[b"shard"])
        labels = table["label"].unique().to_pylist()
        return ShardIndex(file, table.num_rows, labels, known["left_out"], known["damage"])
    except (OSError, ValueError, KeyError, TypeError):  # it is not there, or was damaged
        return None


def _keep(file: Path, table: pa.Table, known: dict[str, Any]) -> pa.Table | Path:
    """Store an index in the cache folder and return its file; where that cannot be written, return the table."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"shard": json.dumps(known)}), sink, compression="zstd")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, sink.getvalue().to_pybytes())
    except OSError:
        return table
    return file


def _read(reader: TarReader, label: str, image: str | None) -> tuple[pa.Table, dict[str, dict[str, int]]]:
    """Return the table of a shard's images, and what is left out of it."""
    label_ending, _, field = label.partition(".")
    endings = {f".{image.lstrip('.').lower()}"} if image else photograph_endings()
    left_out: dict[str, Counter[str]] = {kind: Counter() for kind in ("other", "hidden", "no_image")}
    images: dict[str, TarMember] = {}
    checks: list[int] = []
    labels: dict[str, str | None] = {}
    keys: dict[str, None] = {}
    for member in reader.members():
        name = member.name.removeprefix("./")
        if any(part.startswith(".") for part in name.split("/")):
            left_out["hidden"][name.rpartition("/")[2]] += 1
            continue
        found = KEY_AND_ENDING.fullmatch(name)
        if not found:
            left_out["other"]["without ending"] += 1
            continue
        key, ending = found[1], found[2].lower()
        _check_text(reader.uri, key)
        if ending == label_ending:
            _require_single(reader.uri, key, name, key in labels, "labels", image)
            labels[key] = _label(reader, member, field)
            keys[key] = None
        elif f".{ending}" in endings:
            _require_single(reader.uri, key, name, key in images, "images", image)
            images[key] = member
            checks.append(zlib.crc32(reader.read(member.offset, min(member.size, CHECKED))))
        elif f".{ending}" in photograph_endings() or ending not in ("json", "txt", "cls"):
            left_out["other"][f".{ending}"] += 1
    for key in keys:
        if key not in images:
            left_out["no_image"][key] += 1
    table = pa.table(
        {
            "key": list(images),
            "offset": [one.offset for one in images.values()],
            "size": [one.size for one in images.values()],
            "check": checks,
            "label": [labels.get(key) for key in images],
        },
        schema=SCHEMA,
    )
    return table, {kind: dict(counts) for kind, counts in left_out.items() if counts}


def _require_single(uri: str, key: str, name: str, repeated: bool, what: str, image: str | None) -> None:
    """Raise `UserError` where a key has two images or two labels."""
    if repeated:
        way_out = "write the shard again" if image or what == "labels" else "name one kind by dataset.options.image=jpg"
        raise UserError(f"{uri} has two {what} of the key '{key}' (the second is {name}): {way_out}")


def _check_text(uri: str, key: str) -> None:
    try:
        key.encode()
    except UnicodeEncodeError:
        raise UserError(f"{uri}: a member's name is not UTF-8 ({key!r}): rename it") from None


def _label(reader: TarReader, member: TarMember, field: str) -> str | None:
    """Return the text of a label; None where it is empty, unreadable or too long to be one."""
    if not member.complete or member.size > LARGEST_LABEL:
        return None
    try:
        text = reader.read(member.offset, member.size).decode("utf-8-sig").strip()
        if field:
            value = json.loads(text)
            for part in field.split("."):
                value = value[part]
            text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    return text or None
