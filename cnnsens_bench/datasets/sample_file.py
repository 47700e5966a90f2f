"""Writes sample tables to files of the cache folder while they are made, so that they are never whole in memory."""

import hashlib
import json
import uuid
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cnnsens_bench.datasets.sample_table import BOX, COLUMNS, FRAME_ROWS, FileTable, count_labels, digest_key, hash_rows
from cnnsens_bench.utils.cache import cache_dir
from cnnsens_bench.utils.storage import require_writable

KINDS = dict.fromkeys(COLUMNS, pa.string()) | {"label": pa.int64()} | dict.fromkeys(BOX, pa.float64())
SCHEMA = pa.schema(list(KINDS.items()))
METADATA = b"samples"
"""The key of the file's metadata under which the facts of a table lie, as JSON."""


def sample_folder() -> Path:
    """Return the folder of sample tables, which need not exist."""
    return cache_dir() / "samples"


def write_table(frames: Iterable[pd.DataFrame], suffix: bytes, has_split: bool) -> FileTable:
    """Write a sample table to the cache folder, in a file that is named by its content, and return it.

    Parameters
    ----------
    frames
        The rows, checked and complete, in frames of any size.
    suffix
        What `SampleTable.digest` will be asked with.
    has_split
        Whether images keep their splits; where they do not, the digest with all in the split `test` is taken, too.

    Raises
    ------
    UserError
        If the cache folder cannot be written.
    """
    folder = sample_folder()
    require_writable(folder, "the cache folder", "CNNSENS_CACHE")
    digests = {as_test: hashlib.sha256() for as_test in ([False] if has_split else [False, True])}
    paths, counts, has_boxes = hashlib.sha256(), [], False
    partial = folder / f"{uuid.uuid4().hex}.partial"
    try:
        with pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
            for frame in frames:
                writer.write_table(pa.Table.from_pandas(frame[SCHEMA.names], SCHEMA, preserve_index=False), FRAME_ROWS)
                for as_test, digest in digests.items():
                    digest.update(hash_rows(frame.assign(split="test") if as_test else frame))
                paths.update(json.dumps([frame["uri"].tolist(), frame["mask_uri"].tolist()]).encode())
                counts.append(count_labels(frame))
                has_boxes = has_boxes or bool(frame["box_w"].notna().any())
            for digest in digests.values():
                digest.update(suffix)
            known = {digest_key(suffix, as_test): digest.hexdigest() for as_test, digest in digests.items()}
            totals = pd.concat(counts).groupby(level=["split", "label"]).sum()
            counted = [[split, label, count] for (split, label), count in totals.items()]
            facts = json.dumps({"counts": counted, "has_boxes": has_boxes, "digests": known})
            writer.add_key_value_metadata({METADATA: facts.encode()})
        name = hashlib.sha256(f"{facts} {paths.hexdigest()}".encode()).hexdigest()[:32]
        path = folder / f"{name}.parquet"
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return read_table(path)


def read_table(path: Path) -> FileTable:
    """Return a table that `write_table` has written. Raise `OSError` or `ValueError` where it is absent or damaged."""
    with pq.ParquetFile(path) as file:
        rows, metadata = file.metadata.num_rows, file.metadata.metadata
    facts = json.loads(metadata[METADATA])
    index = pd.MultiIndex.from_tuples([(s, label) for s, label, _ in facts["counts"]], names=["split", "label"])
    counts = pd.Series([count for _, _, count in facts["counts"]], index)
    return FileTable(path, rows, counts, facts["has_boxes"], facts["digests"])
