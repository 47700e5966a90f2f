"""`albumentations:<Transform>`: any transform of that library that keeps the image's size.

Its photographs are 8-bit, so pixels are rounded before it. It is seeded per (image, trial) by a number of the same
streams as everything else, the same for all levels, so that levels differ by the level alone as far as the
transform draws the same numbers for each.
"""

import functools
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import albumentations
import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.base import Degradation
from cnnsens_bench.degradations.streams import Streams
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near

PREFIX = "albumentations:"
BASES = albumentations.BasicTransform.__module__
"""Where what all transforms inherit from is defined, which are none themselves."""


class Level:
    """Stands for the swept level among a transform's arguments."""

    def __repr__(self) -> str:
        return "level"


LEVEL = Level()


def transforms() -> dict[str, Any]:
    """The installed version's transforms, by name."""
    found = {}
    for name, item in vars(albumentations).items():
        if inspect.isclass(item) and issubclass(item, albumentations.BasicTransform) and item.__module__ != BASES:
            found[name] = item
    return found


def albumentations_degradation(name: str, transform: str, arguments: Mapping[str, Any]) -> Degradation:
    """A degradation called `name` from the transform's name and its keyword arguments; `LEVEL` stands for the level.

    The probability `p` is 1 unless it is given. Raises `UserError` for an unknown transform or argument.
    """
    known = transforms()
    if transform not in known:
        raise UserError(f"unknown transform '{PREFIX}{transform}'{near(transform, known)}")
    kind = known[transform]
    accepted = [key for key in inspect.signature(kind.__init__).parameters if key not in ("self", "kwargs", "args")]
    for key in arguments:
        if key not in accepted:
            raise UserError(f"'{PREFIX}{transform}' has no argument '{key}'{near(key, accepted)}")
    given = {"p": 1.0, **arguments}
    swept = _holds_level(given)

    def place(level: float) -> str:
        return f"'{name}' at level {level:g}" if swept else f"'{name}'"

    @functools.lru_cache(maxsize=64)
    def at(level: float) -> Any:
        try:
            with warnings.catch_warnings():
                # What it would make of a value that it does not take is not what was asked for.
                warnings.filterwarnings("error", ".*automatically adjusted", UserWarning)
                return kind(**_with_level(given, level))
        except UserWarning as warning:
            text = " ".join(str(warning).split()).replace("automatically adjusted to", "would become").rstrip(".")
            raise UserError(f"{place(level)}: {text}") from None
        except Exception as error:
            # Pydantic's complaints are many lines, the first of which only counts them.
            lines = [line.partition("[type=")[0].strip() for line in str(error).splitlines() if line.strip()]
            raise UserError(f"{place(level)}: {': '.join(lines[1:3] or lines)}") from None

    def apply(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
        eight_bit = pixels.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        made = at(level)
        results = []
        for image, seed in zip(eight_bit, draw.tolist(), strict=True):
            made.set_random_seed(seed)
            result = np.asarray(made(image=np.ascontiguousarray(image))["image"])
            if result.shape != image.shape:
                raise ValueError(
                    f"'{name}' makes {'×'.join(map(str, result.shape))} of {'×'.join(map(str, image.shape))}: "
                    "only transforms that keep the image's size can be swept"
                )
            if result.dtype != image.dtype:
                raise ValueError(f"'{name}' makes numbers of type {result.dtype}, no 8-bit picture")
            results.append(result)
        stacked = torch.from_numpy(np.stack(results)).to(pixels.device)
        return stacked.permute(0, 3, 1, 2).to(pixels.dtype)

    if not swept:
        at(0.0)
    return Degradation(name, apply, _seeds, (), low=float("-inf"), needs_levels=swept)


def _seeds(streams: Streams, size: int) -> Tensor:
    """(N,) int64."""
    return torch.tensor(streams.integers(), dtype=torch.int64)


def _holds_level(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_level, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_level, value))
    return value is LEVEL


def _with_level(value: Any, level: float) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_level(item, level) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_with_level(item, level) for item in value)
    # Whole levels as integers: sizes of windows and numbers of colours must be.
    return (int(level) if level == int(level) else level) if value is LEVEL else value
