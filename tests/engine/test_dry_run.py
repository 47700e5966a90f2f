"""What can be known to fail fails before anything is trained or swept."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnsens_bench.defenses import Defense
from cnnsens_bench.degradations import Motion, Streams, degradation, degradations
from cnnsens_bench.degradations.base import normal_per_value, uniform_per_image
from cnnsens_bench.engine.dry_run import probe
from cnnsens_bench.engine.sweep import Condition
from cnnsens_bench.utils.errors import UserError


@pytest.fixture
def forget() -> Iterator[None]:
    before = dict(degradations)
    yield
    for name in set(degradations) - set(before):
        del degradations.data[name]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(degradations))
def test_every_built_in_one_passes(name: str) -> None:
    probe([Condition(name, degradations[name].resolve_levels(), 1)], [32, 49])


@pytest.mark.parametrize(
    "name", ["GaussNoise", "ElasticTransform", "RandomFog", "CLAHE", "GlassBlur", "InvertImg(p=0.5)"]
)
def test_a_librarys_pass(name: str) -> None:
    probe([Condition(f"albumentations:{name}", (0.0,), 1)], [49])


def raises(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
    raise RuntimeError("no such sensor\nand more")


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (raises, "degradation 'mine' at level 7 fails on inputs of 32 px: RuntimeError: no such sensor"),
        (lambda pixels, draw, level: pixels[..., 1:], "fails on inputs of 32 px: it returned (2, 3, 32, 31)"),
        (lambda pixels, draw, level: pixels * float("nan"), "it returned NaN"),
        (lambda pixels, draw, level: None, "it returned a NoneType, not a tensor"),
        (lambda pixels, draw, level: pixels + draw, "fails on inputs of 32 px"),
        (lambda pixels, draw, level: pixels * 1j, "it returned numbers of type complex64: give floating-point ones"),
        (lambda pixels, draw, level: pixels.byte(), "it returned numbers of type uint8"),
    ],
)
@pytest.mark.usefixtures("forget")
def test_a_users_mistake_is_one_sentence(function: object, sentence: str) -> None:
    degradation("mine", draw=uniform_per_image, levels=(7,))(function)
    with pytest.raises(UserError) as caught:
        probe([Condition("mine", (7.0,), 1)], [32])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("forget")
def test_a_motion_must_be_finite() -> None:
    degradation("mine", levels=(7,), geometric=True)(lambda draw, level: Motion(dx=torch.tensor([1.0, float("inf")])))
    with pytest.raises(UserError, match="its motion is not finite"):
        probe([Condition("mine", (7.0,), 1)], [32])


def in_place(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
    pixels += level * draw
    return pixels


def in_place_at_one_level(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
    return in_place(pixels, draw, level) if level == 9 else pixels + level * draw


def draw_in_place(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
    return pixels + draw.mul_(level)


def in_the_second_part(pixels: Tensor, draw: tuple[Tensor, Tensor], level: float) -> Tensor:
    return pixels + draw[0] + draw[1].mul_(level)


def chance(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
    return pixels + level * torch.rand_like(pixels)


def of_the_batch(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
    return (pixels - pixels.mean()) * 0.5 + pixels.mean()


def of_the_batchs_draw(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
    return pixels + draw.mean()


def drawn(text: str) -> Callable[[Streams, int], Any]:
    """Draws that are none, by what they are."""
    normal = normal_per_value
    return {
        "list": lambda streams, size: list(normal(streams, size)),
        "dict": lambda streams, size: {"noise": normal(streams, size)},
        "list in a tuple": lambda streams, size: (normal(streams, size), [1, 2]),
        "another each time": lambda streams, size: torch.randn(len(streams.image_ids), 3, size, size),
        "of the batch": lambda streams, size: normal(streams, size) - normal(streams, size).mean(),
        "one for all": lambda streams, size: normal(streams, size)[:1],
        "a number": lambda streams, size: torch.tensor(3.0),
        "two": lambda streams, size: (normal(streams, size), normal(streams, size)),
    }[text]


def plus(pixels: Tensor, draw: Any, level: float) -> Tensor:
    return pixels + level * torch.stack(list(draw))


@pytest.mark.parametrize(
    ("draw", "function", "sentence"),
    [
        (normal_per_value, in_place, "at level 7 fails on inputs of 32 px: it changes its input in place: work on a"),
        (normal_per_value, in_place_at_one_level, "at level 9 fails on inputs of 32 px: it changes its input in place"),
        (normal_per_value, draw_in_place, "it changes its draw in place, which all levels share: work on a copy"),
        (drawn("two"), in_the_second_part, "it changes its draw in place"),
        (normal_per_value, chance, "its result is another when computed again: take random numbers in draw"),
        (normal_per_value, of_the_batch, "its result for an image depends on what is computed beside it"),
        (normal_per_value, of_the_batchs_draw, "its result for an image depends on what is computed beside it"),
        (drawn("list"), plus, "'mine' fails on inputs of 32 px: its draw is a list: give a tensor of one row an image"),
        (drawn("dict"), plus, "its draw is a dict: give a tensor"),
        (drawn("list in a tuple"), plus, "its draw is a list"),
        (drawn("another each time"), plus, "its draw is another when drawn again"),
        (drawn("of the batch"), plus, "its draw for an image depends on what is drawn beside it"),
        (drawn("one for all"), plus, "its draw has 1 rows for 2 images: give one row an image"),
        (drawn("a number"), plus, "its draw has no rows for 2 images"),
    ],
)
@pytest.mark.usefixtures("forget")
def test_what_would_spoil_other_results_is_refused(draw: Any, function: object, sentence: str) -> None:
    degradation("mine", draw=draw, levels=(7, 9))(function)
    with pytest.raises(UserError) as caught:
        probe([Condition("mine", (7.0, 9.0), 1)], [32])
    assert sentence in str(caught.value)


@pytest.mark.usefixtures("forget")
def test_a_draw_of_several_parts_passes() -> None:
    degradation("mine", draw=drawn("two"), levels=(7,))(lambda pixels, draw, level: pixels + draw[0] * level + draw[1])
    probe([Condition("mine", (7.0,), 1)], [32])


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda draw, level: draw * level, "it returned a Tensor, not a Motion"),
        (lambda draw, level: Motion(dx=draw.mul_(level)), "it changes its draw in place"),
        (lambda draw, level: Motion(dx=float(np.random.default_rng().normal())), "is another when computed again"),
        (lambda draw, level: Motion(dx=draw - draw.mean()), "depends on what is computed beside it"),
        (lambda draw, level: Motion(dx=torch.zeros(5)), "fails on inputs of 32 px"),
    ],
)
@pytest.mark.usefixtures("forget")
def test_motions_too(function: object, sentence: str) -> None:
    degradation("mine", draw=uniform_per_image, levels=(7,), geometric=True)(function)
    with pytest.raises(UserError, match=sentence):
        probe([Condition("mine", (7.0,), 1)], [32])


@pytest.mark.parametrize(
    ("prefilter", "sentence"),
    [
        (lambda pixels: pixels.add_(3), "it changes its input in place: work on a copy"),
        (lambda pixels: pixels + torch.rand_like(pixels), "its result is another when computed again"),
        (lambda pixels: pixels - pixels.mean(), "depends on what is computed beside it"),
        (lambda pixels: pixels.int(), "it returned numbers of type int32"),
    ],
)
def test_pre_filters_too(prefilter: Callable[[Tensor], Tensor], sentence: str) -> None:
    with pytest.raises(UserError, match=f"defense 'mine' fails on inputs of 32 px: .*{sentence}"):
        probe([], [32], [Defense("mine", prefilter)])


def test_a_librarys_mistake_too() -> None:
    for text, sentence in (
        ("albumentations:RandomCrop(height=8, width=8)", "keep the image's size"),
        ("albumentations:RandomCrop(height=99, width=99)", "inputs of 32 px"),
    ):
        with pytest.raises(UserError, match=sentence):
            probe([Condition(text, (1.0,), 1)], [32])
