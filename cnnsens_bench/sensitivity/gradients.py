"""Sensitivity from one backward pass (paper, section 4).

f is one output of the network for the class predicted on the undegraded image, z the image in [0, 255], and F = ∂f/∂z.
What is kept of F does not depend on a level. `first_order` predicts from it the change at any level, as the views of
the database do in SQL.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cnnsens_bench.sensitivity.backward import CheapBackward

Network = Callable[[Tensor], Tensor]
"""A differentiable function (N, 3, H, W) in [0, 255] → logits (N, classes), of each image by itself."""

OUTPUTS = ("logit", "probability", "margin")
"""The outputs f: the logit and the probability of the reference class, and the margin, which is the logit minus the
largest one of another class."""

FIRST_ORDER = ("gaussian_rgb", "pepper_pixel", "translation")
"""The degradations that `first_order` knows."""

COLUMNS = ("value", "grad_sq_norm", "pepper_sum", "pepper_sq_norm", "shift_x", "shift_y")
"""The columns of the table `sensitivity` that `level_free` computes."""


@dataclass(frozen=True)
class Outputs:
    """The outputs of a network for a batch of N images.

    Parameters
    ----------
    values
        (3, N) float64, in the order of `OUTPUTS`.
    gradients
        One tensor (N, 3, H, W) for each of `OUTPUTS`, per unit of [0, 255]; empty where the network gives none.
    logits
        (N, classes).
    reference
        (N,), the class that the outputs are for.
    """

    values: Tensor
    gradients: list[Tensor]
    logits: Tensor
    reference: Tensor


@dataclass(frozen=True)
class OutputChange:
    """The mean and the standard deviation of how much each of `OUTPUTS` changes, both (3, N) float64."""

    mean: Tensor
    deviation: Tensor


def differentiate(network: Network, pixels: Tensor, reference: Tensor | None = None) -> Outputs:
    """Compute the outputs of a network and their gradients, by one forward pass and one backward pass per output.

    The sum over the batch is differentiated: since images do not meet in the network, each row is the gradient of its
    own image.

    Parameters
    ----------
    network
        As `Network`.
    pixels
        (N, 3, H, W) in [0, 255], which are not changed.
    reference
        (N,) classes; None for the predicted ones.

    Raises
    ------
    ValueError
        If the network has fewer than two classes.

    Examples
    --------
    >>> network = lambda pixels: pixels.sum((2, 3))
    >>> outputs = differentiate(network, torch.tensor([3.0, 1.0, 2.0]).view(1, 3, 1, 1))
    >>> outputs.reference.tolist(), outputs.values[2].tolist(), outputs.gradients[2].flatten().tolist()
    ([0], [1.0], [1.0, 0.0, -1.0])
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


def evaluate(network: Callable[[Tensor], Tensor], pixels: Tensor) -> Outputs:
    """Compute the outputs of a network that gives no gradients, by one forward pass.

    Parameters
    ----------
    network
        A function (N, 3, H, W) in [0, 255] → logits (N, classes).
    pixels
        (N, 3, H, W) in [0, 255].
    """
    with torch.no_grad():
        logits = network(pixels)
    reference = logits.argmax(1)
    return Outputs(outputs_of(logits, reference), [], logits, reference)


def outputs_of(logits: Tensor, reference: Tensor) -> Tensor:
    """Return `OUTPUTS` for reference classes (N,) from logits (N, classes): (3, N) float64.

    The precision is double, because in single precision the gradient of a probability within 1e-7 of 1 is rounding.
    """
    logits = logits.double()
    index = reference[:, None]
    logit = logits.gather(1, index)[:, 0]
    probability = logits.log_softmax(1).gather(1, index)[:, 0].exp()
    rival = logits.scatter(1, index, float("-inf")).amax(1)
    return torch.stack([logit, probability, logit - rival])


def level_free(outputs: Outputs, pixels: Tensor, across: Tensor, down: Tensor) -> dict[str, Tensor]:
    """Compute what `first_order` needs of the gradients: the columns of the table `sensitivity`.

    Parameters
    ----------
    outputs
        From `differentiate`, for `pixels` (N, 3, H, W) in [0, 255].
    across, down
        ∂z/∂x and ∂z/∂y from `central_differences`, (N, 3, H, W).

    Returns
    -------
    dict
        `COLUMNS`, each (3, N) float64: `value`; `grad_sq_norm` = ‖F‖²; with v = −Σ_c z_c·F_c (equation 3), `pepper_sum`
        = Σv and `pepper_sq_norm` = ‖v‖²; and `shift_x` = F·∂z/∂x, `shift_y` = F·∂z/∂y (equation 5).
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


def first_order(columns: dict[str, Tensor], degradation: str, level: float) -> OutputChange:
    """Predict the change of the outputs at a level from the gradient; mean² + deviation² is V of section 4.

    Parameters
    ----------
    columns
        What `level_free` returned.
    degradation
        One of `FIRST_ORDER`: equation 2 with G = I, equation 4, and equation 5.
    level
        σ or p.

    Raises
    ------
    KeyError
        If the degradation is another one.

    Examples
    --------
    >>> columns = {"value": torch.zeros(3, 1), "grad_sq_norm": torch.full((3, 1), 4.0)}
    >>> first_order(columns, "gaussian_rgb", 3.0).deviation[0].tolist()
    [6.0]
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
    return OutputChange(mean, variance.sqrt())


def blackening(gradient: Tensor, pixels: Tensor) -> Tensor:
    """Return v of equation 3, by how much f changes to first order when a pixel turns black: (N, H, W)."""
    return -(pixels * gradient).sum(1)


def central_differences(wide: Tensor) -> tuple[Tensor, Tensor]:
    """Return ∂z/∂x and ∂z/∂y of images, each (N, 3, H, W).

    `wide` (N, 3, H + 2, W + 2) are the images with one more pixel on every side.
    """
    across = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2
    down = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2
    return across, down


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of each image of two batches, summed in double precision: (N,)."""
    return (a * b).flatten(1).sum(1, dtype=torch.float64)
