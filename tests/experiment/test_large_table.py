"""A run over a sample table that lies in a file: the rows of a run with the table in memory, and it resumes."""

from pathlib import Path

import pandas as pd
import pytest

from cnnsens_bench import open_results
from cnnsens_bench.datasets import sample_table
from cnnsens_bench.datasets import samples as room
from cnnsens_bench.engine import plan as planning
from cnnsens_bench.run import main
from cnnsens_bench.runtime import plan_store

ROWS = "FROM predictions SELECT * EXCLUDE (run_id) ORDER BY ALL"


def run(output: Path, *words: str) -> pd.DataFrame:
    """Run a small study of drawn birds with random weights, and return its predictions."""
    shared = ["dataset=plumage", "models=[timm/test_resnet]", "weights=random", "training.epochs=0", "trials=2"]
    shared += ["degradations=[{name: pepper, levels: [0.02, 0.1]}]", "defenses=[none]", "batch_size=8"]
    shared += ["tracking=off", "figures=[]"]
    assert main([f"output={output}", *shared, *words]) == 0
    return open_results(output).query(ROWS)


def test_a_table_in_a_file_gives_the_rows_of_one_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path / "memory", "limit=40")
    monkeypatch.setattr(room, "IN_MEMORY", 100)
    for module in (room, sample_table):
        monkeypatch.setattr(module, "FRAME_ROWS", 64)
    monkeypatch.setattr(plan_store, "BATCHES_PER_GROUP", 2)
    monkeypatch.setattr(plan_store, "GROUPS_PER_FILE", 2)
    monkeypatch.setattr(planning, "MAX_ROWS_PER_QUERY", 60)
    first = run(tmp_path / "file", "limit=19")
    assert len(first) == 19 * 5
    pd.testing.assert_frame_equal(run(tmp_path / "file", "limit=40"), whole)
