"""The benchmark of the page of a large board: its figures, on a board that is small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHROMEDRIVER, CHROMIUM

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "board.py"


@pytest.mark.slow
def test_its_keys(tmp_path: Path) -> None:
    words = ["--entrants", "9", "--conditions", "7", "--images", "12", "--json", str(tmp_path / "a.json")]
    done = subprocess.run([sys.executable, str(BENCHMARK), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "a.json").read_text())
    keys = {"build_s", "build_cpu_s", "build_peak_gb", "page_mb", "folder_mb"}
    keys |= {"first_paint_s", "sort_ms"} if CHROMIUM and CHROMEDRIVER else set()
    assert set(figures) == keys
    assert all(value > 0 for value in figures.values())
    assert 0.05 < figures["page_mb"] < figures["folder_mb"]
