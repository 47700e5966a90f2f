"""Part files: what workers write. A part is whole or absent, and one driver brings it into the database."""

import os
import tempfile
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TEXT = pa.dictionary(pa.int32(), pa.string())

PREDICTIONS = pa.schema(
    [
        *(
            (name, TEXT)
            for name in ("run_id", "dataset", "image_id", "model", "architecture", "defense", "degradation")
        ),
        ("level", pa.float64()),
        ("trial", pa.int32()),
        ("label", pa.int32()),
        ("prediction", pa.int32()),
        ("confidence", pa.float32()),
        ("true_probability", pa.float32()),
        ("true_rank", pa.int32()),
        ("reference_logit", pa.float32()),
        ("reference_probability", pa.float32()),
    ]
)
IMAGES = pa.schema(
    [
        *((name, pa.string()) for name in ("dataset", "split", "image_id", "uri")),
        ("label", pa.int32()),
        ("class_name", pa.string()),
        *((name, pa.float64()) for name in ("box_x", "box_y", "box_w", "box_h")),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("hue_entropy", pa.float64()),
    ]
)
FAILURES = pa.schema([(name, pa.string()) for name in ("run_id", "dataset", "image_id", "stage", "error")])
SCHEMAS = {"predictions": PREDICTIONS, "images": IMAGES, "failures": FAILURES}


def new_attempt(output: Path) -> Path:
    """A folder for the parts of one invocation: `<output>/parts/<attempt>/`.

    When the next invocation closes it, a worker that outlived its driver can write there no more.
    """
    folder = output / "parts" / uuid.uuid4().hex[:12]
    folder.mkdir(parents=True)
    return folder


def write_part(folder: Path, kind: str, name: str, table: pa.Table) -> Path:
    """Write `table` as `<folder>/<kind>-<name>.parquet`, whole or not at all; a part of that name is replaced.

    `kind`: a key of `SCHEMAS`. Raises `FileNotFoundError` when the folder was closed, `OSError` on a full disk.
    """
    schema = SCHEMAS[kind]
    path = folder / f"{kind}-{name}.parquet"
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".partial", delete=False) as file:
        try:
            pq.write_table(table.select(schema.names).cast(schema), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    return path
