"""What a degradation is: a draw that serves every level, and a pure function of pixels, draw and level.

    @degradation("gaussian_rgb", draw=normal_per_value, levels=(1, 4, 16), level_name="σ")
    def gaussian_rgb(pixels, draw, level):
        return pixels + level * draw

A geometric degradation (`geometric=True`) says instead how the box lies in the full image: its function is
`(draw, level) -> Motion`, and `images` renders that view.
"""

import keyword
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from cnnsens_bench.degradations.streams import Streams
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import Registry

DrawFunction = Callable[[Streams, int], Any]
"""(streams, input size in pixels) → one row of random numbers per image, shared by all levels of a trial."""


MOST_BENT = 0.5
"""The largest |bend| of a view: an image is turned inside out at 1."""


@dataclass(frozen=True)
class Motion:
    """How the boxes of a batch lie in their full images; each a number for all, or a tensor (N,).

    `dx`, `dy`: moved, in pixels of the network's input, right and down positive. `angle`: then turned about the
    box's centre, degrees, what is seen turns counter-clockwise. `bend`: seen through a lens of that radial distortion
    (Δr / r at the box's corners; negative is barrel), centred on the box.
    """

    dx: Tensor | float = 0.0
    dy: Tensor | float = 0.0
    angle: Tensor | float = 0.0
    bend: Tensor | float = 0.0

    def views(self, count: int) -> list[tuple[float, float, float, float]]:
        """(dx, dy, angle, bend) of each of `count` images. Raises `ValueError` where one is bent beyond `MOST_BENT`."""
        parts = (self.dx, self.dy, self.angle, self.bend)
        columns = [part.tolist() if isinstance(part, Tensor) else [float(part)] * count for part in parts]
        most = max(map(abs, columns[3]), default=0.0)
        if most > MOST_BENT + 1e-6:
            raise ValueError(f"it bends by {100 * most:g} % in all: {100 * MOST_BENT:g} % is the most")
        return list(zip(*columns, strict=True))

    def then(self, other: "Motion") -> "Motion":
        """Both: shifts and angles add, and so do small distortions."""
        return Motion(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


class Reach(NamedTuple):
    """How far views can leave the box: `shift` in pixels of the network's input beyond its sides, and `radius`
    around its centre in half diagonals of the box (its corners are at 1)."""

    shift: float = 0.0
    radius: float = 0.0


EVERYWHERE = Reach(float("inf"), float("inf"))


@dataclass(frozen=True)
class Degradation:
    """A registered degradation.

    `levels`: the paper's, used when the config names none; empty for one that has no level (stored as level 0), or
    whose levels the config must name (`needs_levels`). `low`, `high`: the inclusive range of valid levels; `whole`:
    only whole numbers are levels.
    `reach(level)`: how far the views of a geometric one can leave the box.
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
        """Whether trials differ; if not, one is run."""
        return self.draw_function is not None

    def draw(self, streams: Streams, size: int, key: str | None = None) -> Any:
        """The random numbers of one trial for inputs of `size` × `size`; None if nothing is random.

        `key`: what the streams are keyed to, the name unless given.
        """
        return self.draw_function(streams.of(key or self.name), size) if self.draw_function else None

    def apply(self, pixels: Tensor, draw: Any, level: float) -> Tensor:
        """`pixels` (N, 3, H, W) float32 in [0, 255], not changed → degraded, not yet clamped.

        Of a geometric degradation the pixels are those of the moved box already.
        """
        return pixels if self.geometric else self.function(pixels, draw, level)

    def motion(self, draw: Any, level: float) -> Motion:
        """The motion of the boxes; only of a geometric degradation."""
        return self.function(draw, level)

    def reach(self, level: float) -> Reach:
        """See the class; nowhere unless geometric, anywhere unless it is said."""
        if not self.geometric:
            return Reach()
        return self.reach_function(level) if self.reach_function else EVERYWHERE

    def check_level(self, level: object) -> float:
        """`level` as a number, or a `UserError` when it is none or out of range."""
        if isinstance(level, bool) or not isinstance(level, int | float):
            raise UserError(f"degradation '{self.name}': level {level!r} is not a number")
        if not math.isfinite(level):
            raise UserError(f"degradation '{self.name}': level {level} is not finite")
        if not self.low <= level <= self.high:
            bounds = (
                f"at least {self.low:g}" if self.high == float("inf") else f"between {self.low:g} and {self.high:g}"
            )
            raise UserError(f"degradation '{self.name}': level {level:g} is out of range: it must be {bounds}")
        if self.whole and level != int(level):
            raise UserError(f"degradation '{self.name}': level {level:g} must be a whole number")
        return float(level)


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
    """Register the decorated function as a degradation; the parameters are those of `Degradation`.

    Raises `UserError` for a name that no config could write, and for levels that are none.
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


RESERVED = ("none", "sensitivity", "albumentations:")
"""Names that mean something else in a plan or a config, and the library's prefix."""


def _check_name(name: object) -> None:
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
    """(N, 3, H, W) N(0, 1), in channels_last memory as the pixels are."""
    return streams.normal(size, size, 3).permute(0, 3, 1, 2)


def normal_per_pixel(streams: Streams, size: int) -> Tensor:
    """(N, 1, H, W) N(0, 1)."""
    return streams.normal(1, size, size)


def normal_per_image(streams: Streams, size: int) -> Tensor:
    """(N, 1, 1, 1) N(0, 1)."""
    return streams.normal(1, 1, 1)


def uniform_per_pixel(streams: Streams, size: int) -> Tensor:
    """(N, 1, H, W) uniform in [0, 1)."""
    return streams.uniform(1, size, size)


def uniform_per_value(streams: Streams, size: int) -> Tensor:
    """(N, 3, H, W) uniform in [0, 1), in channels_last memory."""
    return streams.uniform(size, size, 3).permute(0, 3, 1, 2)


def normal_shift(streams: Streams, size: int) -> Tensor:
    """(N, 2) N(0, 1): one for x, one for y."""
    return streams.normal(2)


def uniform_per_image(streams: Streams, size: int) -> Tensor:
    """(N,) uniform in [0, 1)."""
    return streams.uniform(1)[:, 0]


def draw_rows(draw: Any, index: Any) -> Any:
    """The rows `index` (a slice or positions) of a draw: of a tensor, or of each part of a tuple; None stays None."""
    if draw is None:
        return None
    return tuple(draw_rows(part, index) for part in draw) if isinstance(draw, tuple) else draw[index]
