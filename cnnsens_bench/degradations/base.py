"""What a degradation is, how to register one, and the usual draws of random numbers.

A degradation is a function of a batch of images, random numbers and a level:

    @degradation("row_noise", draw=lambda streams, size: streams.normal(1, size, 1), levels=(2, 8), level_name="σ")
    def row_noise(pixels, draw, level):
        return pixels + level * draw

Plain torch functions are enough. The formulas in `kernels/pixelwise.py` only make some built-in degradations faster.
A geometric degradation moves the view instead: see `degradation`.
"""

import keyword
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from cnnsens_bench.degradations.motion import UNLIMITED, Motion, Reach
from cnnsens_bench.degradations.streams import Streams
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import Registry
from cnnsens_bench.utils.transfer import take_rows

DrawFunction = Callable[[Streams, int], Any]
"""Draws the random numbers of a batch from its streams for inputs of so many pixels a side: a tensor, or a tuple of
tensors, with one row per image. All levels of a trial share the draw."""


class StoredPicture(NamedTuple):
    """A picture of a pre-made set: which corruption, and at which severity, from 1."""

    corruption: str
    severity: int


@dataclass(frozen=True)
class Degradation:
    """A degradation as a sweep uses it; `@degradation` makes one of a function.

    Parameters
    ----------
    name
        The canonical name, which the database keeps.
    function
        (pixels, draw, level) → pixels, or (draw, level) → `Motion` for a geometric degradation.
    draw_function
        Draws the random numbers; None if nothing is random.
    levels
        The levels of a sweep whose config names none; empty for a degradation without levels, which is stored at
        level 0, or whose levels the config must name (`needs_levels`).
    level_name
        The symbol or unit of the level, as figures show it.
    low, high
        The inclusive range of valid levels.
    whole
        Whether only whole numbers are valid levels.
    geometric
        Whether it moves the view instead of changing pixels.
    reach_function
        level → `Reach` of a geometric degradation; None if the view may be anywhere.
    needs_levels
        Whether the config must name the levels.
    """

    name: str
    function: Callable[..., Any]
    draw_function: DrawFunction | None
    levels: tuple[float, ...]
    level_name: str = "level"
    low: float = 0.0
    high: float = float("inf")
    whole: bool = False
    geometric: bool = False
    reach_function: Callable[[float], Reach] | None = None
    needs_levels: bool = False

    @property
    def has_levels(self) -> bool:
        """Whether it can be swept over levels."""
        return bool(self.levels) or self.needs_levels

    @property
    def random(self) -> bool:
        """Whether its trials differ; otherwise a run has one trial."""
        return self.draw_function is not None

    @property
    def as_stored(self) -> bool:
        """Whether its pixels are a stored picture's and nothing else, so that they are not rounded or stored again."""
        return False

    def draw(self, streams: Streams, size: int, key: str | None = None) -> Any:
        """Draw the random numbers of one trial.

        Parameters
        ----------
        streams
            The streams of the batch's images and of the trial.
        size
            The side of the network's input in pixels.
        key
            The name that selects the random streams; the degradation's name unless given.

        Returns
        -------
        tensor, tuple of tensors or None
            One row per image; None if nothing is random.
        """
        if not self.draw_function:
            return None
        streams = streams.of(key or self.name)
        # Views are rendered on the host, which would have to wait for numbers of a device.
        return self.draw_function(streams.on("cpu") if self.geometric else streams, size)

    def apply(self, pixels: Tensor, draw: Any, level: float) -> Tensor:
        """Degrade a batch.

        Parameters
        ----------
        pixels
            (N, 3, H, W) float32 in [0, 255], which are not changed. For a geometric degradation they must come from
            the moved views already, and are returned as they are.
        draw
            What `draw` returned for these images.
        level
            A level that `check_level` accepts.

        Returns
        -------
        Tensor
            (N, 3, H, W), not yet clamped to [0, 255].
        """
        return pixels if self.geometric else self.function(pixels, draw, level)

    def motion(self, draw: Any, level: float) -> Motion:
        """Return how the views of a batch move; only a geometric degradation has a motion."""
        return self.function(draw, level)

    def picture(self, level: float) -> StoredPicture | None:
        """Return the stored picture that takes the place of the image's view at a level; None for the view itself."""
        return None

    def reach(self, level: float) -> Reach:
        """Return how far outside the box a view can reach at a level; zero unless the degradation is geometric."""
        if not self.geometric:
            return Reach()
        return self.reach_function(level) if self.reach_function else UNLIMITED

    def check_level(self, level: object) -> float:
        """Return a level as a float.

        Raises
        ------
        UserError
            If it is no finite number, out of range, or not whole where it must be.
        """
        if isinstance(level, bool) or not isinstance(level, int | float):
            raise UserError(f"degradation '{self.name}': level {level!r} is not a number")
        if not math.isfinite(level):
            raise UserError(f"degradation '{self.name}': level {level} is not finite")
        if not self.low <= level <= self.high:
            bounds = f"at least {self.low:g}" if self.high == math.inf else f"between {self.low:g} and {self.high:g}"
            raise UserError(f"degradation '{self.name}': level {level:g} is out of range: it must be {bounds}")
        if self.whole and level != int(level):
            raise UserError(f"degradation '{self.name}': level {level:g} must be a whole number")
        return float(level)

    def resolve_levels(self, levels: Sequence[float] | None = None) -> tuple[float, ...]:
        """Return the levels of a sweep, each once.

        Parameters
        ----------
        levels
            The levels that the config names; None for the degradation's own, which is level 0 if it has none.

        Raises
        ------
        UserError
            If a level is impossible, levels are named for a degradation without any, or none where they are needed.
        """
        if levels is None and self.needs_levels:
            raise UserError(f"degradation '{self.name}' is swept over levels of your choice: name them in levels")
        if levels is not None and not self.has_levels:
            raise UserError(f"degradation '{self.name}' has no levels: leave levels out")
        return tuple(dict.fromkeys(self.check_level(level) for level in levels or self.levels or (0.0,)))


degradations: Registry[Degradation] = Registry("degradation")


def degradation(
    name: str,
    *,
    draw: DrawFunction | None = None,
    levels: Sequence[float] = (),
    level_name: str = "level",
    low: float = 0.0,
    high: float = float("inf"),
    whole: bool = False,
    geometric: bool = False,
    reach: Callable[[float], Reach] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as a degradation.

    The function is `(pixels, draw, level) -> pixels` with pixels (N, 3, H, W) float32 in [0, 255]; a run clamps the
    result to [0, 255]. It must not change pixels or draw in place, and each image's result may follow only from its own
    pixels, its own row of the draw, and the level. Before a run evaluates anything, it tries this out.

    With `geometric=True` the function is `(draw, level) -> Motion`, and the view is rendered anew from the photograph.

    Parameters
    ----------
    name
        The name in configs and in the database: letters, digits and `_`, perhaps with a prefix, as in `mine:row_noise`.
    draw
        `(streams, size) -> numbers` draws the random numbers, such as `lambda streams, size: streams.normal(3)` or one
        of this module's functions; None if nothing is random. One draw serves all levels.
    levels
        The levels of a sweep whose config names none; empty for a degradation without levels.
    level_name
        The symbol or unit of the level, as figures show it.
    low, high
        The inclusive range of valid levels.
    whole
        Whether only whole numbers are valid levels.
    geometric
        Whether the function returns a `Motion`.
    reach
        `level -> Reach` of a geometric degradation: how far outside the box its views can reach.

    Raises
    ------
    UserError
        If a config could not write the name, it is taken, or one of `levels` is impossible.

    Examples
    --------
    In `my_degradations.py`, for a run with `plugins=[my_degradations]`::

        from cnnsens_bench.degradations import Motion, degradation

        @degradation("darker", levels=(10, 20, 40), level_name="gray levels")
        def darker(pixels, draw, level):
            return pixels - level

        @degradation("tilt", draw=lambda streams, size: streams.normal(1)[:, 0], levels=(2, 5), geometric=True)
        def tilt(draw, level):
            return Motion(angle=level * draw)
    """
    _check_name(name)
    if not isinstance(levels, Sequence) or isinstance(levels, str):
        raise UserError(f"degradation '{name}': levels is {levels!r}: it must be a sequence of numbers, as (1, 4, 16)")

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        made = Degradation(name, function, draw, tuple(levels), level_name, low, high, whole, geometric, reach)
        for level in levels:
            made.check_level(level)
        degradations.add(name, made)
        return function

    return decorate


RESERVED = ("none", "sensitivity", "albumentations:", "camera:")
"""Names with another meaning in a plan or a config, and prefixes with one in a config."""


def _check_name(name: object) -> None:
    """Raise `UserError` for a name that no config could write."""
    parts = name.split(":") if isinstance(name, str) else []
    good = len(parts) in (1, 2) and all(part.isascii() and part.isidentifier() for part in parts)
    if not good or any(map(keyword.iskeyword, parts)):
        raise UserError(
            f"{name!r} is no name for a degradation: take letters, digits and _, as in row_noise, or with a prefix "
            "mine:row_noise"
        )
    if name in RESERVED or (f"{parts[0]}:" in RESERVED and len(parts) == 2):
        raise UserError(f"no degradation can be called '{name}', which means something else: give it another name")


def normal_per_value(streams: Streams, size: int) -> Tensor:
    """Draw N(0, 1) for every value: (N, 3, H, W), in channels_last memory like the pixels."""
    return streams.normal(size, size, 3).permute(0, 3, 1, 2)


def normal_per_pixel(streams: Streams, size: int) -> Tensor:
    """Draw N(0, 1) for every pixel: (N, 1, H, W)."""
    return streams.normal(1, size, size)


def normal_per_image(streams: Streams, size: int) -> Tensor:
    """Draw N(0, 1) for every image: (N, 1, 1, 1)."""
    return streams.normal(1, 1, 1)


def uniform_per_pixel(streams: Streams, size: int) -> Tensor:
    """Draw uniform numbers in [0, 1) for every pixel: (N, 1, H, W)."""
    return streams.uniform(1, size, size)


def uniform_per_value(streams: Streams, size: int) -> Tensor:
    """Draw uniform numbers in [0, 1) for every value: (N, 3, H, W), in channels_last memory."""
    return streams.uniform(size, size, 3).permute(0, 3, 1, 2)


def normal_shift(streams: Streams, size: int) -> Tensor:
    """Draw N(0, 1) for the x and the y of every image: (N, 2)."""
    return streams.normal(2)


def uniform_per_image(streams: Streams, size: int) -> Tensor:
    """Draw a uniform number in [0, 1) for every image: (N,)."""
    return streams.uniform(1)[:, 0]


def draw_rows(draw: Any, index: Any) -> Any:
    """Return the rows of a draw at `index`, a slice or positions; of each tensor if it is a tuple; None stays None."""
    if draw is None:
        return None
    if isinstance(draw, tuple):
        return tuple(draw_rows(part, index) for part in draw)
    return take_rows(draw, index) if isinstance(draw, Tensor) and isinstance(index, np.ndarray) else draw[index]
