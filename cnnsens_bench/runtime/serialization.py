"""A task with its images as one row of a table, which Ray Data carries without looking inside."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cnnsens_bench import images
from cnnsens_bench.runtime.plan_store import Task, pack_bits, unpack_bits


def pack(number: int, task: Task, decoded: Sequence[images.Decoded | str]) -> pa.Table:
    """Return a task as a table of one row.

    Parameters
    ----------
    number
        The task's number.
    task
        The task.
    decoded
        Its images, or for one that cannot be read the sentence that says why.
    """
    empty = dict.fromkeys((*images.ROW_COLUMNS, "error"))
    found = [{"error": image} if isinstance(image, str) else images.to_row(image) for image in decoded]
    rows = pa.Table.from_pylist([{"row": row, **empty, **own} for row, own in zip(task.rows, found, strict=True)])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    content = sink.getvalue()
    offsets = pa.py_buffer(np.array([0, content.size], np.int64))
    return pa.table(
        {
            "number": [number],
            "group": [task.group],
            "shape": [[task.wanted.shape[1], task.wanted.shape[2], task.wanted_scores.shape[2]]],
            "wanted": [pack_bits(task.wanted)],
            "wanted_scores": [pack_bits(task.wanted_scores)],
            "first": [task.first.tolist()],
            "rows": pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, content]),
        }
    )


class LazyImages(Sequence[images.Decoded | str]):
    """The images of a packed task; each is unpacked when it is asked for."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [self[i] for i in range(len(self))[position]]
        row = self.rows.slice(range(len(self))[position], 1).to_pylist()[0]
        return row["error"] or images.from_row(row)


def unpack(block: pa.Table) -> Iterator[tuple[int, Task, LazyImages]]:
    """Yield the number, the task and the images of each row that `pack` made."""
    for position, packed in enumerate(block.drop_columns("rows").to_pylist()):
        entrants, cells, score_cells = packed["shape"]
        wanted = unpack_bits(packed["wanted"], entrants, cells)
        wanted_scores = unpack_bits(packed["wanted_scores"], entrants, score_cells)
        with pa.ipc.open_stream(block["rows"][position].as_buffer()) as stream:
            rows = stream.read_all()
        first = np.array(packed["first"], bool)
        task = Task(packed["group"], rows["row"].to_pylist(), wanted, wanted_scores, first)
        yield packed["number"], task, LazyImages(rows.drop_columns("row"))
