"""The light that pixels stand for: the sRGB curve (IEC 61966-2-1) and the colours of black bodies.

The curve is a table with linear interpolation between its entries, so that every device computes the same bits; the
power functions of libraries differ in the last bit.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from cnnsens_bench.degradations.kernels.pixelwise import Maths

STEPS = 1 << 14
ZERO, ONE = np.float32(0), np.float32(1)


def _decoded(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _encoded(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


LIGHT = _decoded(np.arange(256) / 255).astype(np.float32)
"""The linear light in [0, 1] of the pixel values 0 to 255."""
PIXEL = (255 * _encoded(np.arange(STEPS + 1) / STEPS)).astype(np.float32)
"""The pixel values of the linear light i / STEPS; interpolation is nowhere further than 0.002 from the curve."""


def to_light(maths: Maths) -> Callable[[Any], Any]:
    """Return the formula: pixel value in [0, 255] → linear light in [0, 1]."""
    lookup = maths.lookup
    return lambda value: lookup(LIGHT, value)


def to_pixel(maths: Maths) -> Callable[[Any], Any]:
    """Return the formula: linear light, which is clipped to [0, 1] → pixel value in [0, 255]."""
    lookup, clip, steps = maths.lookup, maths.clip, np.float32(STEPS)
    return lambda light: lookup(PIXEL, clip(light, ZERO, ONE) * steps)


DAYLIGHT = 6504.0
"""The colour temperature of D65, the white of sRGB, in kelvin."""
COLDEST, HOTTEST = 1910.0, 25_000.0
"""The colour temperatures in kelvin between which `planckian` is accurate to 1e-3 in x and y and all three gains are
positive: below 1903 K a black body is redder than any colour of sRGB."""

XYZ_TO_RGB = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])


def planckian(kelvin: float) -> tuple[float, float]:
    """Return the CIE 1931 x and y of a black body of 1667 to 25,000 K (Kim et al., US patent 7,024,034, 2006)."""
    t = 1e3 / kelvin
    if kelvin <= 4000:
        x = ((-0.2661239 * t - 0.2343589) * t + 0.8776956) * t + 0.179910
    else:
        x = ((-3.0258469 * t + 2.1070379) * t + 0.2226347) * t + 0.240390
    if kelvin <= 2222:
        y = ((-1.1063814 * x - 1.34811020) * x + 2.18555832) * x - 0.20219683
    elif kelvin <= 4000:
        y = ((-0.9549476 * x - 1.37418593) * x + 2.09137015) * x - 0.16748867
    else:
        y = ((3.0817580 * x - 5.87338670) * x + 3.75112997) * x - 0.37001483
    return x, y


def illuminant_gains(kelvin: float) -> np.ndarray:
    """Return the gains of the linear red, green and blue of a camera balanced for `DAYLIGHT` under a black body.

    Parameters
    ----------
    kelvin
        The temperature of the black body, between `COLDEST` and `HOTTEST`.

    Returns
    -------
    array
        (3,) float32; the gain of green is 1.
    """

    def rgb(temperature: float) -> np.ndarray:
        x, y = planckian(temperature)
        return XYZ_TO_RGB @ np.array([x / y, 1, (1 - x - y) / y])

    gains = rgb(kelvin) / rgb(DAYLIGHT)
    return (gains / gains[1]).astype(np.float32)
