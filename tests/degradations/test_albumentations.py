"""Transforms of albumentations as degradations."""

import os
import subprocess
import sys

import albumentations
import numpy as np
import pytest
import torch

from cnnsens_bench.degradations import Streams, parse_degradation
from cnnsens_bench.degradations.albumentations import transforms
from cnnsens_bench.utils.errors import UserError

IDS = ["a", "b", "c"]
PIXELS = (torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 255).round()
NEEDS_MORE = {
    *("AtLeastOneBBoxRandomCrop", "BBoxSafeRandomCrop", "CenterCrop", "Crop", "CropAndPad", "CropNonEmptyMaskIfExists"),
    *(
        "LongestMaxSize",
        "PadIfNeeded",
        "RandomCrop",
        "RandomCropFromBorders",
        "RandomCropNearBBox",
        "RandomResizedCrop",
    ),
    *("RandomScale", "RandomSizedBBoxSafeCrop", "RandomSizedCrop", "Resize", "SmallestMaxSize"),
    *("FDA", "HistogramMatching", "MaskDropout", "Mosaic", "OverlayElements", "PixelDistributionAdaptation"),
    *("GridElasticDeform", "TextImage", "TemplateTransform", "Lambda"),
    *("FromFloat", "Normalize", "ToFloat", "ToTensorV2", "CubicSymmetry"),
}
"""Transforms that change the size, need a second image, a mask, boxes or an argument, or return no picture."""
USABLE = sorted(
    name for name in transforms() if name not in NEEDS_MORE and "3D" not in name and name != "CubicSymmetry"
)


@pytest.mark.parametrize("name", USABLE)
def test_every_transform_is_seeded_per_image_and_trial(name: str) -> None:
    d = parse_degradation(f"albumentations:{name}")
    draw, other = (d.draw(Streams(0, "data", IDS, trial), 48) for trial in (0, 1))
    whole = d.apply(PIXELS, draw, 0.0)
    assert whole.shape == PIXELS.shape
    assert whole.dtype == torch.float32
    for i in (2, 0, 1):
        assert torch.equal(d.apply(PIXELS[i : i + 1], draw[i : i + 1], 0.0)[0], whole[i])
    assert not torch.equal(draw, other)


def test_most_transforms_are_usable() -> None:
    assert len(USABLE) > 60


def test_it_is_the_librarys_own_result() -> None:
    d = parse_degradation("albumentations:MotionBlur(blur_limit=(7, 7))")
    draw = d.draw(Streams(0, "data", IDS, 4), 48)
    ours = d.apply(PIXELS, draw, 0.0)
    for i, seed in enumerate(draw.tolist()):
        transform = albumentations.MotionBlur(blur_limit=(7, 7), p=1)
        transform.set_random_seed(seed)
        expected = transform(image=PIXELS[i].permute(1, 2, 0).byte().numpy())["image"]
        np.testing.assert_array_equal(ours[i].permute(1, 2, 0), expected)


def test_an_argument_is_swept_with_one_seed() -> None:
    d = parse_degradation("albumentations:GaussNoise(std_range=(level, level), mean_range=(0, 0))")
    assert d.needs_levels
    draw = d.draw(Streams(0, "data", IDS, 0), 48)
    gray = torch.full_like(PIXELS, 128)
    small, large = (d.apply(gray, draw, level) - 128 for level in (0.02, 0.04))
    assert small.std() == pytest.approx(0.02 * 255, rel=0.1)  # it cuts to whole values
    assert np.corrcoef(small.flatten(), large.flatten())[0, 1] > 0.98


def test_whole_levels_are_given_as_integers() -> None:
    d = parse_degradation("albumentations:Posterize(num_bits=level)")
    draw = d.draw(Streams(0, "data", IDS, 0), 48)
    assert len(d.apply(PIXELS, draw, 1.0).unique()) < len(d.apply(PIXELS, draw, 3.0).unique()) <= 8


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("RandomCrop(height=20, width=20)", "only transforms that keep the image's size can be swept"),
        ("ToFloat", "no 8-bit picture"),
        ("Normalize", "no 8-bit picture"),
    ],
)
def test_what_makes_no_picture_of_the_same_size_is_refused(text: str, sentence: str) -> None:
    d = parse_degradation(f"albumentations:{text}")
    with pytest.raises(ValueError, match=sentence):
        d.apply(PIXELS, d.draw(Streams(0, "data", IDS, 0), 48), 0.0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Blur(blur_limit=4)", r"^'.*': blur_limit: .*must be odd. Range \(3, 4\) would become \(3, 5\)$"),
        ("Blur(blur_limit=(9, 5))", "would become"),
        ("MedianBlur(blur_limit=(level, level))", r"'.*' at level 4: blur_limit: .* would become \(5, 5\)"),
    ],
)
def test_values_that_the_library_would_change_are_refused(text: str, sentence: str) -> None:
    def at_four() -> None:
        d = parse_degradation(f"albumentations:{text}")
        d.apply(PIXELS, d.draw(Streams(0, "data", IDS, 0), 48), 4.0)

    with pytest.raises(UserError, match=sentence):
        at_four()


def test_importing_it_uses_no_network() -> None:
    """Import it in another process, without the environment variable that turns the version check off."""
    code = "import os, socket; socket.getaddrinfo = lambda *_, **__: os._exit(3); import cnnsens_bench.degradations"
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)


def test_a_transform_may_leave_images_alone() -> None:
    d = parse_degradation("albumentations:InvertImg(p=0.5)")
    ids = [str(i) for i in range(200)]
    pixels = PIXELS[:1].expand(200, -1, -1, -1)
    changed = (d.apply(pixels, d.draw(Streams(0, "data", ids, 0), 48), 0.0) != pixels).any(dim=(1)).flatten(1).any(1)
    assert 60 < changed.sum() < 140
