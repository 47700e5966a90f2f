"""What can be known to fail fails before anything is trained or swept."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cnnsens_bench.degradations import Motion, degradation, degradations
from cnnsens_bench.degradations.base import uniform_per_image
from cnnsens_bench.engine.conditions import levels_of
from cnnsens_bench.engine.plan import Condition
from cnnsens_bench.engine.probe import probe
from cnnsens_bench.errors import UserError


@pytest.fixture
def forget() -> Iterator[None]:
    before = dict(degradations)
    yield
    for name in set(degradations) - set(before):
        del degradations._items[name]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(degradations))
def test_every_built_in_one_passes(name: str) -> None:
    probe([Condition(name, levels_of(degradations[name]), 1)], [32, 49])


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


def test_a_librarys_mistake_too() -> None:
    for text, sentence in (
        ("albumentations:RandomCrop(height=8, width=8)", "keep the image's size"),
        ("albumentations:RandomCrop(height=99, width=99)", "inputs of 32 px"),
    ):
        with pytest.raises(UserError, match=sentence):
            probe([Condition(text, (1.0,), 1)], [32])
