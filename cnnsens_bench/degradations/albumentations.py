"""Degradations `albumentations:<Transform>`: the transforms of that library that keep the size of an image.

The library works on 8-bit images, so pixels are rounded before it. A transform is seeded per image and trial by a
number from the same streams as all other draws. All levels share the seed, so that they differ by the level alone, as
far as the transform draws the same numbers at each.
"""

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.degradations.base import Degradation
from cnnsens_bench.degradations.streams import Streams
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near
from cnnsens_bench.utils.spec_parser import SpecSyntax, Term, check_argument_names
from cnnsens_bench.utils.transfer import upload

PREFIX = "albumentations:"
TRANSFORM_SYNTAX = SpecSyntax("degradation", f"{PREFIX}Blur(blur_limit=3)")


class SweptLevel:
    """The type of `SWEPT_LEVEL`."""

    def __repr__(self) -> str:
        return "level"


SWEPT_LEVEL = SweptLevel()
"""Stands for the level of the sweep among the arguments of a transform."""


def transforms() -> dict[str, Any]:
    """Return the transforms of the installed version of albumentations, by name.

    Raises
    ------
    UserError
        If the library is not installed.
    """
    try:
        import albumentations  # imported here because it takes seconds, which other degradations need not wait
    except ModuleNotFoundError:
        raise UserError(f"degradations {PREFIX}* need the package albumentations: pip install albumentations") from None
    base = albumentations.BasicTransform
    return {
        name: value
        for name, value in vars(albumentations).items()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ != base.__module__
    }


def albumentations_degradation(name: str, term: Term) -> Degradation:
    """Return a transform of albumentations as a degradation.

    Parameters
    ----------
    name
        The name of the degradation.
    term
        `albumentations:<Transform>` and its keyword arguments, in which `SWEPT_LEVEL` stands for the level. The
        argument `p`, the probability that an image is transformed, is 1 unless it is given.

    Raises
    ------
    UserError
        If the transform or an argument is unknown, or the library refuses or changes a value.
    """
    known = transforms()
    transform = term.name.removeprefix(PREFIX)
    if transform not in known:
        raise UserError(f"unknown transform '{term.name}'{near(transform, known)}")
    kind = known[transform]
    accepted = [key for key in inspect.signature(kind.__init__).parameters if key not in ("self", "kwargs", "args")]
    check_argument_names(term, accepted, TRANSFORM_SYNTAX)
    arguments = {"p": 1.0, **term.arguments}
    swept = _with_level(arguments, 0.0) != arguments  # whether `SWEPT_LEVEL` is somewhere in them

    @functools.lru_cache(maxsize=64)
    def transform_at(level: float) -> Any:
        return _build(kind, _with_level(arguments, level), f"'{name}' at level {level:g}" if swept else f"'{name}'")

    def apply(pixels: Tensor, draw: Tensor, level: float) -> Tensor:
        return _transformed(transform_at(level), pixels, draw, name)

    if not swept:
        transform_at(0.0)  # what the library refuses is found before a run
    return Degradation(name, apply, _seeds, (), low=float("-inf"), needs_levels=swept)


def _build(kind: Callable[..., Any], arguments: Mapping[str, Any], subject: str) -> Any:
    """Return the library's transform, or raise a `UserError` about `subject` if it takes the arguments not as given."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*automatically adjusted", UserWarning)
            return kind(**arguments)
    except UserWarning as warning:
        text = " ".join(str(warning).split()).replace("automatically adjusted to", "would become").rstrip(".")
        raise UserError(f"{subject}: {text}") from None
    except Exception as error:
        # The messages of pydantic have many lines, the first of which only counts them.
        lines = [line.partition("[type=")[0].strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(f"{subject}: {': '.join(lines[1:3] or lines)}") from None


def _transformed(transform: Any, pixels: Tensor, seeds: Tensor, name: str) -> Tensor:
    """Apply a transform of the library to a batch, image by image. Raises `ValueError` if the results are no images."""
    eight_bit = pixels.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    results = []
    for image, seed in zip(eight_bit, seeds.tolist(), strict=True):
        transform.set_random_seed(seed)
        result = np.asarray(transform(image=np.ascontiguousarray(image))["image"])
        if result.shape != image.shape:
            raise ValueError(
                f"'{name}' makes {'×'.join(map(str, result.shape))} of {'×'.join(map(str, image.shape))}: "
                "only transforms that keep the image's size can be swept"
            )
        if result.dtype != image.dtype:
            raise ValueError(f"'{name}' makes numbers of type {result.dtype}, no 8-bit picture")
        results.append(result)
    return upload(np.stack(results), pixels.device).permute(0, 3, 1, 2).to(pixels.dtype)


def _seeds(streams: Streams, size: int) -> Tensor:
    """Draw one seed per image: (N,) int64."""
    return torch.tensor(streams.integers(), dtype=torch.int64)


def _with_level(value: Any, level: float) -> Any:
    """Return an argument with the level in place of `SWEPT_LEVEL`."""
    if isinstance(value, Mapping):
        return {key: _with_level(inner, level) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_with_level(inner, level) for inner in value)
    # A whole level becomes an integer, because sizes of windows and numbers of colours must be integers.
    return (int(level) if level == int(level) else level) if value is SWEPT_LEVEL else value
