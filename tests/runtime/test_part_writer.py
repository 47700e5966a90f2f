"""Part files that are written in the background: in order, bounded in number, and with their errors."""

import threading
from pathlib import Path

import pyarrow as pa
import pytest

from cnnsens_bench.runtime import part_writer
from cnnsens_bench.runtime.part_writer import MOST_PENDING, PartWriter
from cnnsens_bench.utils.errors import StorageError

TABLE = pa.table({"a": [1]})


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of parts that were written; one whose name is "full" raises."""
    names: list[str] = []

    def write(folder: Path, kind: str, name: str, table: pa.Table) -> Path:
        if name == "full":
            raise StorageError("the disk is full")
        names.append(name)
        return folder / name

    monkeypatch.setattr(part_writer, "write_part", write)
    return names


def test_parts_are_written_in_order_and_errors_come_at_the_end(tmp_path: Path, written: list[str]) -> None:
    writer = PartWriter(tmp_path)
    writer.write("predictions", "first", TABLE)
    writer.write("predictions", "full", TABLE)
    with pytest.raises(StorageError, match="the disk is full"):
        writer.finish()
    writer.finish()  # an error is raised once
    writer.write("predictions", "full", TABLE)
    writer.abandon()
    for i in range(10):
        writer.write("predictions", str(i), TABLE)
    writer.close()
    assert written == ["first", *map(str, range(10))]


def test_a_slow_storage_holds_the_computing_up(
    tmp_path: Path, written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than `MOST_PENDING` tables wait at a time."""
    free, fast = threading.Event(), part_writer.write_part

    def slow(*arguments: object) -> object:
        assert free.wait(20)
        return fast(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(part_writer, "write_part", slow)
    writer = PartWriter(tmp_path)
    for i in range(MOST_PENDING):
        writer.write("predictions", str(i), TABLE)
    further = threading.Thread(target=writer.write, args=("predictions", "further", TABLE))
    further.start()
    further.join(0.2)
    assert further.is_alive()
    free.set()
    further.join(20)
    writer.finish()
    assert written == [*map(str, range(MOST_PENDING)), "further"]
