"""Predictors of how the outputs of a network change under a noise that see further than the paper's score does
(`gradients.first_order`, which the store has at every level).

    @predictor("unmoved")
    def unmoved(): return 0, NOISES, lambda scene: Change(0 * scene.outputs.values, 0 * scene.outputs.values)

Written in a config by name, with arguments in brackets: `noisy_gradients(copies=2)`.
"""

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.stats import norm
from torch import Tensor

from cnnsens_bench.sensitivity.gradients import Change, Network, Outputs, blackening, differentiate, dot, outputs_of
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import Registry, call

NOISES = ("gaussian_rgb", "pepper_pixel")
"""Degradations that draw for every pixel on its own."""


@dataclass(frozen=True)
class PredictorInput:
    """A batch of images, a network, and what is to happen to them.

    `pixels` (N, 3, H, W); `outputs`: undegraded; `degraded(k)`: the images under the k-th of independent draws at
    `level`, clamped to [0, 255]; `moved(dx, dy)`: their boxes moved, in pixels of the network's input.
    """

    network: Network
    pixels: Tensor
    outputs: Outputs
    degradation: str
    level: float
    degraded: Callable[[int], Tensor]
    moved: Callable[[float, float], Tensor]


@dataclass(frozen=True)
class Predictor:
    """`name`: canonical, with every argument; `passes`: forward and backward passes for one output, that of the
    undegraded image too; `degradations`: those it knows."""

    name: str
    passes: int
    degradations: tuple[str, ...]
    predict: Callable[[PredictorInput], Change]


Factory = Callable[..., tuple[int, tuple[str, ...], Callable[[PredictorInput], Change]]]
"""Keyword arguments → passes, degradations and function of a `Predictor`; `ValueError` for impossible arguments."""

predictors: Registry[Factory] = Registry("predictor")
predictor = predictors.register


def parse_predictor(text: str) -> Predictor:
    """`name` or `name(argument=value)` → `Predictor`. Raises `UserError`."""
    form = "noisy_gradients(copies=2)"
    try:
        term = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise UserError(f"predictor '{text}' cannot be read: write it as {form}") from None
    name, made = call(predictors, text, term, form)
    return Predictor(name, *made)


def label_change(margin: Tensor, change: Change) -> Tensor:
    """Φ(−(m + mean)/deviation), the probability that the margin m (N,) turns negative: (N,) float64.

    `change`: of `OUTPUTS`, the margin last. Without deviation, 0 or 1.
    """
    expected, deviation = margin.double() + change.mean[-1], change.deviation[-1]
    certain = torch.where(expected < 0, torch.inf, -torch.inf)
    z = torch.where(deviation > 0, -expected / deviation, certain)
    return torch.from_numpy(norm.cdf(z.cpu().numpy())).to(margin.device)


@predictor("clamped_gradient")
def clamped_gradient() -> tuple[int, tuple[str, ...], Callable[[PredictorInput], Change]]:
    """`gradient` with what the clamp at 0 and 255 does to the noise of each value: its mean and variance (a censored
    normal's), Σ μᵢFᵢ and Σ sᵢ²Fᵢ²."""

    def predict(scene: PredictorInput) -> Change:
        shift, variance = clamped_noise(scene.pixels, scene.level)
        gradients = scene.outputs.gradients
        mean = [dot(g, shift) for g in gradients]
        spread = [dot(g * g, variance) for g in gradients]
        return Change(torch.stack(mean), torch.stack(spread).sqrt())

    return 2, ("gaussian_rgb",), predict


def clamped_noise(pixels: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of clamp(z + σε, 0, 255) − z for standard normal ε, in the shape of `pixels`."""
    if sigma == 0:
        return torch.zeros_like(pixels), torch.zeros_like(pixels)
    low, high = -pixels / sigma, (255 - pixels) / sigma
    density_low, density_high = _density(low), _density(high)
    below, above = torch.special.ndtr(low), torch.special.ndtr(-high)
    inside = 1 - below - above
    first = density_low - density_high + low * below + high * above
    second = inside + low * density_low - high * density_high + low**2 * below + high**2 * above
    return sigma * first, sigma**2 * (second - first**2).clamp(min=0)


def _density(z: Tensor) -> Tensor:
    return torch.exp(-(z**2) / 2) * (2 * torch.pi) ** -0.5


KINKS = 1 - 2 / math.pi
"""∫₀¹ 2/π·arcsin t dt."""


@predictor("noisy_gradients")
def noisy_gradients(copies: int = 2) -> tuple[int, tuple[str, ...], Callable[[PredictorInput], Change]]:
    """Gradients at `copies` degraded images, which see curvature and the clamp.

    For normal noise of variance σ², Var h = σ² ∫₀¹ E⟨∇h(X), ∇h(X_t)⟩ dt with X_t a copy of X correlated by t (Mehler's
    formula; Houdré & Pérez-Abreu 1995). Its ends are ‖E∇h‖² and E‖∇h‖² (Poincaré's upper bound). Between them the
    gradient of a network of linear pieces, a sum of steps, correlates by the arcsine law, 2/π·arcsin t, whose integral
    `KINKS` weighs them: exact for h = |x|, where Var h = (1 − 2/π)σ². h is the network after the clamp. Pepper takes v
    and p(1 − p) likewise, where X_t has each pixel drawn anew with probability 1 − t.
    """
    _check_copies(copies, 2)

    def predict(scene: PredictorInput) -> Change:
        total: list[Tensor] = []
        squares: list[Tensor] = []
        values = []
        for k in range(copies):
            noisy = scene.degraded(k)
            at = differentiate(scene.network, noisy, scene.outputs.reference)
            values.append(at.values)
            for i, own in enumerate(at.gradients):
                part = _through(scene, noisy, own).flatten(1)
                square = dot(part, part)
                if k == 0:
                    total.append(part)
                    squares.append(square)
                else:
                    total[i] += part
                    squares[i] += square
        upper = torch.stack(squares) / copies
        whole = torch.stack([dot(part, part) for part in total])
        lower = (whole - copies * upper) / (copies * (copies - 1))
        scale = scene.level**2 if scene.degradation == "gaussian_rgb" else scene.level * (1 - scene.level)
        mean = torch.stack(values).mean(0) - scene.outputs.values
        return Change(mean, (scale * (KINKS * upper + (1 - KINKS) * lower.clamp(min=0))).sqrt())

    return 2 * copies + 1, NOISES, predict


def _through(scene: PredictorInput, noisy: Tensor, gradient: Tensor) -> Tensor:
    """A gradient at a degraded image as one of the noise: nothing passes where the clamp holds."""
    if scene.degradation == "gaussian_rgb":
        return gradient * ((noisy > 0) & (noisy < 255))
    return blackening(gradient, scene.pixels)


@predictor("sampling")
def sampling(copies: int = 15) -> tuple[int, tuple[str, ...], Callable[[PredictorInput], Change]]:
    """The plain way: mean and standard deviation of the outputs of `copies` degraded images."""
    _check_copies(copies, 2)

    def predict(scene: PredictorInput) -> Change:
        values = []
        with torch.no_grad():
            for k in range(copies):
                values.append(outputs_of(scene.network(scene.degraded(k)), scene.outputs.reference))
        seen = torch.stack(values)
        return Change(seen.mean(0) - scene.outputs.values, seen.std(0))

    return copies + 1, NOISES, predict


@predictor("cubature")
def cubature() -> tuple[int, tuple[str, ...], Callable[[PredictorInput], Change]]:
    """Translation by the undegraded view and six around it, 2σ away: the rule of degree 5 for a normal shift in the
    plane, with weights 1/2 and 1/12 (Stroud 1971, E₂^{r²} 5-1)."""

    def predict(scene: PredictorInput) -> Change:
        still = scene.outputs.values
        mean, square = torch.zeros_like(still), torch.zeros_like(still)
        with torch.no_grad():
            for turn in range(6):
                angle, radius = turn * math.pi / 3, 2 * scene.level
                logits = scene.network(scene.moved(radius * math.cos(angle), radius * math.sin(angle)))
                change = outputs_of(logits, scene.outputs.reference) - still
                mean += change / 12
                square += change**2 / 12
        return Change(mean, (square - mean**2).clamp(min=0).sqrt())

    return 7, ("translation",), predict


def _check_copies(copies: int, least: int) -> None:
    if isinstance(copies, bool) or not isinstance(copies, int) or copies < least:
        raise ValueError(f"copies must be a whole number of at least {least}")
