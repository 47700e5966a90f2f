"""Estimates the noise of a picture from its flattest blocks, where little else varies.

The method is that of Ponomarenko et al. as Colom and Buades analyse it (IPOL 2013). Of many blocks those are taken
whose cosine transform has the least energy at low frequencies, and the noise is read from their high frequencies,
which the choice of the blocks does not depend on.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy.fft import dctn

from cnnsens_bench.images import Decoded, render

SIDE = 8
"""The side of a block in pixels."""
SMALLEST = 4 * SIDE
"""The side in pixels below which a picture has too few different blocks."""
BLOCKS = 20_000
"""How many blocks of a picture are looked at."""
FEWEST_BLOCKS = 500
"""The fewest blocks without clipped values from which noise can be told."""
FLATTEST = 0.005
"""The share of blocks that count as flat, but at least `FEWEST_FLAT` of them."""
FEWEST_FLAT = 60
RANGES = 8
"""Into how many ranges of equal width brightness is divided."""
FEWEST_IN_RANGE, FLATTEST_IN_RANGE, FEWEST_FLAT_IN_RANGE = 1000, 0.01, 40
CHANNELS = ("red", "green", "blue", "intensity")
ROUNDING = np.array([1, 1, 1, 1 / 3]) / 12
"""The variance by which rounding to 8 bits adds to each of `CHANNELS`; intensity is the mean of the others."""

ORDER = np.add.outer(np.arange(SIDE), np.arange(SIDE))
HIGH = ORDER >= 9
LOW = (ORDER >= 1) & ~HIGH
COARSEST = (ORDER >= 2) & (ORDER <= 3)
DAUBECHIES = np.array([-0.48296291314453414, 0.8365163037378079, -0.2241438680420134, -0.12940952255126037])
"""The high-pass filter of Daubechies' second wavelet, by which scikit-image's `estimate_sigma` measures noise."""
NORMAL_QUARTILE = 0.6744897501960817


@dataclass(frozen=True)
class NoiseFigures:
    """The noise of one picture, as variances in squared gray levels.

    Attributes
    ----------
    fine : numpy.ndarray
        (4,): of `CHANNELS`, from high frequencies.
    coarse : numpy.ndarray
        (4,): the same from all frequencies, in which some texture counts as noise.
    by_brightness : numpy.ndarray
        (RANGES, 4): `fine` within each range of brightness; NaN where too few blocks have it.
    wavelet : float
        The variance that the median of the finest diagonal wavelet coefficients gives, as scikit-image computes it.
        Texture counts as noise in it.
    constant : float
        The share of the blocks without clipped values in which all pixels are equal.
    flat : int
        How many flat blocks `fine` was measured in.
    """

    fine: np.ndarray
    coarse: np.ndarray
    by_brightness: np.ndarray
    wavelet: float
    constant: float
    flat: int


def noise_of(pixels: np.ndarray, seed: int = 0) -> NoiseFigures | None:
    """Measure the noise of a picture; None where it is clipped nearly everywhere or too small.

    Parameters
    ----------
    pixels
        The picture, (h, w, 3) uint8.
    seed
        Chooses the blocks.
    """
    blocks = _unclipped(_sampled(pixels, seed))
    if len(blocks) < FEWEST_BLOCKS:
        return None
    constant = float((np.ptp(blocks, axis=(1, 2)) == 0).all(1).mean())
    brightness = blocks.mean((1, 2, 3))
    waves = _with_intensity(dctn(blocks.astype(np.float32), axes=(1, 2), norm="ortho"))
    energy = waves[..., 3] ** 2
    low_energy = (energy * LOW).sum((1, 2))
    flat = _flattest(low_energy, max(FEWEST_FLAT, round(FLATTEST * len(blocks))))
    by_brightness = np.full((RANGES, 4), np.nan)
    for index in range(RANGES):
        inside = np.flatnonzero((brightness * RANGES / 256).astype(int) == index)
        if len(inside) >= FEWEST_IN_RANGE:
            chosen = _flattest(low_energy[inside], max(FEWEST_FLAT_IN_RANGE, round(FLATTEST_IN_RANGE * len(inside))))
            by_brightness[index] = _fine(waves[inside[chosen]])
    coarse = _coarse(waves, energy, len(flat))
    return NoiseFigures(_fine(waves[flat]), coarse, by_brightness, wavelet_variance(pixels), constant, len(flat))


def noise_between(first: np.ndarray, second: np.ndarray, seed: int = 0) -> NoiseFigures | None:
    """Measure the noise of two shots of one scene from their difference, in which no texture is left.

    All frequencies count, so that noise that a camera or JPEG has smoothed is measured whole. The median over blocks
    leaves out where something moved.

    Parameters
    ----------
    first, second
        The shots, (h, w, 3) uint8 of the same size.
    seed
        Chooses the blocks.

    Returns
    -------
    NoiseFigures or None
        The noise of one shot; `fine` and `coarse` are equal. None where nearly all is clipped.
    """
    blocks = _unclipped(_sampled(np.concatenate([first, second], axis=2), seed))
    if len(blocks) < FEWEST_BLOCKS:
        return None
    brightness = blocks.mean((1, 2, 3))
    difference = (blocks[..., :3].astype(np.float32) - blocks[..., 3:]) / np.sqrt(np.float32(2))
    difference -= np.median(difference, axis=(0, 1, 2))  # the light may have changed between the shots
    variances = (_with_intensity(difference) ** 2).mean((1, 2))
    by_brightness = np.full((RANGES, 4), np.nan)
    for index in range(RANGES):
        inside = (brightness * RANGES / 256).astype(int) == index
        if inside.sum() >= FEWEST_IN_RANGE:
            by_brightness[index] = _median_variance(variances[inside])
    total = _median_variance(variances)
    return NoiseFigures(total, total, by_brightness, float(total[:3].mean()), 0.0, len(blocks))


def wavelet_variance(pixels: np.ndarray) -> float:
    """Return the mean over channels of the noise variance by the median of the finest diagonal wavelet coefficients.

    This is the estimator of Donoho and Johnstone (1994) that scikit-image's `estimate_sigma` computes.
    """
    height, width = pixels.shape[:2]
    values = pixels.astype(np.float32)
    rows = sum(tap * values[k : height - 3 + k : 2] for k, tap in enumerate(DAUBECHIES))
    details = np.abs(sum(tap * rows[:, k : width - 3 + k : 2] for k, tap in enumerate(DAUBECHIES)))
    found = [np.median(channel[channel > 0]) if (channel > 0).any() else 0.0 for channel in np.moveaxis(details, 2, 0)]
    return float(np.mean((np.array(found) / NORMAL_QUARTILE) ** 2))


@functools.lru_cache(maxsize=64)
def resizing_factor(across: float, down: float, size: int = 96) -> float:
    """Return how much larger the variance of resized noise is than its high frequencies say.

    Resizing smooths noise, so that its fine part is no measure of the whole. The factor is that of white noise, which
    noise of any grain becomes where a picture is reduced by far more than the grain.

    Parameters
    ----------
    across, down
        By what width and height are divided.
    size
        The side of the picture of noise that is resized to find out.
    """
    rng = np.random.default_rng(0)
    width, height = max(round(size * across), SIDE), max(round(size * down), SIDE)
    noise = rng.normal(0, 4 * max(across, down, 2), (height, width, 3)) + 128
    pixels = np.clip(noise, 0, 255).round().astype(np.uint8)
    resized = render(Decoded(pixels, 0, 0, width, height, (0, 0, width, height)), size).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(resized, (SIDE, SIDE), axis=(0, 1))[::3, ::3]
    waves = dctn(windows.reshape(-1, SIDE, SIDE), axes=(1, 2), norm="ortho")
    fine = np.median((waves**2).mean(0)[HIGH])
    return float((resized.var(axis=(0, 1)).mean() - 1 / 12) / (fine - 1 / 12))


def _sampled(pixels: np.ndarray, seed: int) -> np.ndarray:
    """Return blocks at random positions, (n, SIDE, SIDE, channels)."""
    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST:
        return np.zeros((0, SIDE, SIDE, pixels.shape[2]), np.uint8)
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(0, height - SIDE + 1, BLOCKS), rng.integers(0, width - SIDE + 1, BLOCKS)
    steps = np.arange(SIDE)
    return pixels[rows[:, None, None] + steps[:, None], columns[:, None, None] + steps]


def _unclipped(blocks: np.ndarray) -> np.ndarray:
    return blocks[((blocks > 0) & (blocks < 255)).all(axis=(1, 2, 3))]


def _with_intensity(values: np.ndarray) -> np.ndarray:
    """Return values whose last axis is red, green and blue with their mean as a fourth channel."""
    return np.concatenate([values, values.mean(-1, keepdims=True)], axis=-1)


def _flattest(energy: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(energy, kind="stable")[:count]


def _fine(waves: np.ndarray) -> np.ndarray:
    return np.maximum(np.median((waves**2).mean(0)[HIGH], axis=0) - ROUNDING, 0)


def _coarse(waves: np.ndarray, energy: np.ndarray, count: int) -> np.ndarray:
    """Return the variances over all frequencies.

    Blocks are chosen by one half of the frequencies and measured by the other, in turn, since the least of noisy
    numbers is too small. The lowest frequencies, where shading is, are taken to be as the next ones.
    """
    variance = np.zeros((SIDE, SIDE, 4))
    for chosen_by in (0, 1):
        chooses, measured = (ORDER >= 2) & (chosen_by == ORDER % 2), (ORDER >= 2) & (chosen_by != ORDER % 2)
        flat = _flattest((energy * chooses).sum((1, 2)), count)
        variance[measured] = (waves[flat] ** 2).mean(0)[measured]
    total = variance[ORDER >= 2].sum(0) + (ORDER < 2).sum() * variance[COARSEST].mean(0)
    return np.maximum(total / SIDE**2 - ROUNDING, 0)


def _median_variance(variances: np.ndarray) -> np.ndarray:
    """Return the variance of noise whose mean squares in blocks are given, from their median."""
    below_mean = (1 - 2 / (9 * SIDE**2)) ** 3  # the median of a χ² distribution divided by its mean
    return np.maximum(np.median(variances, axis=0) / below_mean - ROUNDING, 0)
