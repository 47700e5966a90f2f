"""A piece of work with its pictures as one row of a table: what Ray Data carries without looking inside."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cnnsens_bench import images
from cnnsens_bench.runtime.plan_store import Task


def pack(number: int, item: Task, decoded: Sequence[images.Decoded | str]) -> pa.Table:
    """A table of one row; `number` is the item's."""
    empty = {**dict.fromkeys(images.ROW_COLUMNS), "error": None}
    extra = [
        {**empty, "error": image} if isinstance(image, str) else {**empty, **images.to_row(image)} for image in decoded
    ]
    rows = pa.Table.from_pylist([{"row": row, **more} for row, more in zip(item.rows, extra, strict=True)])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    content = sink.getvalue()
    offsets = pa.py_buffer(np.array([0, content.size], np.int64))
    return pa.table(
        {
            "number": [number],
            "group": [item.group],
            "shape": [list(item.wanted.shape)],
            "wanted": [np.packbits(item.wanted).tobytes()],
            "first": [item.first.tolist()],
            "rows": pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, content]),
        }
    )


class LazyPictures(Sequence[images.Decoded | str]):
    """Of a parcel's rows, each unpacked as it is asked for."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(len(self))[place]]
        row = self.rows.slice(range(len(self))[place], 1).to_pylist()[0]
        return row["error"] or images.from_row(row)


def unpack(block: pa.Table) -> Iterator[tuple[int, Task, LazyPictures]]:
    """The inverse of `pack`, for each row."""
    for place in range(len(block)):
        shape = block["shape"][place].as_py()
        bits = np.frombuffer(block["wanted"][place].as_py(), np.uint8)
        wanted = np.unpackbits(bits, count=int(np.prod(shape))).view(bool).reshape(shape)
        with pa.ipc.open_stream(block["rows"][place].as_buffer()) as stream:
            rows = stream.read_all()
        first = np.array(block["first"][place].as_py(), bool)
        item = Task(block["group"][place].as_py(), rows["row"].to_pylist(), wanted, first)
        yield block["number"][place].as_py(), item, LazyPictures(rows.drop_columns("row"))
