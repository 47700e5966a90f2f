"""The benchmark of degradations: its keys are a contract; what it compares with works."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.benchmarks.scripts import load_script

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def rivals() -> ModuleType:
    """benchmarks/rivals.py, which is in no package."""
    return load_script("rivals")


@pytest.mark.slow
def test_its_keys(tmp_path: Path) -> None:
    words = [
        "--only",
        "hue_global",
        "flip_lr",
        "common:brightness",
        "--rounds",
        "1",
        "--threads",
        "1",
        "--json",
        str(tmp_path / "a.json"),
    ]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "degradations.py"), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "hue_global" in done.stdout
    figures = json.loads((tmp_path / "a.json").read_text())
    hue, flip = figures["hue_global"], figures["flip_lr"]
    for key in ("vs_bound", "vs_skimage", "vs_kornia", "vs_albumentations", "seven"):
        assert hue[key] > 0
    assert flip["vs_bound"] > 0
    assert not {"vs_skimage", "seven"} & set(flip)
    assert hue["vs_fastest"] == min(hue[key] for key in ("vs_skimage", "vs_kornia", "vs_albumentations"))
    assert hue["fast"] == (hue["vs_bound"] <= 1.5 or hue["vs_fastest"] >= 1)
    corruption = figures["common:brightness"]
    assert figures["common"]["ms_per_image"] == corruption["ms_per_image"]
    assert corruption["vs_kornia"] > 0
    # One degradation alone is its own headline.
    assert figures["sweep_of_seven"] == {"ratio": hue["seven"], "degradations": 1}


@pytest.mark.slow
def test_an_unknown_name() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "degradations.py"), "--only", "peper"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "did you mean 'pepper'" in done.stderr


def test_what_it_compares_with_degrades(rivals: ModuleType) -> None:
    torch.manual_seed(0)  # kornia draws from it: by chance a turn of the hue is next to none
    rng = np.random.default_rng(0)
    eight_bit = rng.integers(0, 256, (96, 96, 3), np.uint8)
    image = eight_bit.astype(np.float32) / 255
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
    for name, make in rivals.SKIMAGE.items():
        result = make(0.3)(image)
        assert result.shape == image.shape, name
        assert np.abs(result - image).max() > 1e-3, name
    for name, make in rivals.KORNIA.items():
        result = make(20.0 if name == "jpeg" else 0.3)(batch)
        assert result.shape == batch.shape, name
        assert (result - batch).abs().max() > 1e-3 or name == "white_balance", name
    for name, make in rivals.ALBUMENTATIONS.items():
        result = make(0.3 if name.startswith("pepper") else 20.0)(image=eight_bit)["image"]
        assert result.shape == eight_bit.shape, name
        assert (result != eight_bit).any() or name in ("white_balance", "translation", "hue_global"), name


@pytest.mark.parametrize("there_and_back", ["skimage_hsv", "kornia_hsv"])
def test_round_trips_are_round(there_and_back: str, rivals: ModuleType) -> None:
    image = np.random.default_rng(0).random((8, 8, 3), np.float32)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    result = getattr(rivals, there_and_back)()(image if there_and_back == "skimage_hsv" else batch)
    given = result if isinstance(result, np.ndarray) else result[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(given, image, atol=1e-4)
