"""Every condition and pre-filter tried on made-up pixels before anything is trained or swept: it fails early."""

from collections.abc import Iterable

import torch

from cnnsens_bench.defenses import Defense
from cnnsens_bench.degradations import Degradation, Streams, parse_degradation
from cnnsens_bench.engine.degrade import check_shape, first_line
from cnnsens_bench.engine.plan import Condition
from cnnsens_bench.errors import UserError

IMAGES = 2


def probe(
    conditions: Iterable[Condition],
    sizes: Iterable[int],
    defenses: Iterable[Defense] = (),
    differentiable: bool = False,
) -> None:
    """Apply each condition at each level, and each defense's pre-filter, to two images of each input size.

    Raises `UserError` where one raises, changes the size, or returns NaN; `differentiable`: also where a pre-filter
    gives no gradient.
    """
    for size in sorted(set(sizes)):
        steps = torch.arange(IMAGES * 3 * size * size, dtype=torch.float32)
        pixels = (steps * 97 % 2551 / 10).view(IMAGES, size, size, 3).permute(0, 3, 1, 2)
        for defense in {defense.name: defense for defense in defenses}.values():
            _filter(defense, pixels)
            if differentiable and defense.prefilter and not defense.recalibration:
                _differentiate(defense, pixels)
        for condition in conditions:
            degradation = parse_degradation(condition.degradation)
            streams = Streams(0, "probe", [f"image_{i}" for i in range(IMAGES)], 0)
            for level in condition.levels:
                try:
                    _try(degradation, streams, pixels.clone(memory_format=torch.preserve_format), level)
                except UserError:
                    raise
                except Exception as error:
                    kind = "" if type(error) in (ValueError, UserError) else f"{type(error).__name__}: "
                    raise UserError(
                        f"degradation '{degradation.name}' at level {level:g} fails on inputs of {size} px: "
                        f"{kind}{first_line(error)}"
                    ) from error


def _filter(defense: Defense, pixels: torch.Tensor) -> None:
    if defense.prefilter is None:
        return
    try:
        result = defense.prefilter(pixels.clone(memory_format=torch.preserve_format))
        check_shape(result, pixels)
        if result.isnan().any():
            raise ValueError("it returned NaN")
    except Exception as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        size = pixels.shape[-1]
        raise UserError(f"defense '{defense.name}' fails on inputs of {size} px: {kind}{first_line(error)}") from error


def _differentiate(defense: Defense, pixels: torch.Tensor) -> None:
    assert defense.prefilter is not None
    leaf = pixels.clone(memory_format=torch.preserve_format).requires_grad_()
    try:
        torch.autograd.grad(defense.prefilter(leaf).sum(), leaf)
    except RuntimeError as error:
        raise UserError(
            f"defense '{defense.name}' gives no gradient ({first_line(error)}): write it in torch, or leave it out of "
            "a run with sensitivity=on"
        ) from error


def _try(degradation: Degradation, streams: Streams, pixels: torch.Tensor, level: float) -> None:
    size = pixels.shape[-1]
    draw = degradation.draw(streams, size)
    if degradation.geometric:
        views = degradation.motion(draw, level).views(IMAGES)
        if not torch.tensor(views).isfinite().all():
            raise ValueError("its motion is not finite")
    result = degradation.apply(pixels, draw, level)
    check_shape(result, pixels)
    if result.isnan().any():
        raise ValueError("it returned NaN")
