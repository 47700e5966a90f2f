"""Measures how light a photograph is, how much of it is clipped, and the colour of its light."""

import functools
from typing import NamedTuple

import numpy as np

from cnnsens_bench.degradations.camera.light import COLDEST, DAYLIGHT, HOTTEST, LIGHT, illuminant_gains

LIGHTEST, DARKEST = 254, 1
"""The gray levels from which, and up to which, a value counts as clipped."""
MIDDLE_GRAY = 0.18
"""The linear light that an exposure meter aims at, as a share of white."""
NORM = 6
"""The exponent of the mean from which the colour of the light is taken."""


class ExposureFigures(NamedTuple):
    """The light of one photograph.

    `intensity` is the mean gray level; `stops` how many times the mean linear light is twice `MIDDLE_GRAY`;
    `highlights` and `shadows` are the shares of clipped pixels. `red` and `blue` are the gains of these channels over
    green that a gray surface seems to have, in linear light; NaN in a picture without colours.
    """

    intensity: float
    stops: float
    highlights: float
    shadows: float
    red: float
    blue: float


def exposure_of(pixels: np.ndarray) -> ExposureFigures:
    """Measure the light of a photograph, (h, w, 3) uint8.

    The colour of the light is that of the channels' means with the exponent `NORM` (Finlayson and Trezzi, "Shades of
    gray and colour constancy", CIC 2004), which depends less on what is in the picture than their plain means do.
    Clipped pixels, whose colour is lost, do not count.
    """
    shares = _shares(pixels.reshape(-1, 3))
    light = float((shares @ LIGHT).mean())
    clipped = (pixels >= LIGHTEST).any(2)
    norms = (_shares(pixels[~clipped]) @ LIGHT.astype(float) ** NORM) ** (1 / NORM)
    coloured = bool(np.ptp(pixels, axis=2).any()) and norms.min() > 0
    red, blue = (float(norms[channel] / norms[1]) if coloured else np.nan for channel in (0, 2))
    return ExposureFigures(
        intensity=float((shares @ np.arange(256)).mean()),
        stops=float(np.log2(max(light, 1e-6) / MIDDLE_GRAY)),
        highlights=float(clipped.mean()),
        shadows=float((pixels <= DARKEST).all(2).mean()),
        red=red,
        blue=blue,
    )


def _shares(values: np.ndarray) -> np.ndarray:
    """Return which share of the values (n, 3) of each channel has each gray level, (3, 256)."""
    counts = np.stack([np.bincount(channel, minlength=256) for channel in values.T])
    return counts / max(len(values), 1)


def white_balance_level(red: float, blue: float) -> float:
    """Return the level of the degradation `white_balance` whose gains of blue over red come closest.

    Parameters
    ----------
    red, blue
        The gains over green.

    Returns
    -------
    float
        The colour temperature off daylight in kelvin, within the degradation's range.

    Examples
    --------
    >>> red, _, blue = illuminant_gains(DAYLIGHT - 3000)
    >>> round(white_balance_level(red, blue))
    -3000
    """
    kelvin, ratios = _planckian_ratios()
    return float(np.interp(np.log(blue / red), ratios, kelvin)) - DAYLIGHT


@functools.cache
def _planckian_ratios() -> tuple[np.ndarray, np.ndarray]:
    """Return colour temperatures and the logarithms of blue over red, which rise with them."""
    kelvin = np.geomspace(COLDEST, HOTTEST, 2000)
    gains = np.array([illuminant_gains(one) for one in kelvin])
    return kelvin, np.log(gains[:, 2] / gains[:, 0])
