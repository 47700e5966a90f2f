"""Every condition and pre-filter tried on made-up pixels before anything is trained or swept: it fails early.

What a run takes for granted is tried too: that the input, which other results are computed from, is left as it is,
and that an image's result follows from its pixels and its draw, whatever is computed beside it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.defenses import Defense
from cnnsens_bench.degradations import Degradation, Motion, Streams, parse_degradation
from cnnsens_bench.degradations.base import draw_rows
from cnnsens_bench.engine.degrade import check_result, first_line
from cnnsens_bench.engine.plan import Condition
from cnnsens_bench.utils.errors import UserError

IDS = ("image_0", "image_1")
LAST = np.array([1])
"""One of the images, by positions, as a run takes those out of a draw that it still needs."""
ROUNDING = 0.01
"""In gray levels: what a library's sums may differ by with the size of a batch."""

T = TypeVar("T")


def probe(
    conditions: Iterable[Condition],
    sizes: Iterable[int],
    defenses: Iterable[Defense] = (),
    differentiable: bool = False,
) -> None:
    """Apply each condition at each level, and each defense's pre-filter, to two images of each input size.

    Raises `UserError` where one raises, changes the size, returns NaN, changes its input, or gives an image another
    result when it is asked again or for that image alone; `differentiable`: also where a pre-filter gives no gradient.
    """
    for size in sorted(set(sizes)):
        steps = torch.arange(len(IDS) * 3 * size * size, dtype=torch.float32)
        pixels = (steps * 97 % 2551 / 10).view(len(IDS), size, size, 3).permute(0, 3, 1, 2)
        pixels[1] *= 0.6  # what looks at the whole batch sees that it is not of one brightness
        for defense in {defense.name: defense for defense in defenses}.values():
            _filter(defense, pixels)
            if differentiable and defense.prefilter and not defense.recalibration:
                _differentiate(defense, pixels)
        for condition in conditions:
            _degrade(parse_degradation(condition.degradation), pixels, condition.levels)


def _filter(defense: Defense, pixels: Tensor) -> None:
    prefilter = defense.prefilter
    if prefilter is None:
        return
    _told(
        f"defense '{defense.name}' fails on inputs of {pixels.shape[-1]} px",
        _tried,
        pixels,
        _copy(pixels),
        lambda given, rows: prefilter(given),
    )


def _differentiate(defense: Defense, pixels: Tensor) -> None:
    assert defense.prefilter is not None
    leaf = _copy(pixels).requires_grad_()
    try:
        torch.autograd.grad(defense.prefilter(leaf).sum(), leaf)
    except RuntimeError as error:
        raise UserError(
            f"defense '{defense.name}' gives no gradient ({first_line(error)}): write it in torch, or leave it out of "
            "a run with sensitivity=on"
        ) from error


def _degrade(degradation: Degradation, pixels: Tensor, levels: Sequence[float]) -> None:
    """All levels on one input and one draw, as in a run."""
    what, where = f"degradation '{degradation.name}'", f"fails on inputs of {pixels.shape[-1]} px"
    draw = _told(f"{what} {where}", _drawn, degradation, pixels.shape[-1])
    given, own = _copy(pixels), _copy(draw)
    for level in levels:
        _told(f"{what} at level {level:g} {where}", _at_level, degradation, level, (pixels, draw), (given, own))


def _drawn(degradation: Degradation, size: int) -> Any:
    def of(*image_ids: str) -> Any:
        return degradation.draw(Streams(0, "probe", image_ids, 0), size)

    draw = of(*IDS)
    _check_draw(draw)
    if not _same(draw, of(*IDS)):
        raise ValueError("its draw is another when drawn again: take random numbers from the given streams alone")
    if not _same(draw_rows(draw, LAST), of(IDS[1]), 1e-5):
        raise ValueError("its draw for an image depends on what is drawn beside it")
    return draw


def _check_draw(draw: Any) -> None:
    if type(draw) is tuple:
        for part in draw:
            _check_draw(part)
    elif draw is not None:
        if not isinstance(draw, Tensor | np.ndarray):
            raise ValueError(
                f"its draw is a {type(draw).__name__}: give a tensor of one row an image, or a tuple of such"
            )
        if not draw.ndim or len(draw) != len(IDS):
            rows = len(draw) if draw.ndim else "no"
            raise ValueError(f"its draw has {rows} rows for {len(IDS)} images: give one row an image")


def _at_level(degradation: Degradation, level: float, before: tuple[Tensor, Any], shared: tuple[Tensor, Any]) -> None:
    """`shared`: the pixels and the draw that all levels are given; `before`: what they were."""
    (pixels, draw), (given, own) = before, shared

    def watched(result: Any) -> Any:
        if not _same(own, draw):
            raise ValueError("it changes its draw in place, which all levels share: work on a copy")
        return result

    if degradation.geometric:
        views, again = (watched(_views(degradation, own, level, len(IDS))) for _ in range(2))
        _check_repeated(views, again, _views(degradation, draw_rows(draw, LAST), level, 1))
    _tried(
        pixels,
        given,
        lambda some, rows: watched(degradation.apply(some, own if rows is None else draw_rows(draw, rows), level)),
    )


def _views(degradation: Degradation, draw: Any, level: float, count: int) -> Tensor:
    motion = degradation.motion(draw, level)
    if not isinstance(motion, Motion):
        raise ValueError(f"it returned a {type(motion).__name__}, not a Motion")
    views = torch.tensor(motion.views(count))
    if not views.isfinite().all():
        raise ValueError("its motion is not finite")
    return views


def _tried(pixels: Tensor, given: Tensor, function: Callable[[Tensor, Any], Any]) -> None:
    """`function` (pixels, positions of images or None for all) of `given`, which are `pixels` and are to remain so."""
    result = function(given, None)
    if not torch.equal(given, pixels):
        raise ValueError("it changes its input in place: work on a copy")
    check_result(result, pixels)
    if result.isnan().any():
        raise ValueError("it returned NaN")
    _check_repeated(_copy(result), function(given, None), function(pixels[LAST], LAST))


def _check_repeated(result: Tensor, again: Tensor, alone: Tensor) -> None:
    """Raises `ValueError` unless `again` is the `result`, and `alone` that of the last image."""
    if not torch.equal(again, result):
        raise ValueError("its result is another when computed again: take random numbers in draw, from its streams")
    if not _same(alone, result[LAST], ROUNDING):
        raise ValueError("its result for an image depends on what is computed beside it: work image by image")


def _same(one: Any, other: Any, tolerance: float = 0.0) -> bool:
    """Whether two draws or results are equal, but for rounding where a `tolerance` is given."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(_same(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if one is None or other is None or isinstance(one, tuple) or isinstance(other, tuple):
        return one is other
    a, b = torch.as_tensor(one), torch.as_tensor(other)
    return a.shape == b.shape and (
        torch.equal(a, b) or (tolerance > 0 and torch.allclose(a.double(), b.double(), rtol=0, atol=tolerance))
    )


def _copy(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_copy, value))
    if isinstance(value, Tensor):
        return value.clone(memory_format=torch.preserve_format)
    return None if value is None else value.copy()


def _told(what: str, work: Callable[..., T], *arguments: Any) -> T:
    """`work(*arguments)`; whatever it raises as a `UserError` of one sentence that begins with `what`."""
    try:
        return work(*arguments)
    except UserError:
        raise
    except Exception as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise UserError(f"{what}: {kind}{first_line(error)}") from error
