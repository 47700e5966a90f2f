"""Published views equal the libraries' own transforms, pixel for pixel; moved ones are windows of the photograph."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform, resolve_data_config

from cnnsens_bench import images
from cnnsens_bench.images import Decoded, PublishedView
from cnnsens_bench.models.base import preprocessing_of
from cnnsens_bench.models.preprocessing import PUBLISHED
from cnnsens_bench.models.sources.timm import preprocessing_of_config

NETWORKS = (
    "torchvision/alexnet",  # 256, 224, bilinear
    "torchvision/resnet50.IMAGENET1K_V2",  # 232, 224
    "torchvision/efficientnet_b1.IMAGENET1K_V2",  # 255, 240
    "torchvision/vit_l_16.IMAGENET1K_SWAG_E2E_V1",  # 512, 512, bicubic
    "torchvision/inception_v3",  # 342, 299
    "timm/resnet50.a1_in1k",  # 288 of 288 px, bicubic
    "timm/tf_efficientnet_lite0",  # crop share 0.875, bicubic
    "timm/tf_efficientnet_b3.aa_in1k",  # crop share 0.904
    "timm/convnext_tiny.fb_in22k_ft_in1k_384",  # crop mode squash
    "timm/vit_base_patch16_clip_224.openai_ft_in1k",
    "timm/regnety_032.ra_in1k",  # 288 px to test with
    "timm/hrnet_w18_small.ms_in1k",  # bilinear
)


def library_transform(model: str, **given: Any) -> Any:
    """Return the transform of the library as its documentation says to make it, up to 8-bit pixels."""
    source, _, name = model.partition("/")
    if source == "timm":
        config = timm.get_pretrained_cfg(name).to_dict()
        resolved = resolve_data_config(given, pretrained_cfg=config, use_test_size=True)
        transform = create_transform(**resolved, normalize=False)
        return lambda image: transform(image).permute(1, 2, 0).numpy()
    architecture, _, tag = name.partition(".")
    weights = torchvision.models.get_model_weights(architecture)
    preset = (weights[tag] if tag else weights.DEFAULT).transforms()

    def transformed(image: Image.Image) -> np.ndarray:
        pixels = preset(image)  # floats, normalised
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preset.mean, preset.std))
        back = (pixels * std + mean) * 255
        assert (back - back.round()).abs().max() < 0.01
        return back.round().byte().permute(1, 2, 0).numpy()

    return transformed


def odd_photographs() -> list[Decoded]:
    """Noise over a gradient in many shapes: wide, tall, small, exactly as large as an input, and one pixel wide."""
    rng = np.random.default_rng(0)
    found = []
    for width, height in ((640, 480), (333, 500), (1200, 90), (70, 900), (224, 224), (256, 256), (31, 47), (1, 5)):
        slope = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 55, height)[:, None, None]
        pixels = np.clip(slope + rng.normal(0, 25, (height, width, 3)), 0, 255).astype(np.uint8)
        found.append(Decoded(pixels, 0, 0, width, height, (0.0, 0.0, float(width), float(height))))
    return found


@pytest.mark.parametrize("model", NETWORKS)
def test_a_published_view_is_the_librarys_transform(model: str) -> None:
    view, transform = preprocessing_of(model, None, PUBLISHED).view, library_transform(model)
    assert view is not None
    for image in odd_photographs():
        expected = transform(Image.fromarray(image.pixels))
        np.testing.assert_array_equal(images.render(image, view.size, view=view), expected)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "lanczos"])
def test_every_crop_mode_of_timm(mode: str, interpolation: str) -> None:
    known = timm.get_pretrained_cfg("resnet18").to_dict()
    config = {**known, "crop_mode": mode, "interpolation": interpolation}
    for size in (None, 64, 197):
        view = preprocessing_of_config(config, size, "a network").view
        given = {"input_size": (3, size, size)} if size else {}
        made = create_transform(
            **resolve_data_config(given, pretrained_cfg=config, use_test_size=True), normalize=False
        )
        for image in odd_photographs():
            expected = made(Image.fromarray(image.pixels)).permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(images.render(image, view.size, view=view), expected)


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.slow
def test_a_published_view_is_exact_on_all_photographs(model: str, data_root: Path) -> None:
    view, transform = preprocessing_of(model, None, PUBLISHED).view, library_transform(model)
    files = sorted([*data_root.glob("CUB_200_2011/images/*/*.jpg"), *data_root.glob("oxford-iiit-pet/images/*.jpg")])
    assert len(files) > 1100
    for file in files:
        image = images.decode(str(file))
        np.testing.assert_array_equal(
            images.render(image, view.size, view=view), transform(Image.fromarray(image.pixels)), err_msg=str(file)
        )


@pytest.mark.parametrize("model", NETWORKS[::4])
def test_a_view_that_is_hardly_moved_is_hardly_another(model: str, data_root: Path) -> None:
    view = preprocessing_of(model, None, PUBLISHED).view
    for file in sorted(data_root.glob("CUB_200_2011/images/*/*.jpg"))[::60]:
        image = images.decode(str(file))
        still = images.render(image, view.size, view=view).astype(int)
        moved = images.render(image, view.size, dx=1e-6, view=view).astype(int)
        assert np.abs(still - moved).max() <= 8


def test_a_moved_view_shows_what_lies_beside_the_crop() -> None:
    """A photograph of 300 × 200 px whose columns are as bright as their number, cropped to its middle 200 × 200."""
    pixels = np.repeat(np.repeat(np.arange(300)[None, :, None] * 0.8, 200, 0), 3, 2).astype(np.uint8)
    image = Decoded(pixels, 0, 0, 300, 200, (0.0, 0.0, 300.0, 200.0))
    view = PublishedView(200, "shorter", 200, "bilinear")
    still, right = (images.render(image, 200, dx=dx, view=view).astype(int) for dx in (0, 30))
    np.testing.assert_array_equal(still, pixels[:, 50:250])
    np.testing.assert_array_equal(right, pixels[:, 80:280])
    beyond = images.render(image, 200, dx=100, view=view)[:, -40:]
    assert (beyond == pixels[0, -1]).all()


def test_a_border_keeps_the_librarys_fill_when_the_view_moves() -> None:
    pixels = np.full((50, 100, 3), 200, np.uint8)
    image = Decoded(pixels, 0, 0, 100, 50, (0.0, 0.0, 100.0, 50.0))
    view = PublishedView(100, "longer", 100, "bicubic", fill=(10, 20, 30))
    for dy in (0.0, 5.0, -5.0):
        seen = images.render(image, 100, dy=dy, view=view)
        edge = int(25 - dy)
        assert (seen[: edge - 3] == (10, 20, 30)).all()
        assert (seen[edge + 3 : edge + 47] == 200).all()
        assert (seen[edge + 53 :] == (10, 20, 30)).all()


@given(width=st.integers(1, 700), height=st.integers(1, 700), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_window_is_what_the_crop_shows(width: int, height: int, data: st.DataObject) -> None:
    """A window holds the middle of the image, to a pixel of the result, and has the crop's share of its sides."""
    resize = data.draw(st.sampled_from(["shorter", "longer", "both"]))
    size = data.draw(st.integers(8, 300))
    view = PublishedView(size, resize, data.draw(st.integers(8, 400)))
    wide, high = view.resized(width, height)
    if not (wide and high):
        return
    x, y, w, h = view.window(width, height)
    assert w == pytest.approx(size * width / wide)
    assert h == pytest.approx(size * height / high)
    assert abs(x + w / 2 - width / 2) <= width / wide
    assert abs(y + h / 2 - height / 2) <= height / high
