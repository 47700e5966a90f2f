"""Part files: what workers write. A part is whole or absent, and one driver brings it into the database."""

import io
import os
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cnnsens_bench.utils.errors import first_line
from cnnsens_bench.utils.storage import StoragePath, storing, write_whole

RETRY = "-retry"
"""In the name of a part whose rows another part of the same attempt may hold: see `is_retry`."""

KEY = ("run_id", "dataset", "image_id", "model", "architecture", "defense", "degradation")
TEXT = pa.dictionary(pa.int32(), pa.string())


def _required(name: str, kind: pa.DataType) -> pa.Field:
    """A column that the database refuses NULL in: a worker hears of it, not the ingestion."""
    return pa.field(name, kind, nullable=False)


PREDICTIONS = pa.schema(
    [
        *((pa.field(name, TEXT) if name == "architecture" else _required(name, TEXT)) for name in KEY),
        _required("level", pa.float64()),
        _required("trial", pa.int32()),
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
        _required("dataset", pa.string()),
        ("split", pa.string()),
        _required("image_id", pa.string()),
        ("uri", pa.string()),
        ("label", pa.int32()),
        ("class_name", pa.string()),
        *((name, pa.float64()) for name in ("box_x", "box_y", "box_w", "box_h")),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("hue_entropy", pa.float64()),
    ]
)
SCORED = ("run_id", "dataset", "image_id", "model", "defense", "output")
SENSITIVITY = pa.schema(
    [
        *(_required(name, TEXT) for name in SCORED),
        *(
            (name, pa.float64())
            for name in (
                "value",
                "grad_sq_norm",
                "pepper_sum",
                "pepper_sq_norm",
                "shift_x",
                "shift_y",
                "margin",
                "margin_grad_sq_norm",
                "entropy",
            )
        ),
    ]
)
SENSITIVITY_PREDICTIONS = pa.schema(
    [
        *(_required(name, TEXT) for name in (*SCORED, "predictor", "degradation")),
        _required("level", pa.float64()),
        ("passes", pa.int32()),
        ("mean_change", pa.float64()),
        ("deviation", pa.float64()),
    ]
)
FAILURES = pa.schema(
    [*(_required(name, pa.string()) for name in ("run_id", "dataset", "image_id", "stage")), ("error", pa.string())]
)
SPEED = pa.schema(
    [
        *(_required(name, pa.string()) for name in ("run_id", "dataset", "model", "defense", "device")),
        ("threads", pa.int32()),
        ("precision", pa.string()),
        _required("images", pa.int64()),
        _required("seconds", pa.float64()),
    ]
)
SCHEMAS = {
    "predictions": PREDICTIONS,
    "images": IMAGES,
    "failures": FAILURES,
    "sensitivity": SENSITIVITY,
    "sensitivity_predictions": SENSITIVITY_PREDICTIONS,
    "speed": SPEED,
}
"""Kinds of parts: the columns of the table of the same name, in its order."""


def new_attempt(output: StoragePath) -> StoragePath:
    """A folder for the parts of one invocation: `<output>/parts/<attempt>/`, absolute: workers are elsewhere.

    When the next invocation closes it, a worker that outlived its driver can write there no more; but a URI has no
    folders, there the writer of the database leaves out what it has already.
    """
    folder = output.absolute() / "parts" / uuid.uuid4().hex[:12]
    if isinstance(folder, Path):
        with storing(folder):
            folder.mkdir(parents=True)
    return folder


def write_part(folder: StoragePath, kind: str, name: str, table: pa.Table) -> StoragePath:
    """Write `table` as `<folder>/<kind>-<name>.parquet`, whole or not at all; a part of that name is replaced.

    `kind`: a key of `SCHEMAS`, whose columns `table` must have, in any order. Raises `KeyError` for a column that is
    missing, `ValueError` for one that does not fit, `FileNotFoundError` when the folder was closed, `StorageError` on
    a full disk or a server that is gone; nothing is left behind then.
    """
    schema = SCHEMAS[kind]
    whole = table.select(schema.names).cast(schema)
    path = folder / f"{kind}-{name}.parquet"
    if not isinstance(folder, Path) or not isinstance(path, Path):
        content = io.BytesIO()
        pq.write_table(whole, content, compression="zstd")
        write_whole(path, content.getvalue())
        return path
    partial = folder / f"{kind}-{name}.{uuid.uuid4().hex[:12]}.partial"
    try:
        with storing(path), partial.open("xb") as file:
            pq.write_table(whole, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        # The folder is never made here: its absence is how a worker that outlived its run learns of it.
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"{folder} is closed: the run that this worker belongs to has ended") from None
        raise
    return path


def is_retry(name: str) -> bool:
    """Whether a part of that file name was written when work was done again under another name than at first: its rows
    are compared with those of its attempt too, which the common part need not be."""
    return RETRY in name.removesuffix(".parquet")


def kind_of(path: Path) -> str:
    """The kind that a part's name tells."""
    return path.name.partition("-")[0]


def damage(path: Path) -> str | None:
    """Why a part cannot be brought in; None: it can. Reads all of it."""
    schema = SCHEMAS[kind_of(path)]
    try:
        table = pq.ParquetFile(path).read()
        if sorted(table.column_names) != sorted(schema.names):
            return "its columns are not those of its table"
        table.select(schema.names).cast(schema)
    except (OSError, ValueError) as error:
        return first_line(error)
    return None
