"""What every registered degradation must fulfil, and the exact bits of the built-in ones."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnsens_bench import images
from cnnsens_bench.degradations import Streams, degradation, degradations
from cnnsens_bench.degradations.base import draw_rows
from cnnsens_bench.degradations.kernels import pixelwise
from cnnsens_bench.utils.errors import UserError

IDS = [f"image_{i}" for i in range(4)]
SIZE = 24
PIXELS = [name for name in degradations if not degradations[name].geometric]
RANDOM = [name for name in degradations if degradations[name].random]
GOLDEN = Path(__file__).with_name("golden.json")


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


def flat(draw: Any) -> Tensor:
    """Return all numbers of a draw, one row per image."""
    return torch.cat([part.flatten(1) if part.ndim > 1 else part[:, None] for part in parts(draw)], dim=1)


def parts(draw: Any) -> tuple[Tensor, ...]:
    return draw if isinstance(draw, tuple) else (draw,)


@pytest.mark.parametrize("name", PIXELS)
def test_shape_and_input_are_kept(name: str) -> None:
    before = pixels()
    given = before.clone(memory_format=torch.preserve_format)
    for level in levels(name):
        result = apply(name, level, batch=given)
        assert result.shape == given.shape
        assert result.dtype == torch.float32
        assert result.isfinite().all()
        assert torch.equal(given, before)


@pytest.mark.parametrize("name", PIXELS)
def test_bits_do_not_depend_on_the_batch(name: str) -> None:
    """Sizes are also odd, because vector and scalar code must round alike."""
    for size in (24, 17):
        batch = pixels(size=size)
        whole = apply(name, levels(name)[-1], batch=batch)
        for i, image_id in enumerate(IDS):
            assert torch.equal(apply(name, levels(name)[-1], [image_id], batch=batch[i : i + 1])[0], whole[i])
        order = [2, 0, 3, 1]
        assert torch.equal(apply(name, levels(name)[-1], [IDS[i] for i in order], batch=batch[order]), whole[order])


@pytest.mark.parametrize("name", PIXELS)
def test_bits_do_not_depend_on_threads(name: str) -> None:
    batch = pixels(size=160)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(apply(name, levels(name)[-1], batch=batch))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


@pytest.mark.parametrize("name", PIXELS)
def test_operations_on_tensors_give_the_bits_of_the_loops(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run on the CPU what a GPU runs."""
    batch = pixels(size=40)
    for level in levels(name):
        loops = apply(name, level, batch=batch)
        with monkeypatch.context() as patch:
            patch.setattr(pixelwise, "on_cpu", lambda pixels: False)
            assert torch.equal(apply(name, level, batch=batch), loops)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", PIXELS)
def test_a_gpu_draws_the_same_bits_and_degrades_to_a_rounding(name: str) -> None:
    d, batch = degradations[name], pixels(size=64)
    here, there = (d.draw(Streams(0, "data", IDS, 0, device), 64) for device in ("cpu", "cuda"))
    if d.random:
        assert torch.equal(flat(here), flat(there).cpu())
    for level in levels(name):
        ours, gpus = d.apply(batch, here, level), d.apply(batch.cuda(), there, level).cpu()
        torch.testing.assert_close(gpus, ours, rtol=3e-7, atol=3e-5)


@pytest.mark.parametrize("name", RANDOM)
def test_trials_differ_and_repeat(name: str) -> None:
    d = degradations[name]
    first, again, other = (flat(d.draw(Streams(0, "data", IDS, trial), SIZE)) for trial in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first != other).any(dim=1).all()


def golden() -> dict[str, str]:
    """Return hashes of each degradation's pixels at its first and last level."""
    found = {}
    picture = images.Decoded(pixels(1, 90)[0].permute(1, 2, 0).byte().numpy(), 0, 0, 90, 90, (20.0, 15.5, 48.0, 60.0))
    for name, d in degradations.items():
        for level in sorted({levels(name)[0], levels(name)[-1]}):
            if d.geometric:
                views = d.motion(d.draw(Streams(0, "data", IDS, 0), SIZE), level).views(len(IDS))
                result = np.stack([images.render(picture, SIZE, *view) for view in views])
            else:
                result = apply(name, level).clamp(0, 255).contiguous().numpy()
            found[f"{name} {level:g}"] = hashlib.sha256(result.tobytes()).hexdigest()[:16]
    return found


def test_golden_bits() -> None:
    """The bits are the same on every machine; if they change, the version of the protocol must change.

    `python -m tests.degradations.test_degradations` writes the file again.
    """
    assert golden() == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize(("name", "axis"), [("flip_lr", 3), ("flip_ud", 2)])
def test_flips_mirror_and_are_their_own_inverse(name: str, axis: int) -> None:
    given = pixels()
    result = apply(name, 0.0)
    assert torch.equal(result, given.flip(axis))
    assert torch.equal(apply(name, 0.0, batch=result), given)


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
        del degradations.data["test_darker"]  # type: ignore[attr-defined]


def test_rows_of_a_draw() -> None:
    draw = (torch.arange(4), [10, 11, 12, 13], None)
    part = draw_rows(draw, slice(1, 3))
    assert torch.equal(part[0], torch.tensor([1, 2]))
    assert part[1:] == ([11, 12], None)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden(), indent=1, ensure_ascii=False) + "\n")
