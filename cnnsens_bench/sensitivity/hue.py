"""Hue entropy: the paper finds images of few hues to be the sensitive ones (section 3, qualitative results)."""

import numpy as np
from scipy.stats import entropy

HUE_BINS = 256


def hue_entropy(pixels: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Entropy, in bits, of the hues (HSI, 256 bins a turn) of `pixels` (h, w, 3) where `mask` (h, w) is true.

    Gray pixels have no hue and are left out; 0.0 when nothing is left.
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
