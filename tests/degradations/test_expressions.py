"""Expressions and config entries that describe degradations, and those that are refused."""

import contextlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnsens_bench.degradations import Streams, degradations, parse_degradation, write_expression
from cnnsens_bench.degradations.chain import Chain
from cnnsens_bench.degradations.expressions import SYNTAX
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.spec_parser import parse_spec

IDS = ["a", "b", "c"]
PIXELS = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255


def draw_of(text: str, trial: int = 0) -> object:
    return parse_degradation(text).draw(Streams(0, "data", IDS, trial), 32)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("pepper", "pepper"),
        ({"name": "pepper", "level": 0.02}, "pepper(0.02)"),
        ([{"name": "gaussian_intensity", "level": 4}, {"name": "pepper", "level": 0.02}],
         "gaussian_intensity(4) + pepper(0.02)"),
        (["gaussian_rgb", "flip_lr"], "gaussian_rgb + flip_lr"),
        ({"name": "albumentations:Blur", "arguments": {"blur_limit": ["level", "level"]}},
         "albumentations:Blur(blur_limit=(level, level,))"),
        ({"name": "albumentations:Posterize", "arguments": {"num_bits": 4, "p": 0.5}},
         "albumentations:Posterize(num_bits=4, p=0.5)"),
    ],
)  # fmt: skip
def test_entries_of_a_config_as_one_text(entry: object, text: str) -> None:
    assert write_expression(entry) == text
    parse_degradation(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("pepper", "pepper"),
        ("  gaussian_intensity( 4.0 )+pepper(0.020)", "gaussian_intensity(4) + pepper(0.02)"),
        ("common:fog(3) + pepper", "common:fog(3) + pepper"),
        ("white_balance(-1000) + jpeg(50)", "white_balance(-1000) + jpeg(50)"),
        ("flip_lr + gaussian_rgb", "flip_lr + gaussian_rgb"),
        ("albumentations:Blur(p=1, blur_limit=[3,level])", "albumentations:Blur(blur_limit=(3, level), p=1)"),
        ("albumentations:RandomFog", "albumentations:RandomFog"),
    ],
)
def test_a_name_has_one_canonical_form(text: str, canonical: str) -> None:
    assert parse_degradation(text).name == canonical
    assert parse_degradation(canonical).name == canonical


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("peper", "unknown degradation 'peper': did you mean 'pepper'"),
        ("common:fgo", "did you mean 'common:fog'"),
        ("pepper(2)", "level 2 is out of range: it must be between 0 and 1"),
        ("pepper(p=0.1)", "takes one number, its level"),
        ("pepper(1, 2)", "takes one number, its level"),
        ("pepper('x')", "level 'x' is not a number"),
        ("flip_lr(3)", "'flip_lr' has no level"),
        ("pepper + gaussian_rgb", "only one member can be swept"),
        ("pepper(0.1) + rotation(3)", "put it before the others"),
        ("pepper +", "cannot be read"),
        ("", "cannot be read"),
        ("pepper - 3", "no name of a degradation"),
        ("__import__('os').system('true')", "no name of a degradation"),
        ("pepper(__import__('os'))", "no number, text, list or mapping"),
        ("albumentations:Blr", "did you mean 'Blur'"),
        ("albumentations:Blur(3)", "by name"),
        ("albumentations:Blur(blr_limit=3)", "has no argument 'blr_limit': did you mean 'blur_limit'"),
        ("albumentations:Blur(blur_limit=3, blur_limit=5)", "is given twice"),
        ("albumentations:Blur(**{'blur_limit': 3})", "has no argument"),
        ("albumentations:Resize", "height: Field required"),
        ("albumentations:GaussNoise(std_range=(3, 4))", "must be >= 0 and <= 1"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_degradation(text)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (3, "neither a name"),
        ({"level": 3}, "neither a name"),
        ([], "neither a name"),
        ({"name": "pepper", "level": 0.1, "arguments": {}}, "both level and arguments"),
        ({"name": "albumentations:Blur", "arguments": 3}, "must be a mapping"),
    ],
)
def test_entries_that_are_none(entry: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        write_expression(entry)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ([{"name": "gaussian_intensity", "level": 4}, {"name": "pepper", "levl": 0.02}],
         "unknown key 'levl' of 'pepper': did you mean 'level'"),
        ([{"name": "pepper", "levels": [0.1]}], "unknown key 'levels' of 'pepper': did you mean 'level'"),
        (["flip_lr", {"name": "pepper", "trials": 3}], "unknown key 'trials' of 'pepper': known are"),
        ({"name": "pepper", "levl": 3}, "unknown key 'levl' of 'pepper': did you mean 'level'"),
    ],
)  # fmt: skip
def test_keys_that_mean_nothing_are_refused(entry: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        write_expression(entry)


@pytest.mark.parametrize("quote", ["'", '"'])
def test_what_is_quoted_is_no_name(quote: str) -> None:
    text = f"albumentations:Mine(text={quote}a:b it{chr(92)}'s c:d{quote}, other=level)"
    mine, fog = parse_spec(text + " + common:fog", SYNTAX)
    assert mine.arguments["text"] == "a:b it's c:d"
    assert fog.name == "common:fog"


@given(st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_degradation_or_a_sentence(text: str) -> None:
    with contextlib.suppress(UserError):
        parse_degradation(text)


def test_a_chain_is_its_members_one_after_the_other_on_their_own_draws() -> None:
    """This is the combination in section 5 of the paper."""
    both = parse_degradation("gaussian_intensity(4) + pepper(0.02)")
    assert isinstance(both, Chain)
    assert both.random
    assert not both.has_levels
    first, second = (degradations[name] for name in ("gaussian_intensity", "pepper"))
    own = [d.draw(Streams(0, "data", IDS, 0), 32) for d in (first, second)]
    draw = draw_of("gaussian_intensity(4) + pepper(0.02)")
    assert all(torch.equal(a, b) for a, b in zip(draw, own, strict=True))  # type: ignore[call-overload]
    noisy = first.apply(PIXELS, own[0], 4.0).clamp(0, 255)
    assert torch.equal(both.apply(PIXELS, draw, 0.0), second.apply(noisy, own[1], 0.02))


def test_one_member_is_swept_over_its_levels() -> None:
    swept = parse_degradation("gaussian_intensity(4) + pepper")
    assert swept.levels == degradations["pepper"].levels
    assert swept.level_name == "p"
    draw = draw_of("gaussian_intensity(4) + pepper")
    fixed = parse_degradation("gaussian_intensity(4) + pepper(0.08)")
    assert torch.equal(swept.apply(PIXELS, draw, 0.08), fixed.apply(PIXELS, draw, 0.0))
    with pytest.raises(UserError, match="between 0 and 1"):
        swept.check_level(3)


def test_the_same_member_twice_draws_twice() -> None:
    first, second = draw_of("gaussian_rgb(4) + gaussian_rgb(4)")  # type: ignore[misc]
    assert not torch.equal(first, second)


def test_a_chain_of_what_is_not_random_is_not() -> None:
    assert not parse_degradation("flip_lr + flip_ud + jpeg(50)").random


def test_a_geometric_member_moves_the_box_and_the_rest_follows() -> None:
    chain = parse_degradation("rotation(20) + jpeg(30) + gaussian_rgb")
    assert chain.geometric
    assert chain.reach(4.0) == degradations["rotation"].reach(20.0)
    draw = chain.draw(Streams(0, "data", IDS, 0), 32)
    expected = degradations["gaussian_rgb"].apply(degradations["jpeg"].apply(PIXELS, None, 30.0), draw[2], 8.0)
    assert torch.equal(chain.apply(PIXELS, draw, 8.0), expected)
