"""A trial of every condition and pre-filter on made-up pixels, so that mistakes show before anything is computed.

It also checks what a sweep relies on: that the input stays as it is, because other results are computed from it, and
that an image's result depends only on its pixels and its draw, not on the images beside it.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.defenses import Defense
from cnnsens_bench.degradations import Degradation, Motion, Streams
from cnnsens_bench.degradations.base import draw_rows
from cnnsens_bench.engine.degrade import LONGEST, check_result
from cnnsens_bench.engine.frost import GENERATED, degradation_with
from cnnsens_bench.engine.sweep import Condition
from cnnsens_bench.utils.errors import UserError, first_line

IDS = ("image_0", "image_1")
LAST = np.array([1])
"""The position of one of the images, in the form in which a sweep selects images of a draw."""
ROUNDING = 0.01
"""The gray levels that a library's sums may differ by when a batch has another size."""

T = TypeVar("T")


def probe(
    conditions: Iterable[Condition],
    sizes: Iterable[int],
    defenses: Iterable[Defense] = (),
    gradients: bool = False,
    frost: str = GENERATED,
) -> None:
    """Apply each condition at each level, and each defense's pre-filter, to two images of each input size.

    Parameters
    ----------
    conditions
        The conditions of a sweep.
    sizes
        The sides of the networks' inputs in pixels.
    defenses
        The defenses of a sweep.
    gradients
        Whether pre-filters must give a gradient.
    frost
        The ice of `common:frost`, as in `Sweep`.

    Raises
    ------
    UserError
        If one of them raises, changes the size, returns NaN, changes its input, or returns another result for an image
        when it is called again or with that image alone; or if a gradient is needed and there is none.

    Examples
    --------
    >>> probe([Condition("flip_lr", (0.0,), 1)], sizes=[32])
    """
    for size in sorted(set(sizes)):
        steps = torch.arange(len(IDS) * 3 * size * size, dtype=torch.float32)
        pixels = (steps * 97 % 2551 / 10).view(len(IDS), size, size, 3).permute(0, 3, 1, 2)
        pixels[1] *= 0.6  # of another brightness, so that a function which looks at the whole batch shows it
        for defense in {defense.name: defense for defense in defenses}.values():
            _filter(defense, pixels)
            if gradients and defense.prefilter and not defense.recalibration:
                _differentiate(defense, pixels)
        for condition in conditions:
            _degrade(degradation_with(frost, condition.degradation), pixels, condition.levels)


def _filter(defense: Defense, pixels: Tensor) -> None:
    prefilter = defense.prefilter
    if prefilter is None:
        return
    subject = f"defense '{defense.name}' fails on inputs of {pixels.shape[-1]} px"
    _as_user_error(subject, _check, pixels, pixels.clone(), lambda given, rows: prefilter(given))


def _differentiate(defense: Defense, pixels: Tensor) -> None:
    assert defense.prefilter is not None
    leaf = pixels.clone().requires_grad_()
    try:
        torch.autograd.grad(defense.prefilter(leaf).sum(), leaf)
    except RuntimeError as error:
        raise UserError(
            f"defense '{defense.name}' gives no gradient ({first_line(error, LONGEST)}): write it in torch, or leave "
            "it out of a run with sensitivity=on"
        ) from error


def _degrade(degradation: Degradation, pixels: Tensor, levels: Sequence[float]) -> None:
    """Apply all levels to one input with one draw, as a sweep does."""
    name, fails = f"degradation '{degradation.name}'", f"fails on inputs of {pixels.shape[-1]} px"
    draw = _as_user_error(f"{name} {fails}", _draw, degradation, pixels.shape[-1])
    shared = pixels.clone(), copy.deepcopy(draw)
    for level in levels:
        _as_user_error(f"{name} at level {level:g} {fails}", _check_level, degradation, level, (pixels, draw), shared)


def _draw(degradation: Degradation, size: int) -> Any:
    def draw_for(*image_ids: str) -> Any:
        return degradation.draw(Streams(0, "probe", image_ids, 0), size)

    draw = draw_for(*IDS)
    _check_draw(draw)
    if not _same(draw, draw_for(*IDS)):
        raise ValueError("its draw is another when drawn again: take random numbers from the given streams alone")
    if not _same(draw_rows(draw, LAST), draw_for(IDS[1]), 1e-5):
        raise ValueError("its draw for an image depends on what is drawn beside it")
    return draw


def _check_draw(draw: Any) -> None:
    if type(draw) is tuple:
        for part in draw:
            _check_draw(part)
    elif draw is not None:
        if not isinstance(draw, Tensor | np.ndarray):
            kind = type(draw).__name__
            raise ValueError(f"its draw is a {kind}: give a tensor of one row an image, or a tuple of such")
        if not draw.ndim or len(draw) != len(IDS):
            rows = len(draw) if draw.ndim else "no"
            raise ValueError(f"its draw has {rows} rows for {len(IDS)} images: give one row an image")


def _check_level(degradation: Degradation, level: float, kept: tuple[Tensor, Any], shared: tuple[Tensor, Any]) -> None:
    """Check a level on the `shared` pixels and draw; `kept` are copies of what they were."""
    (pixels, draw), (given, own) = kept, shared

    def checked(result: Any) -> Any:
        if not _same(own, draw):
            raise ValueError("it changes its draw in place, which all levels share: work on a copy")
        return result

    if degradation.geometric:
        views, again = (checked(_views(degradation, own, level, len(IDS))) for _ in range(2))
        _check_repeated(views, again, _views(degradation, draw_rows(draw, LAST), level, 1))

    def apply(some: Tensor, rows: Any) -> Any:
        return checked(degradation.apply(some, own if rows is None else draw_rows(draw, rows), level))

    _check(pixels, given, apply)


def _views(degradation: Degradation, draw: Any, level: float, count: int) -> Tensor:
    motion = degradation.motion(draw, level)
    if not isinstance(motion, Motion):
        raise ValueError(f"it returned a {type(motion).__name__}, not a Motion")
    views = torch.tensor(motion.views(count))
    if not views.isfinite().all():
        raise ValueError("its motion is not finite")
    return views


def _check(pixels: Tensor, given: Tensor, function: Callable[[Tensor, Any], Any]) -> None:
    """Check a function of pixels and image positions (None for all) on `given`, which must stay equal to `pixels`."""
    result = function(given, None)
    if not torch.equal(given, pixels):
        raise ValueError("it changes its input in place: work on a copy")
    check_result(result, pixels)
    if result.isnan().any():
        raise ValueError("it returned NaN")
    _check_repeated(result.clone(), function(given, None), function(pixels[LAST], LAST))


def _check_repeated(result: Tensor, again: Tensor, alone: Tensor) -> None:
    """Raise `ValueError` unless `again` equals `result`, and `alone` equals the result of the last image."""
    if not torch.equal(again, result):
        raise ValueError("its result is another when computed again: take random numbers in draw, from its streams")
    if not _same(alone, result[LAST], ROUNDING):
        raise ValueError("its result for an image depends on what is computed beside it: work image by image")


def _same(one: Any, other: Any, tolerance: float = 0.0) -> bool:
    """Return whether two draws or results are equal, up to a `tolerance`."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(_same(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if one is None or other is None or isinstance(one, tuple) or isinstance(other, tuple):
        return one is other
    a, b = torch.as_tensor(one), torch.as_tensor(other)
    return a.shape == b.shape and (
        torch.equal(a, b) or (tolerance > 0 and torch.allclose(a.double(), b.double(), rtol=0, atol=tolerance))
    )


def _as_user_error(subject: str, work: Callable[..., T], *arguments: Any) -> T:
    """Return `work(*arguments)`; raise its errors as a `UserError` of one sentence that begins with `subject`."""
    try:
        return work(*arguments)
    except UserError:
        raise
    except Exception as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise UserError(f"{subject}: {kind}{first_line(error, LONGEST)}") from error
