"""Hue entropy, which is lower for the images that the paper finds sensitive (section 3, qualitative results)."""

import numpy as np
from scipy.stats import entropy

HUE_BINS = 256
"""Bins for a full turn of the hue."""


def hue_entropy(pixels: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Return the entropy of the hues of an image in bits.

    Parameters
    ----------
    pixels
        (h, w, 3).
    mask
        (h, w) bool, the pixels that count; None, or a mask without any, for all.

    Returns
    -------
    float
        The entropy over `HUE_BINS` bins of the hue of HSI, in [0, 8]. Gray pixels have no hue and do not count; 0 if
        no others are left.

    Examples
    --------
    >>> hue_entropy(np.array([[[255, 0, 0], [0, 255, 0], [9, 9, 9]]]))
    1.0
    """
    colours = pixels[mask] if mask is not None and mask.any() else pixels.reshape(-1, 3)
    red, green, blue = colours.astype(np.float64).T
    across, along = np.sqrt(3) * (green - blue), 2 * red - green - blue
    coloured = (across != 0) | (along != 0)
    turns = np.arctan2(across[coloured], along[coloured]) / (2 * np.pi) % 1
    if turns.size == 0:
        return 0.0
    counts = np.bincount((turns * HUE_BINS).astype(np.int64) % HUE_BINS, minlength=HUE_BINS)
    return float(entropy(counts, base=2))
