"""Test-time defenses: a pre-filter between the degraded image and the network (paper, section 3).

A defense is written as in the config and in the `defense` column: `gaussian_filter(size=3, sigma=0.5)`.
"""

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from cnnsens_bench.errors import UserError
from cnnsens_bench.registry import Registry

PreFilter = Callable[[Tensor], Tensor]
"""(N, 3, H, W) float32 in [0, 255] → the same, filtered."""


@dataclass(frozen=True)
class Defense:
    """`name`: canonical, with every argument; `prefilter`: None where images go to the network as they are."""

    name: str
    prefilter: PreFilter | None


defenses: Registry[Callable[..., PreFilter | None]] = Registry("defense")


def defense(name: str) -> Callable[[Callable[..., PreFilter | None]], Callable[..., PreFilter | None]]:
    """Register a factory: keyword arguments → the pre-filter. It raises `ValueError` for impossible arguments."""
    return defenses.register(name)


@defense("none")
def none() -> None:
    """Images as they are."""
    return


@defense("gaussian_filter")
def gaussian_filter(size: int = 3, sigma: float = 0.5) -> PreFilter:
    """Gaussian filter of `size` × `size` pixels, borders reflected."""
    if size < 1 or size % 2 == 0:
        raise ValueError("size must be odd and at least 1")
    if not sigma > 0:
        raise ValueError("sigma must be above 0")

    def prefilter(pixels: Tensor) -> Tensor:
        return gaussian_blur(pixels, [size, size], [sigma, sigma]).contiguous(memory_format=torch.channels_last)

    return prefilter


def parse_defense(text: str) -> Defense:
    """`name` or `name(argument=value, …)` → `Defense`; arguments left out take their defaults.

    Raises `UserError` for an unknown name, an unknown argument or an impossible value.
    """
    form = "write it as gaussian_filter(size=3, sigma=0.5)"
    try:
        call = ast.parse(text.strip(), mode="eval").body
        name = ast.unparse(call.func if isinstance(call, ast.Call) else call)
        if isinstance(call, ast.Call) and call.args:
            raise UserError(f"defense '{text}': its arguments need their names: {form}")
        given = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords} if isinstance(call, ast.Call) else {}
    except (SyntaxError, ValueError):
        raise UserError(f"defense '{text}' cannot be read: {form}") from None
    factory = defenses[name]
    known = inspect.signature(factory).parameters
    for key in given:
        if key not in known:
            has = ", ".join(known) or "none"
            raise UserError(f"defense '{name}' has no argument '{key}': it has {has}")
    arguments = {key: given.get(key, parameter.default) for key, parameter in known.items()}
    try:
        prefilter = factory(**arguments)
    except (ValueError, TypeError) as error:
        raise UserError(f"defense '{text}': {error}") from None
    inner = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return Defense(f"{name}({inner})" if inner else name, prefilter)
