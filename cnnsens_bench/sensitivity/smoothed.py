"""The change of outputs from a few degraded copies and gradients at two of them, with the best rivals of each image.

The network is linearised where the noise takes it, not at the undegraded image (Han, Srinivas & Lakkaraju, UAI 2024).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.sensitivity.backward import CheapBackward
from cnnsens_bench.sensitivity.gradients import OutputChange, dot, outputs_of
from cnnsens_bench.sensitivity.noise import NoiseModel, noise_model

if TYPE_CHECKING:
    from cnnsens_bench.sensitivity.predictors import PredictorInput

AnyNegative = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A function from means (N, R) and covariances (N, R, R) of margins to the probability that one is negative: (N,)."""

DIFFERENTIATED = 2
"""The number of copies at which gradients are taken."""
LEAST_SHARE = 0.01
"""The least λ that `share_of_upper` takes: below, the gradients of so few copies are too uncertain to tell."""
MOST_CORRELATION = 0.95
"""The largest correlation of margins that few copies are believed to show."""
CERTAIN = 1e-15
"""Probabilities are kept this far from 0 and 1, where no normal distribution has them."""


@dataclass(frozen=True)
class Smoothing:
    """How a network is smoothed.

    Parameters
    ----------
    copies
        The number of degraded copies that means are taken over, at least `DIFFERENTIATED`.
    rivals
        The number of classes that a margin is kept for.
    covariance
        Whether every margin has a gradient. Otherwise the best rival's has one, and the others are taken to scatter as
        much as it does, with a correlation of 1/2: that of margins whose logits scatter alike and independently.
    """

    copies: int
    rivals: int
    covariance: bool

    @property
    def backward_passes(self) -> int:
        """The number of backward passes for the margins."""
        return DIFFERENTIATED * (self.rivals if self.covariance else 1)


def smoothed_change(given: "PredictorInput", smoothing: Smoothing, any_negative: AnyNegative) -> OutputChange:
    """Predict the change under additive noise from degraded copies and their gradients.

    The mean of each output is its mean over the copies. A gradient tells which part of a copy's output is due to its
    own draw to first order, and that part is taken off, as far as it pays (see `_corrected`). The covariances are those
    of `share_of_upper`. The margin's mean is chosen so that Φ(−(m + mean) / deviation) is the probability that one of
    the rivals wins.

    Parameters
    ----------
    given
        The images, under a degradation of `ADDITIVE`.
    smoothing
        How many copies and rivals.
    any_negative
        The probability that one of several normal margins is negative.
    """
    reference = given.outputs.reference
    model = noise_model(given.degradation, given.level, given.pixels)
    noisy = [given.degraded(k) for k in range(smoothing.copies)]
    with torch.no_grad():
        plain = [given.network(copy) for copy in noisy[DIFFERENTIATED:]]
    differentiated, gradients = [], []
    rivals = None
    for copy in noisy[:DIFFERENTIATED]:
        with torch.enable_grad():
            leaf = copy.detach().requires_grad_()
            with CheapBackward():
                seen = given.network(leaf)
            differentiated.append(seen.detach())
            if rivals is None:
                rivals = best_rivals(torch.stack([*plain, differentiated[0]]).mean(0), reference, smoothing.rivals)
            margins = margins_of(seen, reference, rivals if smoothing.covariance else rivals[:, :1])
            functions = [*outputs_of(seen, reference)[:2], *margins]
            last = len(functions) - 1
            gradients.append(
                [torch.autograd.grad(f.sum(), leaf, retain_graph=i < last)[0] for i, f in enumerate(functions)]
            )
    assert rivals is not None
    logits = [*differentiated, *plain]
    values = torch.stack([outputs_of(own, reference)[:2] for own in logits])
    margins = torch.stack([margins_of(own, reference, rivals) for own in logits])
    means, deviations = [], []
    for i in range(2):
        own = [gradient[i : i + 1] for gradient in gradients]
        covariance, shared = _covariance(model, noisy, own)
        means.append(_corrected(values[:, i : i + 1], own, given.pixels, noisy, model, shared)[0])
        deviations.append(covariance[:, 0, 0].sqrt())
    own = [gradient[2:] for gradient in gradients]
    covariance, shared = _covariance(model, noisy, own)
    mean = _corrected(margins, own, given.pixels, noisy, model, shared)
    if not smoothing.covariance:
        alike = (torch.eye(margins.shape[1], dtype=torch.float64) + 1) / 2
        covariance = covariance * alike.to(covariance)
    change = torch.stack(means) - given.outputs.values[:2]
    return _with_margin(given, change, torch.stack(deviations), mean.T, covariance, any_negative)


def sampled_change(given: "PredictorInput", copies: int, rivals: int, any_negative: AnyNegative) -> OutputChange:
    """Predict the change from the means and the scatter of outputs over copies, by forward passes alone.

    Margins are taken to scatter alike: so few copies tell one variance and one correlation for all of them, not a whole
    covariance. The other outputs have their means and standard deviations.

    Parameters
    ----------
    given
        The images, under any degradation with independent draws.
    copies, rivals
        The number of degraded copies, at least 2, and the number of classes that a margin is kept for.
    any_negative
        As in `smoothed_change`.
    """
    with torch.no_grad():
        logits = torch.stack([given.network(given.degraded(k)) for k in range(copies)])
    values, margins = _outputs_and_margins(given, logits, logits.mean(0), rivals)
    off = margins - margins.mean(0)
    covariance = (off[:, :, None] * off[:, None]).sum(0).permute(2, 0, 1) / (copies - 1)
    change = values.mean(0) - given.outputs.values[:2]
    return _with_margin(given, change, values.std(0), margins.mean(0).T, _alike(covariance), any_negative)


def shifted_change(given: "PredictorInput", views: int, rivals: int, any_negative: AnyNegative) -> OutputChange:
    """Predict the change under a shift from the undegraded view and views around it, by forward passes alone.

    The shift has two dimensions only, so that means and covariances are those of a cubature rule: weight 1/2 for the
    undegraded view, and 1/2 for all views that are 2σ away in directions equally far apart.

    Parameters
    ----------
    given
        The images, under a translation.
    views, rivals
        The number of views around the undegraded one, and the number of classes that a margin is kept for.
    any_negative
        As in `smoothed_change`.
    """
    found = [given.outputs.logits]
    with torch.no_grad():
        for number in range(views):
            angle, radius = 2 * math.pi * number / views, 2 * given.level
            found.append(given.network(given.moved(radius * math.cos(angle), radius * math.sin(angle))))
    logits = torch.stack(found)
    weights = torch.full((views + 1, 1, 1), 1 / (2 * views), dtype=torch.float64, device=logits.device)
    weights[0] = 0.5
    values, margins = _outputs_and_margins(given, logits, (logits * weights).sum(0), rivals)
    mean, margin = (values * weights).sum(0), (margins * weights).sum(0)
    off = margins - margin
    covariance = (off[:, :, None] * off[:, None] * weights[..., None]).sum(0).permute(2, 0, 1)
    deviation = ((values - mean) ** 2 * weights).sum(0).sqrt()
    return _with_margin(given, mean - given.outputs.values[:2], deviation, margin.T, covariance, any_negative)


def best_rivals(logits: Tensor, reference: Tensor, count: int) -> Tensor:
    """Return the classes with the largest logits beside the reference classes (N,), best first: (N, count or fewer)."""
    others = logits.scatter(1, reference[:, None], float("-inf"))
    return others.topk(min(count, logits.shape[1] - 1), dim=1).indices


def margins_of(logits: Tensor, reference: Tensor, rivals: Tensor) -> Tensor:
    """Return the logits of the reference classes (N,) less those of rivals (N, R): (R, N) float64."""
    logits = logits.double()
    return (logits.gather(1, reference[:, None]) - logits.gather(1, rivals)).T


def _outputs_and_margins(given: "PredictorInput", logits: Tensor, mean: Tensor, rivals: int) -> tuple[Tensor, Tensor]:
    """Return logit and probability (copies, 2, N) of logits (copies, N, classes), and margins (copies, R, N).

    The rivals are the best ones by `mean`, (N, classes).
    """
    reference = given.outputs.reference
    best = best_rivals(mean, reference, rivals)
    values = torch.stack([outputs_of(own, reference)[:2] for own in logits])
    return values, torch.stack([margins_of(own, reference, best) for own in logits])


def _alike(covariance: Tensor) -> Tensor:
    """Return covariances (N, R, R) with the mean variance and the mean correlation, at least 0, for all pairs."""
    count = covariance.shape[1]
    variance = covariance.diagonal(dim1=1, dim2=2).mean(1)
    if count == 1:
        return covariance
    between = (covariance.sum((1, 2)) - count * variance) / (count * (count - 1))
    between = torch.minimum(between.clamp(min=0), MOST_CORRELATION * variance)
    unit = torch.eye(count, dtype=covariance.dtype, device=covariance.device)
    return (variance - between)[:, None, None] * unit + between[:, None, None]


def share_of_upper(squares: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weight of the upper bound of a variance, and λ, how far gradients at independent copies agree.

    For h = f(z + noise), Var h = σ² ∫₀¹ E⟨∇h(X), ∇h(X_t)⟩ dt, where X_t is a copy of X correlated by t (see
    `noisy_gradients`). The integrand is U = E‖∇h‖² at t = 1 and λU = ‖E∇h‖² at t = 0. A layer of kinks lets the
    logarithm of the agreement fall with the angle arccos t, and layers multiply: it is U·λ^(2/π·arccos t) in between.
    With b = −2/π·ln λ its integral is U·(1 − λb) / (1 + b²). For λ near 1 this is the arcsine law of `noisy_gradients`;
    for small λ, that of deep networks under strong noise, it is far smaller.

    Parameters
    ----------
    squares, products
        (N,): the mean of ‖∇h‖² over copies, and the inner product of ∇h at two independent copies.

    Returns
    -------
    tuple of Tensor
        The weight w (N,), so that the integral is w·squares + (1 − w)·products, and λ (N,) in [0, 1].

    Examples
    --------
    >>> weight, shared = share_of_upper(torch.tensor([4.0, 4.0]).double(), torch.tensor([4.0, 2.0]).double())
    >>> [round(w, 3) for w in weight.tolist()], shared.tolist()
    ([0.363, 0.305], [1.0, 0.5])
    """
    shared = torch.where(squares > 0, products / squares.clamp(min=1e-300), torch.ones_like(squares)).clamp(0, 1)
    bounded = shared.clamp(min=LEAST_SHARE)
    decay = -2 / math.pi * bounded.log()
    integral = (1 - bounded * decay) / (1 + decay**2)
    smooth = 1 - bounded < 1e-6
    weight = torch.where(smooth, 1 - 2 / math.pi, (integral - bounded) / torch.where(smooth, 1, 1 - bounded))
    return weight, shared


def _covariance(model: NoiseModel, noisy: list[Tensor], gradients: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
    """Return covariances (N, R, R) from the gradients of R functions at two copies, and their λ (N,)."""
    first, second = (
        [model.by_unit_noise(gradient, copy) for gradient in own] for own, copy in zip(gradients, noisy, strict=False)
    )
    upper = (_products(first, first) + _products(second, second)) / 2
    between = _products(first, second)
    lower = (between + between.transpose(1, 2)) / 2
    squares, products = (matrix.diagonal(dim1=1, dim2=2).sum(1) for matrix in (upper, lower))
    weight, shared = share_of_upper(squares, products)
    weight = weight[:, None, None]
    # Over so few copies the sum need not be a covariance: what is negative in it is left out.
    values, vectors = torch.linalg.eigh((weight * upper + (1 - weight) * lower).cpu())
    covariance = (vectors * values.clamp(min=0)[:, None, :]) @ vectors.transpose(1, 2)
    return covariance.to(upper), shared


def _products(rows: list[Tensor], columns: list[Tensor]) -> Tensor:
    """Return the inner products of all pairs of gradients: (N, R, R) float64."""
    return torch.stack([torch.stack([dot(row, column) for column in columns], 1) for row in rows], 1)


def _corrected(
    values: Tensor,
    gradients: list[list[Tensor]],
    pixels: Tensor,
    noisy: list[Tensor],
    model: NoiseModel,
    shared: Tensor,
) -> Tensor:
    """Return means (R, N) of values (copies, R, N), with gradients as control variates.

    The inner product of a gradient with the noise of another copy has a known mean. Regression takes it off with the
    factor λ for the gradient of one copy, and 2λ / (1 + λ) for the mean gradient of two. Functions without a gradient
    follow the first one, with the correlation of 1/2.
    """
    if model.mean is None:
        return values.mean(0)
    known = len(gradients[0])
    total = torch.zeros_like(values[0])
    for k, copy in enumerate(noisy):
        others = [gradients[j] for j in range(DIFFERENTIATED) if j != k]
        factor = shared if len(others) == 1 else 2 * shared / (1 + shared)
        moved = copy - pixels - model.mean
        linear = torch.stack([dot(sum(every) / len(others), moved) for every in zip(*others, strict=True)])
        rest = linear[:1].expand(len(total) - known, -1) / 2
        total += values[k] - factor * torch.cat([linear, rest])
    return total / len(noisy)


def _with_margin(
    given: "PredictorInput",
    change: Tensor,
    deviations: Tensor,
    mean: Tensor,
    covariance: Tensor,
    any_negative: AnyNegative,
) -> OutputChange:
    """Return the change of all outputs from that of the first two, and from margins: means (N, R) and covariances."""
    from scipy.special import ndtri  # imported here because a sweep without predictors does without it

    probability = any_negative(mean.cpu().numpy(), covariance.cpu().numpy())
    deviation = covariance[:, 0, 0].sqrt()
    quantile = torch.from_numpy(-ndtri(np.clip(probability, CERTAIN, 1 - CERTAIN))).to(deviation)
    expected = torch.where(deviation > 0, quantile * deviation, mean.amin(1))
    return OutputChange(
        torch.cat([change, (expected - given.outputs.values[-1])[None]]), torch.cat([deviations, deviation[None]])
    )
