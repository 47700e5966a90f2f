"""Sensitivity from one backward pass (paper, section 4).

f is one output of the network for the class predicted on the undegraded image, z the image in [0, 255], F = ∂f/∂z.
What is kept of F is free of levels; `first_order` is what it predicts at any level, as the views have it in SQL.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cnnsens_bench.sensitivity.backward import CheapBackward

Network = Callable[[Tensor], Tensor]
"""(N, 3, H, W) in [0, 255] → (N, classes) logits, each image by itself; differentiable."""

OUTPUTS = ("logit", "probability", "margin")
"""The outputs f: logit and probability of the reference class, and the margin: its logit less the best other one's."""

FIRST_ORDER = ("gaussian_rgb", "pepper_pixel", "translation")
"""The degradations that `first_order` knows."""

COLUMNS = ("value", "grad_sq_norm", "pepper_sum", "pepper_sq_norm", "shift_x", "shift_y")


@dataclass(frozen=True)
class Outputs:
    """A batch's `values` (3, N) float64 and their `gradients`, one (N, 3, H, W) for each of `OUTPUTS`; `logits`
    (N, classes) and the `reference` class (N,)."""

    values: Tensor
    gradients: list[Tensor]
    logits: Tensor
    reference: Tensor


@dataclass(frozen=True)
class Change:
    """Expectation and standard deviation of the change of each of `OUTPUTS`: (3, N) float64."""

    mean: Tensor
    deviation: Tensor


def differentiate(network: Network, pixels: Tensor, reference: Tensor | None = None) -> Outputs:
    """Values and gradients of `OUTPUTS`: one forward pass, one backward pass each, for all images at once.

    `pixels` (N, 3, H, W) in [0, 255], not changed; `reference` (N,) classes, None: the predicted ones. The sum over
    the batch is differentiated; since images do not meet in the network, each row is its own image's gradient.
    Raises `ValueError` for a network of fewer than two classes.
    """
    with torch.enable_grad():
        leaf = pixels.detach().requires_grad_()
        with CheapBackward():
            logits = network(leaf)
        if logits.shape[1] < 2:
            raise ValueError("a margin needs at least two classes")
        if reference is None:
            reference = logits.argmax(1)
        values = outputs_of(logits, reference)
        last = len(values) - 1
        gradients = [
            torch.autograd.grad(value.sum(), leaf, retain_graph=i < last)[0].detach() for i, value in enumerate(values)
        ]
    return Outputs(values.detach(), gradients, logits.detach(), reference)


def outputs_of(logits: Tensor, reference: Tensor) -> Tensor:
    """(N, classes) logits, (N,) classes → (3, N) float64: `OUTPUTS`.

    In double precision, for in single the gradient of a probability within 1e-7 of 1 is rounding.
    """
    logits = logits.double()
    index = reference[:, None]
    logit = logits.gather(1, index)[:, 0]
    probability = logits.log_softmax(1).gather(1, index)[:, 0].exp()
    rival = logits.scatter(1, index, float("-inf")).amax(1)
    return torch.stack([logit, probability, logit - rival])


def level_free(outputs: Outputs, pixels: Tensor, across: Tensor, down: Tensor) -> dict[str, Tensor]:
    """The columns `COLUMNS` of the table `sensitivity`, each (3, N) float64.

    `across`, `down` (N, 3, H, W): ∂z/∂x and ∂z/∂y (`central_differences`). `grad_sq_norm` = ‖F‖²; with
    v = −Σ_c z_c·F_c (equation 3), `pepper_sum` = Σv and `pepper_sq_norm` = ‖v‖²; `shift_x` = F·∂z/∂x (equation 5).
    """
    columns: dict[str, list[Tensor]] = {name: [] for name in COLUMNS[1:]}
    for gradient in outputs.gradients:
        black = blackening(gradient, pixels)
        columns["grad_sq_norm"].append(dot(gradient, gradient))
        columns["pepper_sum"].append(black.flatten(1).sum(1, dtype=torch.float64))
        columns["pepper_sq_norm"].append(dot(black, black))
        columns["shift_x"].append(dot(gradient, across))
        columns["shift_y"].append(dot(gradient, down))
    return {"value": outputs.values, **{name: torch.stack(rows) for name, rows in columns.items()}}


def first_order(columns: dict[str, Tensor], degradation: str, level: float) -> Change:
    """What the gradient expects at a level; V of section 4 is mean² + deviation² (equations 2, 4 and 5).

    `columns` of `level_free`. Raises `KeyError` for a degradation other than `FIRST_ORDER`.
    """
    mean = torch.zeros_like(columns["value"])
    if degradation == "gaussian_rgb":
        variance = level * level * columns["grad_sq_norm"]
    elif degradation == "pepper_pixel":
        mean = level * columns["pepper_sum"]
        variance = level * (1 - level) * columns["pepper_sq_norm"]
    elif degradation == "translation":
        variance = level * level * (columns["shift_x"] ** 2 + columns["shift_y"] ** 2)
    else:
        raise KeyError(degradation)
    return Change(mean, variance.sqrt())


def blackening(gradient: Tensor, pixels: Tensor) -> Tensor:
    """v (N, H, W) of equation 3: what f changes by, to first order, when a pixel turns black."""
    return -(pixels * gradient).sum(1)


def central_differences(wide: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 3, H + 2, W + 2), the images with one pixel more on every side → ∂z/∂x and ∂z/∂y, each (N, 3, H, W)."""
    across = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2
    down = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2
    return across, down


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products, image by image, summed in double precision: (N,)."""
    return (a * b).flatten(1).sum(1, dtype=torch.float64)
