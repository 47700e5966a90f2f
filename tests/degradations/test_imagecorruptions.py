"""The fifteen corruptions beside those of the package `imagecorruptions`, on real photographs at 224 × 224."""

import types
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from cnnsens_bench.degradations import Streams
from cnnsens_bench.engine.frost import degradation_with
from cnnsens_bench.images import to_rgb
from cnnsens_bench.images.frost import PHOTOGRAPHS
from tests.benchmarks.scripts import load_script

SIZE = 224
DETERMINISTIC = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
RANDOM = ("gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow", "frost", "fog",
         "elastic_transform")  # fmt: skip
ROUNDING = {"pixelate": 1.01, "jpeg_compression": 0.0}
"""The gray levels that may lie between where it is not 0.01: Pillow rounds to 8 bits after each axis."""
SEVERITIES = (1, 2, 3, 4, 5)
OTHER_PARAMETERS = {("elastic_transform", 1), ("elastic_transform", 2)}
"""Where the package differs from the code that made ImageNet-C, which test_common.py compares with."""


class Comparison(NamedTuple):
    """Theirs and ours under one corruption and severity: per image the mean, the deviation, the largest difference."""

    means: np.ndarray
    deviations: np.ndarray
    largest: float

    @staticmethod
    def close(values: np.ndarray) -> bool:
        """Return whether (2, images) values agree: within 2 % on average, or three standard errors."""
        theirs, ours = values
        gap, error = np.mean(ours - theirs), np.std(ours - theirs, ddof=1) / np.sqrt(len(ours))
        return bool(abs(gap) < 0.02 * np.mean(theirs) or abs(gap) < 3 * error)


@pytest.fixture(scope="module")
def published() -> types.ModuleType:
    module = load_script("published_corruptions").imagecorruptions()
    assert module
    return module


def photographs(data_root: Path, count: int) -> list[np.ndarray]:
    """Return photographs of CUB and of the Pets, half each, squashed to the square: (SIZE, SIZE, 3) uint8."""
    birds = sorted((data_root / "CUB_200_2011" / "images").rglob("*.jpg"))
    pets = sorted((data_root / "oxford-iiit-pet" / "images").glob("*.jpg"))
    chosen = [files[i * len(files) // count] for i in range(count) for files in ((birds, pets)[i % 2],)]
    return [np.asarray(to_rgb(Image.open(f)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for f in chosen]


def compared(module: types.ModuleType, name: str, severity: int, pictures: list[np.ndarray]) -> Comparison:
    """Apply both programs to the pictures, each with its own draws."""
    ours = degradation_with("photographs", f"common:{name}")
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
    draw = ours.draw(Streams(0, "data", [str(i) for i in range(len(pictures))], 0), SIZE)
    mine = ours.apply(pixels, draw, float(severity)).clamp(0, 255).permute(0, 2, 3, 1).double().numpy()
    np.random.seed(severity)
    theirs = np.stack([np.asarray(getattr(module, name)(Image.fromarray(one), severity), float) for one in pictures])
    both = np.stack([theirs, mine])
    return Comparison(both.mean((2, 3, 4)), both.std((2, 3, 4)), float(np.abs(theirs - mine).max()))


def require_agreement(module: types.ModuleType, name: str, severity: int, pictures: list[np.ndarray]) -> None:
    """Raise `AssertionError` unless both programs agree on the pictures."""
    found = compared(module, name, severity, pictures)
    if name in DETERMINISTIC:
        assert found.largest <= ROUNDING.get(name, 0.01), (name, severity, found.largest)
    else:
        assert found.largest > 1  # its draws are others
        assert found.close(found.means), (name, severity, found.means.mean(1))
        same = (name, severity) not in OTHER_PARAMETERS
        assert found.close(found.deviations) == same, (name, severity, found.deviations.mean(1))


@pytest.mark.parametrize("name", sorted(DETERMINISTIC + RANDOM))
def test_three_photographs_agree(name: str, published: types.ModuleType, data_root: Path) -> None:
    require_agreement(published, name, 3, photographs(data_root, 3))


@pytest.mark.slow
@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", sorted(DETERMINISTIC + RANDOM))
def test_fifty_photographs_agree(name: str, severity: int, published: types.ModuleType, data_root: Path) -> None:
    require_agreement(published, name, severity, photographs(data_root, 50))


def integers_from(numbers: list[float]) -> Callable[..., int]:
    """Return a stand-in for NumPy's `randint`, which takes its draws from numbers in [0, 1)."""
    left = iter(numbers)

    def randint(low: int, high: int | None = None) -> int:
        first, end = (0, low) if high is None else (low, high)
        return first + int(next(left) * (end - first))

    return randint


@pytest.mark.parametrize("size", [64, 224, 700])
def test_frost_of_photographs_is_theirs_from_the_same_draws(
    size: int, published: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes below and above the files' own: frost4.jpg has 350 rows."""
    frost = degradation_with("photographs", "common:frost")
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    files = set()
    for name in "abcdefgh":
        draw = frost.draw(Streams(0, "data", [name], 0), size)
        monkeypatch.setattr(np.random, "randint", integers_from(draw[0].tolist()))
        files.add(int(draw[0, 0] * 5))
        theirs = published.frost(Image.fromarray(image), 5)
        ours = frost.apply(pixels, draw, 5.0).clamp(0, 255)[0].permute(1, 2, 0).numpy()
        assert np.abs(ours - theirs).max() < 1e-4
    assert len(files) > 2
    assert len(PHOTOGRAPHS) == 5
