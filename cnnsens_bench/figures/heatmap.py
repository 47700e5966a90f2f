"""Where in a photograph the sensitivity to noise sits: the crop as a network sees it, and beside it, over the gray
picture, what each pixel adds to the variance of the margin."""

import warnings
from pathlib import Path

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from cnnsens_bench.utils.formatting import plain

PALE = -90
"""The gray value that is drawn black: the picture is kept paler than the first colours."""
BLUR = 1 / 75
"""Of the map, as a share of its side: single pixels say less than their surroundings do."""
INK = 0.85
"""Opacity of the last colour; less sensitive pixels show the picture the more."""


def heatmap(pixels: np.ndarray, stake: np.ndarray, title: str, out: Path) -> None:
    """Draw into `out`, a PNG.

    `pixels`: (S, S, 3) uint8, the network's input; `stake`: (S, S), not negative, each pixel's share of the variance
    in any unit; `title` stands above both.
    """
    ratio = relative(stake)
    figure = Figure(figsize=(8.2, 4.35), dpi=100, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(pixels, interpolation="nearest")
    left.set_title("as the network sees it", fontsize=9)
    gray = pixels @ np.array([0.299, 0.587, 0.114])
    right.imshow(gray, cmap="gray", vmin=PALE, vmax=255, interpolation="nearest")
    top = max(float(ratio.max()), 1.0)
    # A few pixels outweigh all others by far: their square roots show these too.
    norm = PowerNorm(0.5, 0, top)
    colours = right.imshow(ratio, cmap="inferno", norm=norm, alpha=INK * norm(ratio), interpolation="nearest")
    right.set_title("where noise moves the margin", fontsize=9)
    for axes in (left, right):
        axes.set_axis_off()
    bar = figure.colorbar(colours, ax=right, fraction=0.046, pad=0.03, ticks=steps(top), format="{x:g}")
    bar.set_label("variance of the margin, mean pixel = 1", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(plain(title), fontsize=10.5, parse_math=False)
    figure.supxlabel(caption(stake), fontsize=8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a class may be named in any script
        figure.savefig(out, format="png")


def steps(top: float) -> list[float]:
    """Ticks of a bar of square roots: 0, and 1, 2, 5, 10, … up to `top`, as far down as they keep apart."""
    numbers = [digit * 10.0**power for power in range(-2, 7) for digit in (1, 2, 5)]
    return [0.0, *(number for number in numbers if top / 50 <= number <= top)]


def relative(stake: np.ndarray) -> np.ndarray:
    """The map slightly smoothed, in units of its mean; all 0 where nothing counts."""
    smooth = gaussian_filter(stake.astype(np.float64), BLUR * stake.shape[0], mode="nearest")
    mean = smooth.mean()
    return smooth / mean if mean > 0 else smooth


def caption(stake: np.ndarray) -> str:
    """How concentrated the variance is."""
    total = stake.sum(dtype=np.float64)
    if not total > 0:
        return "To first order no pixel moves the margin."
    share = np.cumsum(np.sort(stake.ravel().astype(np.float64))[::-1]) / total
    half = (np.searchsorted(share, 0.5) + 1) / stake.size
    return (
        f"Colour: Σ (∂margin/∂value)² over the channels, smoothed. Half of it sits in {100 * half:.2g} % of the pixels."
    )
