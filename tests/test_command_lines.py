"""The command lines: their help texts come at once, since they import nothing that is slow."""

import subprocess
import sys

import pytest

from cnnsens_bench import images
from cnnsens_bench.degradations.__main__ import PNG_STEPS

COMMANDS = ("cnnsens_bench.run", "cnnsens_bench.tune", "cnnsens_bench.predict", "cnnsens_bench.figures",
            "cnnsens_bench.degradations", "cnnsens_bench.camera", "leaderboard")  # fmt: skip
SLOW = ("torch", "ray", "timm", "mlflow", "pandas", "numba", "matplotlib", "duckdb", "cv2", "scipy")
CODE = """
import runpy, sys
command, sys.argv = sys.argv[1], [sys.argv[1], "--help"]
try:
    runpy.run_module(command, run_name="__main__", alter_sys=True)
except SystemExit as ended:
    assert not ended.code, ended.code
print("imported:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_help_text_waits_for_nothing(command: str) -> None:
    found = subprocess.run([sys.executable, "-c", CODE, command], capture_output=True, text=True, check=True)
    text, _, imported = found.stdout.rpartition("imported:")
    assert "usage" in text
    assert not set(SLOW) & set(imported.split())


def test_the_steps_of_a_png_are_those_of_images() -> None:
    assert PNG_STEPS == images.PNG_STEPS
