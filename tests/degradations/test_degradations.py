"""The degradations: each registered one keeps the contract, and each does what its definition says."""

import hashlib

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnsens_bench.degradations import Streams, degradation, degradations
from cnnsens_bench.degradations.base import draw_rows
from cnnsens_bench.errors import UserError

IDS = [f"image_{i}" for i in range(4)]
SIZE = 24
PIXELS = [name for name in degradations if not degradations[name].geometric]
RANDOM = [name for name in degradations if degradations[name].random]


def pixels(n: int = 4, size: int = SIZE) -> Tensor:
    values = (torch.arange(n * 3 * size * size) * 7919 % 25501).float().div(100).view(n, 3, size, size)
    values[:, :, 0] = 0  # black
    values[:, :, 1] = 255  # white
    values[:, :, 2] = 90  # gray
    values[:, 1:, 3] = 0  # pure red
    return values.contiguous(memory_format=torch.channels_last)


def apply(name: str, level: float, ids: list[str] = IDS, trial: int = 0, batch: Tensor | None = None) -> Tensor:
    d = degradations[name]
    given = pixels() if batch is None else batch
    draw = d.draw(Streams(0, "data", ids, trial), given.shape[-1])
    return d.apply(given, draw, level)


def levels(name: str) -> tuple[float, ...]:
    return degradations[name].levels or (0.0,)


@pytest.mark.parametrize("name", PIXELS)
def test_shape_and_input_are_kept(name: str) -> None:
    before = pixels()
    given = before.clone(memory_format=torch.preserve_format)
    result = apply(name, levels(name)[-1], batch=given)
    assert result.shape == given.shape
    assert result.dtype == torch.float32
    assert result.isfinite().all()
    assert torch.equal(given, before)


@pytest.mark.parametrize("name", PIXELS)
def test_bits_do_not_depend_on_the_batch(name: str) -> None:
    """Odd sizes too: vector and scalar code must round alike."""
    for size in (24, 17):
        batch = pixels(size=size)
        whole = apply(name, levels(name)[-1], batch=batch)
        for i, image_id in enumerate(IDS):
            assert torch.equal(apply(name, levels(name)[-1], [image_id], batch=batch[i : i + 1])[0], whole[i])
        order = [2, 0, 3, 1]
        assert torch.equal(apply(name, levels(name)[-1], [IDS[i] for i in order], batch=batch[order]), whole[order])


@pytest.mark.parametrize("name", RANDOM)
def test_trials_differ_and_repeat(name: str) -> None:
    d = degradations[name]
    first, again, other = (d.draw(Streams(0, "data", IDS, trial), SIZE) for trial in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


GOLDEN = {
    "flip_lr": "57b2503f92a23d39",
    "flip_ud": "4e4ce460efd4b148",
    "gaussian_intensity": "373683502ba6719b",
    "gaussian_rgb": "2f19b9935aad3655",
    "pepper": "d12a0f808f4789e2",
}


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_bits(name: str) -> None:
    """The same bits on every machine, today and later: a change here is a change of the protocol's version."""
    result = apply(name, levels(name)[-1]).clamp(0, 255).contiguous()
    assert hashlib.sha256(result.numpy().tobytes()).hexdigest()[:16] == GOLDEN[name]


@pytest.mark.parametrize("name", ["gaussian_rgb", "gaussian_intensity"])
def test_gaussian_levels_scale_one_draw(name: str) -> None:
    gray = torch.full((1, 3, 64, 64), 128.0)
    small, large = (apply(name, level, ["a"], batch=gray) - gray for level in (1.0, 8.0))
    torch.testing.assert_close(large, 8 * small, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gaussian_rgb", "gaussian_intensity"])
@pytest.mark.parametrize("level", [1.0, 8.0])
def test_gaussian_deviation_is_its_level(name: str, level: float) -> None:
    gray = torch.full((1, 3, 600, 600), 128.0)
    noise = (apply(name, level, ["a"], batch=gray) - gray)[0]
    count = noise.numel() if name == "gaussian_rgb" else noise[0].numel()
    assert abs(noise.mean()) < 5 * level / count**0.5
    assert abs(noise.std() / level - 1) < 5 / (2 * count) ** 0.5
    if name == "gaussian_rgb":
        assert abs(np.corrcoef(noise.flatten(1).numpy())[0, 1]) < 5 / (count / 3) ** 0.5


def test_intensity_equals_the_textbook_conversion_and_back() -> None:
    """Gonzalez & Woods' HSI with its sectors and arc cosine, in float64."""
    rgb = torch.rand(1, 3, 50, 50, generator=torch.Generator().manual_seed(2)) * 255
    draw = degradations["gaussian_intensity"].draw(Streams(0, "data", ["a"], 0), 50)
    ours = degradations["gaussian_intensity"].apply(rgb, draw, 12.0)[0].permute(1, 2, 0).double().numpy()
    hue, saturation, intensity = textbook_hsi(rgb[0].permute(1, 2, 0).double().numpy() / 255)
    noisy = np.clip(intensity + 12 / 255 * draw[0, 0].double().numpy(), 0, 1)
    np.testing.assert_allclose(ours, 255 * textbook_rgb(hue, saturation, noisy), atol=1e-3)


def textbook_hsi(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r, g, b = np.moveaxis(rgb, -1, 0)
    top = 0.5 * ((r - g) + (r - b))
    angle = np.arccos(np.clip(top / np.sqrt((r - g) ** 2 + (r - b) * (g - b)), -1, 1))
    return np.where(b <= g, angle, 2 * np.pi - angle), 1 - 3 * rgb.min(-1) / rgb.sum(-1), rgb.mean(-1)


def textbook_rgb(hue: np.ndarray, saturation: np.ndarray, intensity: np.ndarray) -> np.ndarray:
    sector = np.floor(hue / (2 * np.pi / 3)).astype(int) % 3
    inner = hue - sector * 2 * np.pi / 3
    low = intensity * (1 - saturation)
    high = intensity * (1 + saturation * np.cos(inner) / np.cos(np.pi / 3 - inner))
    rest = 3 * intensity - low - high
    parts = np.stack([high, rest, low], -1)
    return np.take_along_axis(parts, (np.arange(3) - sector[..., None]) % 3, axis=-1)


def test_intensity_of_black_is_gray_of_the_new_intensity() -> None:
    black = torch.zeros(1, 3, 16, 16)
    noisy = apply("gaussian_intensity", 20.0, ["a"], batch=black)
    draw = degradations["gaussian_intensity"].draw(Streams(0, "data", ["a"], 0), 16)
    assert torch.equal(noisy, (draw * 20.0).clamp(0, 255).expand_as(noisy))
    assert noisy.max() > 0


@pytest.mark.parametrize("p", [0.001, 0.04, 0.32, 1.0, 0.0])
def test_pepper_sets_its_share_to_zero_and_nothing_else(p: float) -> None:
    ones = torch.full((1, 3, 600, 600), 200.0)
    result = apply("pepper", p, ["a"], batch=ones)
    assert set(result.unique().tolist()) <= {0.0, 200.0}
    share = (result == 0).double().mean().item()
    assert abs(share - p) <= 5 * (p * (1 - p) / result.numel()) ** 0.5


def test_pepper_levels_are_nested_and_channels_independent() -> None:
    ones = torch.ones(1, 3, 400, 400)
    few, many = (apply("pepper", p, ["a"], batch=ones) == 0 for p in (0.02, 0.16))
    assert (few & ~many).sum() == 0
    shares = np.corrcoef(many[0].flatten(1).double().numpy())
    assert abs(shares[0, 1]) < 5 / 400


@pytest.mark.parametrize(("name", "axis"), [("flip_lr", 3), ("flip_ud", 2)])
def test_flips_mirror_and_are_their_own_inverse(name: str, axis: int) -> None:
    given = pixels()
    result = apply(name, 0.0)
    assert torch.equal(result, given.flip(axis))
    assert torch.equal(apply(name, 0.0, batch=result), given)


def test_translation_moves_by_sigma_within_its_reach() -> None:
    d = degradations["translation"]
    ids = [str(i) for i in range(20_000)]
    draw = d.draw(Streams(0, "data", ids, 0), 224)
    motion = d.motion(draw, 4.0)
    for shift in (motion.dx, motion.dy):
        assert abs(shift.mean()) < 5 * 4 / 20_000**0.5
        assert abs(shift.std() / 4 - 1) < 5 / 40_000**0.5
        assert shift.abs().max() < d.reach(4.0).shift
    assert abs(np.corrcoef(motion.dx, motion.dy)[0, 1]) < 5 / 20_000**0.5
    torch.testing.assert_close(d.motion(draw, 8.0).dx, 2 * motion.dx)


@pytest.mark.parametrize("name", sorted(degradations))
@pytest.mark.parametrize("level", [-1e9, float("nan"), float("inf"), "4", True, None])
def test_impossible_levels_are_refused(name: str, level: object) -> None:
    with pytest.raises(UserError, match=f"degradation '{name}'"):
        degradations[name].check_level(level)


def test_pepper_above_one_is_refused() -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        degradations["pepper"].check_level(1.5)


def test_an_unknown_name_lists_the_near_ones() -> None:
    with pytest.raises(UserError, match="did you mean 'gaussian_rgb'"):
        degradations["gausian_rgb"]


def test_users_register_their_own_and_clashes_are_refused() -> None:
    @degradation("test_darker", levels=(10, 20))
    def darker(pixels: Tensor, draw: None, level: float) -> Tensor:
        return pixels - level

    try:
        assert torch.equal(apply("test_darker", 10.0), pixels() - 10)
        with pytest.raises(UserError, match="registered twice"):
            degradation("test_darker")(lambda pixels, draw, level: pixels)
    finally:
        del degradations._items["test_darker"]  # type: ignore[attr-defined]


def test_rows_of_a_draw() -> None:
    draw = (torch.arange(4), [10, 11, 12, 13], None)
    part = draw_rows(draw, slice(1, 3))
    assert torch.equal(part[0], torch.tensor([1, 2]))
    assert part[1:] == ([11, 12], None)
