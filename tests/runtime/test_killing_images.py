"""An image that kills the process which computes it is found and set aside as a failure, and the run goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from cnnsens_bench.store import Store
from tests.conftest import TINY
from tests.test_run import ROWS, words

PLUGIN = """
import os
import signal

import torch

from cnnsens_bench import images
from cnnsens_bench.degradations import degradation

POISON = "class_1/03.png"


def is_poison(streams, size):
    return torch.tensor([image_id == POISON for image_id in streams.image_ids])


@degradation("mine:poison", draw=is_poison, levels=(1, 2))
def poison(pixels, draw, level):
    if os.environ.get("POISON") == "degrade" and draw.any():
        os.kill(os.getpid(), signal.SIGKILL)
    return pixels + level


if os.environ.get("POISON") == "decode":
    decode = images.decode

    def killing(uri, *rest):
        if uri.endswith(POISON):
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(uri, *rest)

    images.decode = killing

if os.environ.get("POISON") == "outage":
    import errno

    from cnnsens_bench.utils import reading

    def gone(uri):
        raise OSError(errno.ESTALE, "Stale file handle")

    reading._read, reading.WAITS = gone, ()

if os.environ.get("POISON") == "load":
    from cnnsens_bench.engine import evaluate

    evaluate.to_device = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED = -9


def command(pictures: Path, output: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "cnnsens_bench.run",
        *words(
            pictures, output.parent / "cache", output, "plugins=[a_poison]", "degradations=['mine:poison',flip_lr]",
            "training.epochs=0", f"models=[{{name: {TINY}, weights: random}}]", "defenses=[none]",
            "cluster.threads=1", "tracking=off", *more,
        ),
    ]  # fmt: skip


def run(words: list[str], folder: Path, poison: str) -> tuple[int, str]:
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(folder)])
    environment = {**os.environ, "POISON": poison, "PYTHONPATH": paths}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a_poison.py").write_text(PLUGIN)
    return tmp_path


def compare(output: Path, whole: Path, said: str) -> None:
    """Assert that all rows but the poisoned image's are as in the undisturbed run."""
    table, expected = (Store(run_output).query(ROWS) for run_output in (output, whole))
    kept = expected[expected["image_id"] != "class_1/03.png"].reset_index(drop=True)
    assert 0 < len(kept) < len(expected)
    others = table[table["image_id"] != "class_1/03.png"].reset_index(drop=True)
    pd.testing.assert_frame_equal(others, kept)
    failures = Store(output).query("FROM failures")
    assert failures["image_id"].tolist() == ["class_1/03.png"]
    assert failures["stage"].tolist() == ["worker"]
    assert "was killed 3 times" in failures["error"][0]
    assert "1 images were not computed" in said
    assert Store(output).query("SELECT status FROM runs")["status"].tolist() == ["incomplete"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["degrade", "decode"])
def test_in_this_process_the_same_command_gets_past_it(pictures: Path, folder: Path, stage: str) -> None:
    whole, output = folder / "whole", folder / "output"
    assert run(command(pictures, whole), folder, "")[0] == 0
    for _ in range(3):
        assert run(command(pictures, output), folder, stage)[0] == KILLED
    code, said = run(command(pictures, output), folder, stage)
    assert code == 1, said
    compare(output, whole, said)
    assert f"delete {output / 'parts' / 'begun.json'}" in Store(output).query("FROM failures")["error"][0]
    # The image is left alone until the file is deleted.
    assert run(command(pictures, output), folder, stage)[0] == 1
    (output / "parts" / "begun.json").unlink()
    assert run(command(pictures, output), folder, "")[0] == 0
    pd.testing.assert_frame_equal(Store(output).query(ROWS), Store(whole).query(ROWS))
    assert not (output / "parts" / "begun.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["degrade", "decode"])
def test_over_ray_the_run_gets_past_it(pictures: Path, folder: Path, stage: str) -> None:
    whole, output = folder / "whole", folder / "output"
    assert run(command(pictures, whole), folder, "")[0] == 0
    code, said = run(command(pictures, output, "cluster.engine=ray", "cluster.workers=2"), folder, stage)
    assert code == 1, said
    compare(output, whole, said)


@pytest.mark.slow
def test_networks_that_kill_while_they_are_loaded_end_the_run(pictures: Path, folder: Path) -> None:
    sentence = f"error: the process that loaded {TINY} was killed 3 times (out of memory, or a crash in"
    output, small = folder / "output", ("limit=4", "degradations=[flip_lr]")
    for _ in range(3):
        assert run(command(pictures, output, *small), folder, "load")[0] == KILLED
    code, said = run(command(pictures, output, *small), folder, "load")
    assert code == 2, said
    assert sentence in said
    assert f"delete {output / 'parts' / 'begun.json'}" in said
    over = command(pictures, folder / "ray", *small, "cluster.engine=ray", "cluster.workers=1")
    code, said = run(over, folder, "load")
    assert code == 2, said
    assert sentence in said
    assert "Traceback" not in said
    for database in (output, folder / "ray"):
        assert Store(database).query("FROM failures").empty


@pytest.mark.slow
def test_an_outage_of_the_data_under_workers_is_one_sentence(pictures: Path, folder: Path) -> None:
    output = folder / "output"
    more = ("limit=4", "degradations=[flip_lr]", "cluster.engine=ray", "cluster.workers=1")
    code, said = run(command(pictures, output, *more), folder, "outage")
    assert code == 1, said
    (sentence,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "cannot be read now (Stale file handle): what was computed is kept, the same command goes on" in sentence
    assert "Traceback" not in said
    assert Store(output).query("FROM failures").empty
    assert run(command(pictures, output, *more), folder, "")[0] == 0
