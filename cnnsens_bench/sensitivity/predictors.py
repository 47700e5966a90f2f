"""Predictors of how a network's outputs change under noise, beyond the paper's first-order score.

(The score itself, `gradients.first_order`, is a query of the database at any level.) A predictor is a function of its
parameters that returns how many passes it takes, which degradations it knows, and a function of the input:

    @predictor("unchanged")
    def unchanged():
        return 0, NOISES, lambda given: OutputChange(0 * given.outputs.values, 0 * given.outputs.values)

A config writes it by name, with its arguments in brackets: `noisy_gradients(copies=2)`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnnsens_bench.sensitivity.gradients import (
    Network,
    OutputChange,
    Outputs,
    blackening,
    differentiate,
    dot,
    outputs_of,
)
from cnnsens_bench.sensitivity.noise import ADDITIVE, REPLACING, clamped_noise
from cnnsens_bench.sensitivity.rivals import any_negative, any_negative_sigmoid
from cnnsens_bench.sensitivity.smoothed import (
    AnyNegative,
    Smoothing,
    sampled_change,
    shifted_change,
    smoothed_change,
)
from cnnsens_bench.utils.registry import Registry
from cnnsens_bench.utils.spec_parser import SpecSyntax, call_factory, parse_term

NOISES = ("gaussian_rgb", "pepper_pixel")
"""The degradations that draw a number for every pixel independently."""


@dataclass(frozen=True)
class PredictorInput:
    """A batch of images, a network, and the degradation whose effect is to be predicted.

    Parameters
    ----------
    network
        As `Network`.
    pixels
        The undegraded images, (N, 3, H, W) in [0, 255].
    outputs
        The network's outputs and gradients for `pixels`.
    degradation, level
        The name of the degradation, and σ or p.
    degraded
        `degraded(k)` returns the images under the k-th of independent draws, clamped to [0, 255].
    moved
        `moved(dx, dy)` returns the images with their boxes moved, in pixels of the network's input.
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
    """A predictor as a run uses it; `parse_predictor` makes one of a text.

    Parameters
    ----------
    name
        The canonical name, with every argument.
    passes
        The number of forward and backward passes for one output, including those for the undegraded image.
    degradations
        The names of the degradations that it knows.
    predict
        Predicts the change of `OUTPUTS` for a batch.
    gradients
        Whether it needs gradients of the network, or only forward passes.
    """

    name: str
    passes: int
    degradations: tuple[str, ...]
    predict: Callable[[PredictorInput], OutputChange]
    gradients: bool = True


PredictorParts = tuple[int, tuple[str, ...], Callable[[PredictorInput], OutputChange]]
"""What a registered function returns: `passes`, `degradations` and `predict` of a `Predictor`."""

predictors: Registry[Callable[..., PredictorParts]] = Registry("predictor")

SYNTAX = SpecSyntax("predictor", "noisy_gradients(copies=2)")


forward_only: set[str] = set()
"""The names of the registered predictors that need no gradients."""


def predictor(
    name: str, *, gradients: bool = True
) -> Callable[[Callable[..., PredictorParts]], Callable[..., PredictorParts]]:
    """Register the decorated function as a predictor.

    The function's parameters need defaults; a config may give others, by name. It raises `ValueError` for impossible
    ones, and returns `PredictorParts`. The module's head has an example.

    Parameters
    ----------
    name
        The name of the predictor.
    gradients
        Whether it needs gradients. One that only runs the network serves networks that give none, such as ONNX graphs;
        `gradients` of the outputs that it is given is then empty.
    """
    if not gradients:
        forward_only.add(name)
    return predictors.register(name)


def parse_predictor(text: str) -> Predictor:
    """Return the predictor that a text describes, `name` or `name(argument=value, …)`.

    Raises
    ------
    UserError
        If the text cannot be read, the name or an argument is unknown, or a value is impossible.

    Examples
    --------
    >>> parse_predictor("noisy_gradients").name
    'noisy_gradients(copies=2)'
    """
    name, parts = call_factory(predictors, text, parse_term(text, SYNTAX), SYNTAX)
    return Predictor(name, *parts, gradients=name.partition("(")[0] not in forward_only)


def label_change(margin: Tensor, change: OutputChange) -> Tensor:
    """Return the probability that the predicted label changes: Φ(−(m + mean) / deviation).

    Parameters
    ----------
    margin
        The margin m of the undegraded images, (N,).
    change
        The predicted change of `OUTPUTS`, of which the last, that of the margin, is used.

    Returns
    -------
    Tensor
        (N,) float64; without a deviation it is 0 or 1.
    """
    expected, deviation = margin.double() + change.mean[-1], change.deviation[-1]
    certain = torch.where(expected < 0, torch.inf, -torch.inf)
    z = torch.where(deviation > 0, -expected / deviation, certain)
    if z.device.type != "cpu":
        return torch.special.ndtr(z)
    from scipy.stats import norm  # imported here because a sweep without predictors does without it

    return torch.from_numpy(norm.cdf(z.numpy()))


@predictor("clamped_gradient")
def clamped_gradient() -> PredictorParts:
    """Predict from the gradient F with noise as it is after the clamp to [0, 255].

    The noise of value i is then a censored normal, of mean μᵢ and variance sᵢ². The change has the mean Σ μᵢFᵢ and the
    variance Σ sᵢ²Fᵢ².
    """

    def predict(given: PredictorInput) -> OutputChange:
        shift, variance = clamped_noise(given.pixels, given.level)
        gradients = given.outputs.gradients
        mean = [dot(g, shift) for g in gradients]
        spread = [dot(g * g, variance) for g in gradients]
        return OutputChange(torch.stack(mean), torch.stack(spread).sqrt())

    return 2, ("gaussian_rgb",), predict


UPPER_WEIGHT = 1 - 2 / math.pi
"""The integral of 2/π·arcsin t over [0, 1], the weight of the upper bound in `noisy_gradients`."""


@predictor("noisy_gradients")
def noisy_gradients(copies: int = 2) -> PredictorParts:
    """Predict from gradients at `copies` degraded images, which include curvature and the clamp.

    Let h be the network after the clamp. For normal noise of variance σ², Var h = σ² ∫₀¹ E⟨∇h(X), ∇h(X_t)⟩ dt, where
    X_t is a copy of X correlated by t (Mehler's formula; Houdré & Pérez-Abreu 1995). At t = 0 the integrand is ‖E∇h‖²,
    at t = 1 it is E‖∇h‖², which gives Poincaré's upper bound. The gradient of a piecewise linear network is a sum of
    steps, whose correlation follows the arcsine law 2/π·arcsin t in between. So the integral weighs the upper end by
    `UPPER_WEIGHT`, and the lower one by the rest; this is exact for h = |x|, where Var h = (1 − 2/π)σ².

    For pepper, v of equation 3 takes the place of ∇h and p(1 − p) that of σ²; X_t draws each pixel anew with
    probability 1 − t.
    """
    _check_copies(copies)

    def predict(given: PredictorInput) -> OutputChange:
        totals: list[Any] = [0] * len(given.outputs.gradients)
        squares: list[Any] = [0] * len(given.outputs.gradients)
        values = []
        for k in range(copies):
            noisy = given.degraded(k)
            outputs = differentiate(given.network, noisy, given.outputs.reference)
            values.append(outputs.values)
            for i, own in enumerate(outputs.gradients):
                gradient = _noise_gradient(given, noisy, own).flatten(1)
                totals[i] = totals[i] + gradient
                squares[i] = squares[i] + dot(gradient, gradient)
        upper = torch.stack(squares) / copies
        whole = torch.stack([dot(gradient, gradient) for gradient in totals])
        lower = (whole - copies * upper) / (copies * (copies - 1))
        scale = given.level**2 if given.degradation == "gaussian_rgb" else given.level * (1 - given.level)
        mean = torch.stack(values).mean(0) - given.outputs.values
        return OutputChange(mean, (scale * (UPPER_WEIGHT * upper + (1 - UPPER_WEIGHT) * lower.clamp(min=0))).sqrt())

    return 2 * copies + 1, NOISES, predict


def _noise_gradient(given: PredictorInput, noisy: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient with respect to the noise from that at a degraded image; it is 0 where a value is clamped."""
    if given.degradation == "gaussian_rgb":
        return gradient * ((noisy > 0) & (noisy < 255))
    return blackening(gradient, given.pixels)


@predictor("sampling", gradients=False)
def sampling(copies: int = 15) -> PredictorParts:
    """Predict by trying: the mean and the standard deviation of the outputs for `copies` degraded images."""
    _check_copies(copies)

    def predict(given: PredictorInput) -> OutputChange:
        with torch.no_grad():
            values = [outputs_of(given.network(given.degraded(k)), given.outputs.reference) for k in range(copies)]
        stacked = torch.stack(values)
        return OutputChange(stacked.mean(0) - given.outputs.values, stacked.std(0))

    return copies + 1, NOISES, predict


@predictor("cubature", gradients=False)
def cubature() -> PredictorParts:
    """Predict the effect of a translation from the undegraded view and six others that are 2σ away.

    This is the cubature rule of degree 5 for a normal shift in the plane, with weights 1/2 and 1/12 (Stroud 1971,
    E₂^{r²} 5-1).
    """

    def predict(given: PredictorInput) -> OutputChange:
        undegraded = given.outputs.values
        mean, square = torch.zeros_like(undegraded), torch.zeros_like(undegraded)
        with torch.no_grad():
            for sixth in range(6):
                angle, radius = sixth * math.pi / 3, 2 * given.level
                logits = given.network(given.moved(radius * math.cos(angle), radius * math.sin(angle)))
                change = outputs_of(logits, given.outputs.reference) - undegraded
                mean += change / 12
                square += change**2 / 12
        return OutputChange(mean, (square - mean**2).clamp(min=0).sqrt())

    return 7, ("translation",), predict


TRANSLATION = "translation"
MOST_RIVALS = 4


@predictor("smoothed")
def smoothed(copies: int = 4, rivals: int = 3, covariance: bool = False) -> PredictorParts:
    """Predict from mean margins against the best rivals at `copies` degraded images, and from gradients at two of them.

    The probability of a label change is that of a multivariate normal distribution: at least one of the rivals wins
    (Han, Srinivas & Lakkaraju, UAI 2024). With `covariance` each margin is differentiated, otherwise the best rival's
    alone. Where gradients do not tell the effect, under `REPLACING` and for a translation, their passes go to as many
    more images, as in `smoothed_sampling`.
    """
    return _smoothed(Smoothing(copies, rivals, covariance), any_negative)


@predictor("smoothed_sigmoid")
def smoothed_sigmoid(copies: int = 4, rivals: int = 3) -> PredictorParts:
    """Predict as `smoothed` does, with the multivariate sigmoid in place of the normal probability."""
    return _smoothed(Smoothing(copies, rivals, covariance=False), any_negative_sigmoid)


@predictor("smoothed_sampling", gradients=False)
def smoothed_sampling(copies: int = 6, rivals: int = 3) -> PredictorParts:
    """Predict from the means and the scatter of the margins against the best rivals over `copies` degraded images.

    A translation takes as many views around the undegraded one.
    """
    _check_copies(copies)
    _check_rivals(rivals)

    def predict(given: PredictorInput) -> OutputChange:
        change = shifted_change if given.degradation == TRANSLATION else sampled_change
        return change(given, copies, rivals, any_negative)

    return copies + 1, (*ADDITIVE, *REPLACING, TRANSLATION), predict


def _smoothed(smoothing: Smoothing, probability: AnyNegative) -> PredictorParts:
    _check_copies(smoothing.copies)
    _check_rivals(smoothing.rivals)
    if not isinstance(smoothing.covariance, bool):
        raise ValueError("covariance must be True or False")
    every = smoothing.copies + smoothing.backward_passes

    def predict(given: PredictorInput) -> OutputChange:
        if given.degradation in ADDITIVE:
            return smoothed_change(given, smoothing, probability)
        change = shifted_change if given.degradation == TRANSLATION else sampled_change
        return change(given, every, smoothing.rivals, probability)

    return 1 + every, (*ADDITIVE, *REPLACING, TRANSLATION), predict


def _check_rivals(rivals: int) -> None:
    """Raise `ValueError` for a number of rivals that the normal probability is not computed for."""
    if isinstance(rivals, bool) or not isinstance(rivals, int) or not 1 <= rivals <= MOST_RIVALS:
        raise ValueError(f"rivals must be a whole number between 1 and {MOST_RIVALS}")


def _check_copies(copies: int) -> None:
    """Raise `ValueError` unless there are at least two copies, as a deviation needs."""
    if isinstance(copies, bool) or not isinstance(copies, int) or copies < 2:
        raise ValueError("copies must be a whole number of at least 2")
