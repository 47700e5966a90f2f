"""Writes the rows of a board as Parquet, one for each entrant, condition and image: its tables can be made of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cnnsens_bench.utils.atomic import replacing
from leaderboard.aggregate import Board
from leaderboard.ranking import BoardEntrant
from leaderboard.read import LoadedResults

TEXT = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    {
        "model": TEXT, "defense": TEXT, "degradation": TEXT, "level": pa.float64(), "image_id": TEXT,
        "class_name": TEXT, "label": pa.int32(), "trials": pa.int32(), "accuracy": pa.float64(),
        "label_change": pa.float64(), "top5": pa.float64(), "nll": pa.float32(), "averaged": pa.bool_(),
    }
)  # fmt: skip
"""The columns: shares over an image's trials, and whether the entrant's means are over the condition."""


def write_rows(results: LoadedResults, board: Board, file: Path) -> None:
    """Write the rows of a board, sorted by entrant, condition and image, with a row group for each entrant.

    Parameters
    ----------
    results
        What the databases hold.
    board
        The board.
    file
        The file, which is replaced when all rows are written.
    """
    members = results.entrants.set_index("entrant")
    with replacing(file) as partial, pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
        for one in board.entrants:
            shares = results.query("shares", entrant=one.entrant).sort_values(["condition", "image"])
            writer.write_table(_table(board, one, members.loc[one.entrant], shares), row_group_size=len(shares))


def _table(board: Board, one: BoardEntrant, member: pd.Series, shares: pd.DataFrame) -> pa.Table:
    condition, image = (shares[name].to_numpy(np.int32) for name in ("condition", "image"))
    averaged = np.isin(np.arange(len(board.conditions)), averaged_conditions(board, one))
    zeros = np.zeros(len(shares), np.int32)
    columns = {
        "model": _texts(zeros, pd.Series([member["name"]])),
        "defense": _texts(zeros, pd.Series([member["defense"]])),
        "degradation": _texts(condition, board.conditions["degradation"]),
        "level": board.conditions["level"].to_numpy()[condition],
        "image_id": _texts(image, board.images["image_id"]),
        "class_name": _texts(image, board.images["class_name"]),
        "label": shares["label"],
        "trials": shares["trials"],
        "accuracy": shares["hit"],
        "label_change": shares["changed"],
        "top5": shares["top5"],
        "nll": shares["nll"],
        "averaged": averaged[condition],
    }
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, SCHEMA.field(name).type, from_pandas=True)
        for name, column in columns.items()
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def averaged_conditions(board: Board, one: BoardEntrant) -> list[int]:
    """Return the indices of the degraded conditions that an entrant's means are over."""
    if set(board.ranked) <= set(one.conditions):
        return board.ranked
    return [i for i in one.conditions if board.conditions["degradation"][i] != "none"]


def _texts(positions: np.ndarray, texts: pd.Series) -> pa.DictionaryArray:
    dictionary, codes = np.unique(texts.fillna("").astype(str).to_numpy(object), return_inverse=True)
    known = pa.array(codes.astype(np.int32)[positions], mask=texts.isna().to_numpy()[positions])
    return pa.DictionaryArray.from_arrays(known, pa.array(dictionary, pa.string()))
