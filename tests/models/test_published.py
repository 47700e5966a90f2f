"""What networks see with `view=published`: the transforms of torchvision and timm, pixel for pixel."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import timm
import torchvision.models
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg

from cnnsens_bench.images.published import PublishedView, render_published
from cnnsens_bench.models.base import preprocessing_of
from cnnsens_bench.models.sources import timm as timm_source
from cnnsens_bench.utils.errors import UserError

SIZES = ((97, 61), (60, 131), (300, 411))
"""Widths and heights of odd images, smaller and larger than what networks see."""


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)) for width, height in SIZES]


def assert_equal_pixels(view: PublishedView, transform, what: str, images: list[Image.Image]) -> None:
    """Compare a view with a library's transform, which gives uint8 tensors."""
    for image in images:
        theirs = np.asarray(transform(image)).transpose(1, 2, 0)
        ours = render_published(np.asarray(image), view)
        assert theirs.dtype == np.uint8
        assert np.array_equal(ours, theirs), f"{what}: another view of an image of {image.size}"


def torchvision_tags() -> list[str]:
    names = torchvision.models.list_models(module=torchvision.models)
    return [f"torchvision/{name}.{tag}" for name in names for tag in torchvision.models.get_model_weights(name).__members__]  # fmt: skip  # noqa: E501


def test_every_tag_of_torchvision_sees_its_own_transform() -> None:
    """Each different transform is compared once, on pixels."""
    compared: dict[tuple, tuple] = {}
    for model in torchvision_tags():
        name, _, tag = model.removeprefix("torchvision/").partition(".")
        transform = torchvision.models.get_model_weights(name)[tag].transforms()
        preprocessing = preprocessing_of(model, None, "published")
        assert (preprocessing.mean, preprocessing.std) == (tuple(transform.mean), tuple(transform.std))
        rule = (*transform.crop_size, *transform.resize_size, transform.interpolation)
        assert compared.setdefault(rule, (preprocessing.view, transform))[0] == preprocessing.view
    assert len(compared) > 20
    for rule, (view, transform) in compared.items():
        transform.mean, transform.std = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
        assert_equal_pixels(view, lambda image: (transform(image) * 255).round().byte(), str(rule), pictures()[:2])  # noqa: B023


def test_the_whole_transform_of_torchvision() -> None:
    """The class that torchvision evaluates with, normalisation included, gives what the network gets."""
    model = "torchvision/mobilenet_v3_large.IMAGENET1K_V2"
    transform = torchvision.models.MobileNet_V3_Large_Weights.IMAGENET1K_V2.transforms()
    preprocessing = preprocessing_of(model, None, "published")
    for image in pictures():
        pixels = render_published(np.asarray(image), preprocessing.view).transpose(2, 0, 1) / 255
        mean, std = (np.array(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
        np.testing.assert_allclose((pixels - mean) / std, transform(image).numpy(), atol=1e-5)


def timm_rules(use_test_size: bool) -> dict[tuple, str]:
    """Return a model for each different way in which timm resizes and crops for its published weights."""
    rules: dict[tuple, str] = {}
    for name in timm.list_pretrained():
        config = resolve_data_config({}, pretrained_cfg=get_pretrained_cfg(name).to_dict(), use_test_size=use_test_size)
        border = tuple(config["mean"]) if config["crop_mode"] == "border" else ()
        rule = (config["input_size"], config["crop_pct"], config["interpolation"], config["crop_mode"], border)
        rules.setdefault(rule, name)
    return rules


def timm_cases() -> Iterator[tuple[str, str, dict]]:
    for input_size, use_test_size in (("test", True), ("train", False)):
        for name in timm_rules(use_test_size).values():
            config = get_pretrained_cfg(name).to_dict()
            yield name, input_size, resolve_data_config({}, pretrained_cfg=config, use_test_size=use_test_size)


def check_timm(cases: list[tuple[str, str, dict]], images: list[Image.Image]) -> None:
    for name, input_size, config in cases:
        if config["input_size"][1] != config["input_size"][2]:
            with pytest.raises(UserError, match="only square ones are evaluated"):
                preprocessing_of(f"timm/{name}", input_size, "published")
            continue
        preprocessing = preprocessing_of(f"timm/{name}", input_size, "published")
        assert preprocessing.input_size == config["input_size"][1]
        assert (preprocessing.mean, preprocessing.std) == (config["mean"], config["std"])
        transform = create_transform(**config, is_training=False, use_prefetcher=True)
        assert_equal_pixels(preprocessing.view, transform, f"timm/{name} ({input_size})", images)


def test_timms_transforms() -> None:
    """A spread of sizes, crop shares, filters and crop modes; every crop mode and every filter is among them."""
    cases = list(timm_cases())
    small = [case for case in cases if max(case[2]["input_size"]) <= 320]
    kinds = {(config["crop_mode"], config["interpolation"]): (name, size, config) for name, size, config in cases}
    assert {mode for mode, _ in kinds} == {"center", "squash", "border"}
    check_timm([*small[::6], *kinds.values()], pictures()[:2])


@pytest.mark.slow
def test_all_of_timms_transforms() -> None:
    cases = list(timm_cases())
    assert len(cases) > 150
    check_timm(cases, pictures())


def test_a_crop_mode_and_a_size_of_ones_own() -> None:
    """A size in pixels keeps the share that is cropped, as `--img-size` of timm's validation does."""
    name = "resnet50.a1_in1k"
    config = get_pretrained_cfg(name).to_dict()
    found = resolve_data_config({"input_size": (3, 160, 160)}, pretrained_cfg=config, use_test_size=True)
    transform = create_transform(**found, is_training=False, use_prefetcher=True)
    preprocessing = preprocessing_of(f"timm/{name}", 160, "published")
    assert_equal_pixels(preprocessing.view, transform, name, pictures())
    sizes = [preprocessing_of(f"timm/{name}", size, "box").input_size for size in (None, "train", "test", 160)]
    assert sizes == [224, 224, 288, 160]


def test_what_cannot_be_followed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="torchvision does not say at which size its weights were trained"):
        preprocessing_of("torchvision/resnet50", "train", "published")
    with pytest.raises(UserError, match=r"resnet50.V3': its weights are IMAGENET1K_V1, IMAGENET1K_V2"):
        preprocessing_of("torchvision/resnet50.V3", None, "published")
    with pytest.raises(UserError, match=r"no such weights: the tags of its weights are .*a1_in1k"):
        preprocessing_of("timm/resnet50.none", None, "published")
    odd = dataclasses.replace(get_pretrained_cfg("test_vit2"), interpolation="random")
    monkeypatch.setattr("timm.get_pretrained_cfg", lambda *_, **__: odd)
    timm_source._known_variant.cache_clear()
    with pytest.raises(UserError, match="the interpolation 'random', which is none of nearest, bilinear"):
        preprocessing_of("timm/test_vit2", None, "published")
    timm_source._known_variant.cache_clear()
