"""The benchmark of the store: its keys are a contract."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "store.py"


@pytest.mark.slow
def test_its_keys(tmp_path: Path) -> None:
    words = ["--rows", "1", "--rounds", "1", "--folder", str(tmp_path), "--json", str(tmp_path / "a.json")]
    done = subprocess.run([sys.executable, str(BENCHMARK), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rows/s" in done.stdout
    figures = json.loads((tmp_path / "a.json").read_text())
    for key in ("ingest_rows_per_s", "leaderboard_s", "page_s", "page_mb", "peak_rss_gb"):
        assert figures[key] > 0
    assert set(figures["vs_limit"]) == {"ingest", "leaderboard", "page"}
    assert figures["images"] == 32  # one chunk
    assert figures["rows"] == 32 * 12 * 107  # × entrants × cells
    assert figures["peak_rss_gb"] == max(figures["peak_gb"].values())
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_that_is_not_there() -> None:
    words = [sys.executable, str(BENCHMARK), "--folder", "/no/such/folder", "--rows", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
