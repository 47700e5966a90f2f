"""A disk that fills under a worker of a cluster ends the run with one sentence; no image fails, and the run resumes."""

from pathlib import Path

import pandas as pd
import pytest

from cnnsens_bench.store import Store
from tests.runtime.test_killing_images import command, run
from tests.test_run import ROWS

PLUGIN = """
import errno
from pathlib import Path

import pyarrow.parquet as pq

from cnnsens_bench.degradations import degradation

write = pq.write_table


@degradation("mine:poison", draw=lambda streams, size: streams.uniform(1, 1, 1), levels=(1, 2))
def poison(pixels, draw, level):
    return pixels + level


def full(table, *arguments, **more):
    if Path(__file__).with_name("full").exists() and "level" in table.column_names:
        raise OSError(errno.ENOSPC, "No space left on device")
    write(table, *arguments, **more)


pq.write_table = full
"""


@pytest.mark.slow
def test_a_full_disk_under_a_worker_ends_the_run_with_its_sentence(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "a_poison.py").write_text(PLUGIN)
    (tmp_path / "full").touch()
    output = tmp_path / "output"
    words = command(pictures, output, "cluster.engine=ray", "cluster.workers=1")
    code, said = run(words, tmp_path, "")
    assert code == 1, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert "No space left on device" in errors[0]
    assert errors[0].endswith("what was computed is kept, the same command goes on")
    assert "Traceback" not in said
    assert Store(output).query("FROM failures").empty
    (tmp_path / "full").unlink()
    assert run(words, tmp_path, "")[0] == 0
    whole = tmp_path / "whole"
    assert run(command(pictures, whole), tmp_path, "")[0] == 0
    pd.testing.assert_frame_equal(Store(output).query(ROWS), Store(whole).query(ROWS))
    assert Store(output).query("FROM failures").empty
