"""The check of a GPU, by the tensor operations of a GPU on a CPU: its keys are a contract, and nothing waits."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.degradations import degradations, streams
from cnnsens_bench.degradations.kernels import pixelwise
from cnnsens_bench.engine.evaluate import Evaluator
from cnnsens_bench.engine.networks import LoadedEntrant
from cnnsens_bench.models import Classifier, Preprocessing
from tests.benchmarks.scripts import load_script

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
REFUSED = (
    *("numba", "llvmlite", "cv2", "scipy", "albumentations", "pyarrow", "upath", "platformdirs", "pydantic", "duckdb"),
    *("ray", "hydra", "omegaconf", "mlflow", "matplotlib", "rich", "skimage", "sklearn", "imagecorruptions"),
)
"""Packages that a machine with a GPU may lack."""
SIZE = 24


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    """benchmarks/gpu.py, which is in no package."""
    return load_script("gpu")


@pytest.mark.slow
def test_its_keys_with_six_packages_alone(tmp_path: Path) -> None:
    words = ["gpu.py", "--device", "cpu", "--networks", "alexnet", "--json", str(tmp_path / "a.json")]
    refuse = "; ".join(f"sys.modules[{name!r}] = None" for name in REFUSED)
    script = f"import runpy, sys; {refuse}; sys.argv = {words!r}; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "left out, because this machine lacks numba or OpenCV: rotation" in done.stdout
    figures = json.loads((tmp_path / "a.json").read_text())
    assert figures["equal_bits"] is True, figures["differing"]
    assert figures["synchronisations"] == 0, figures["synchronised_at"]
    for found in (figures["alexnet"], figures["alexnet"]["compiled"], figures["alexnet"]["bfloat16"]):
        assert 0 < found["efficiency"] < 2
        assert found["images_per_s"] > 0


def test_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch, gpu: ModuleType) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="there is no GPU here: add --device cpu"):
        gpu.main()


def test_waits_are_counted(gpu: ModuleType) -> None:
    values = torch.arange(6.0)
    with gpu.counted_waits(torch.device("cpu")) as waits:
        values[values > 2].sum()
        values.sum().item()
        values.numpy()
        if values.any():
            values.nonzero()
    assert waits["index"] == 1
    assert waits["nonzero"] == 1
    assert waits["item in test_gpu.py"] == waits["numpy in test_gpu.py"] == 1
    assert waits["_local_scalar_dense"] == 2  # of item and of the condition


def test_nothing_in_a_sweep_waits(monkeypatch: pytest.MonkeyPatch, gpu: ModuleType) -> None:
    """Run all degradations, two networks that want different cells, and a filter."""
    names = [name for name in degradations if not name.startswith("albumentations:")]
    sweep = gpu.make_sweep("source/network", names, 2, 1, quantize=True)
    entrant = sweep.entrants[0]
    sweep = gpu.dataclasses.replace(sweep, entrants=(entrant, gpu.dataclasses.replace(entrant, model="source/other")))
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = Classifier(network, Preprocessing(SIZE, (0.5,) * 3, (0.2,) * 3))
    pictures = gpu.make_images(3, 30)
    wanted = np.ones((len(pictures), 2, len(sweep.cells())), bool)
    wanted[1::2, 1, 1:] = False
    loaded = [LoadedEntrant(classifier, parse_defense(name)) for name in ("none", "gaussian_filter")]

    def run(late: int) -> list:
        evaluator = Evaluator(sweep, loaded)
        evaluator.late = late
        ids = [str(i) for i in range(len(pictures))]
        try:
            return list(evaluator.evaluate(ids, [0] * len(pictures), pictures, wanted))
        finally:
            evaluator.close()

    monkeypatch.setattr(pixelwise, "on_cpu", lambda pixels: False)
    monkeypatch.setattr(streams, "INSTALLED", False)
    expected = run(0)  # what is made once is made here
    with gpu.counted_waits(torch.device("cpu")) as waits:
        found = run(1)
    assert not waits
    assert [prediction.degradation for prediction in found] == [prediction.degradation for prediction in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.failures == theirs.failures == []
        for name, column in theirs.columns.items():
            np.testing.assert_array_equal(ours.columns[name], column)


def test_arrays_reach_a_device_through_pinned_memory() -> None:
    """Other ways to make a tensor on a GPU wait until the copy has ended."""
    waiting = re.compile(r"from_numpy\(.*\)\.to\(|new_tensor\(|torch\.tensor\(.*device=|\.to\(\"cpu\"")
    files = [file for room in ("degradations", "engine") for file in (ROOT / "cnnsens_bench" / room).rglob("*.py")]
    found = [f"{file.name}: {line}" for file in files for line in file.read_text().splitlines() if waiting.search(line)]
    assert [line for line in found if "a part of it had room" not in line] == []
