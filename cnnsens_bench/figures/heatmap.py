"""The heatmap of one photograph: what the network sees, and how much each pixel adds to the variance of the margin."""

import warnings
from pathlib import Path

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from cnnsens_bench.utils.formatting import plain

PALE = -90
"""The gray value that is drawn black, so that the photograph is paler than the first colours."""
BLUR = 1 / 75
"""The standard deviation by which the map is smoothed, as a share of its side."""
OPACITY = 0.85
"""The opacity of the last colour. The less sensitive a pixel is, the more the photograph shows through."""


def heatmap(pixels: np.ndarray, sensitivity: np.ndarray, title: str, out: Path) -> None:
    """Draw a photograph beside its sensitivity map.

    Parameters
    ----------
    pixels
        The input of the network, (S, S, 3) uint8.
    sensitivity
        What each pixel adds to the variance of the margin, in any unit, at least 0; (S, S).
    title
        The text above both.
    out
        The PNG to write.
    """
    ratio = relative(sensitivity)
    figure = Figure(figsize=(8.2, 4.35), dpi=100, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(pixels, interpolation="nearest")
    left.set_title("as the network sees it", fontsize=9)
    gray = pixels @ np.array([0.299, 0.587, 0.114])
    right.imshow(gray, cmap="gray", vmin=PALE, vmax=255, interpolation="nearest")
    top = max(float(ratio.max()), 1.0)
    # A few pixels are far above all others. Colours by square roots show the others too.
    norm = PowerNorm(0.5, 0, top)
    colours = right.imshow(ratio, cmap="inferno", norm=norm, alpha=OPACITY * norm(ratio), interpolation="nearest")
    right.set_title("where noise moves the margin", fontsize=9)
    for axes in (left, right):
        axes.set_axis_off()
    bar = figure.colorbar(colours, ax=right, fraction=0.046, pad=0.03, ticks=tick_values(top), format="{x:g}")
    bar.set_label("variance of the margin, mean pixel = 1", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(plain(title), fontsize=10.5, parse_math=False)
    figure.supxlabel(caption(sensitivity), fontsize=8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # class names may have characters that the font lacks
        figure.savefig(out, format="png")


def tick_values(top: float) -> list[float]:
    """Return the ticks of the colour bar up to its highest value: 0, and 1, 2, 5, 10, … as far as they keep apart.

    Examples
    --------
    >>> tick_values(36)
    [0.0, 1.0, 2.0, 5.0, 10.0, 20.0]
    """
    numbers = [digit * 10.0**power for power in range(-2, 7) for digit in (1, 2, 5)]
    return [0.0, *(number for number in numbers if top / 50 <= number <= top)]


def relative(sensitivity: np.ndarray) -> np.ndarray:
    """Return a sensitivity map, slightly smoothed and divided by its mean; 0 everywhere where the mean is 0."""
    smooth = gaussian_filter(sensitivity.astype(np.float64), BLUR * sensitivity.shape[0], mode="nearest")
    mean = smooth.mean()
    return smooth / mean if mean > 0 else smooth


def caption(sensitivity: np.ndarray) -> str:
    """Return the text below the heatmap, which says how concentrated the variance is.

    Examples
    --------
    >>> caption(np.eye(10)).partition("smoothed. ")[2]
    'Half of it sits in 5 % of the pixels.'
    """
    total = sensitivity.sum(dtype=np.float64)
    if not total > 0:
        return "To first order no pixel moves the margin."
    share = np.cumsum(np.sort(sensitivity.ravel().astype(np.float64))[::-1]) / total
    half = (np.searchsorted(share, 0.5) + 1) / sensitivity.size
    colour = "Colour: Σ (∂margin/∂value)² over the channels, smoothed."
    return f"{colour} Half of it sits in {100 * half:.2g} % of the pixels."
