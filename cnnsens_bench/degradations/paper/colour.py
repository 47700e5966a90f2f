"""Gaussian noise on the colour channels and on hue, saturation and intensity (paper, section 2).

HSI is defined as in Gonzalez & Woods. With I the mean of the channels and c = rgb − I, noise on one of its channels
needs no conversion and no trigonometry of the pixels. Noise on the intensity is rgb·(I′/I), noise on the saturation is
I + c·(S′/S), and a turn of the hue by φ turns c about the gray axis by φ and rescales it so that its smallest channel
is −I·S again. Black and gray pixels have no hue, so neither noise changes them. `kernels/pixelwise.py` explains the
form of the formulas.
"""

import numpy as np

from cnnsens_bench.degradations.base import degradation, normal_per_image, normal_per_pixel, normal_per_value
from cnnsens_bench.degradations.kernels.pixelwise import Maths, PixelFormula, ValueFormula, pixelwise, valuewise

SIGMAS = (1, 2, 4, 8, 16, 32, 64)

# The constants are float32, because a Python number would lift a compiled loop to float64.
ZERO, HALF, ONE, TWO, THREE, FULL = (np.float32(value) for value in (0, 0.5, 1, 2, 3, 255))


@degradation("gaussian_rgb", draw=normal_per_value, levels=SIGMAS, level_name="σ")
@valuewise
def gaussian_rgb(maths: Maths) -> ValueFormula:
    """Add N(0, σ²) to every pixel and channel independently."""
    return lambda given, normal, sigma: normal * sigma + given


@degradation("gaussian_intensity", draw=normal_per_pixel, levels=SIGMAS, level_name="σ")
@pixelwise
def gaussian_intensity(maths: Maths) -> PixelFormula:
    """Add N(0, σ²) per pixel to I of HSI, clamped to [0, 255]; hue and saturation stay.

    The formula is rgb·(I′/I). A black pixel, its limit, becomes gray of the new intensity.
    """
    clip, where = maths.clip, maths.where

    def pixel(red, green, blue, normal, sigma):  # type: ignore[no-untyped-def]
        intensity = (red + green + blue) / THREE
        noisy = clip(normal * sigma + intensity, ZERO, FULL)
        black = intensity == ZERO
        gain = where(black, ZERO, noisy / intensity)
        gray = where(black, noisy, ZERO)
        return red * gain + gray, green * gain + gray, blue * gain + gray

    return pixel


@degradation("saturation", draw=normal_per_pixel, levels=SIGMAS, level_name="σ")
@pixelwise
def saturation(maths: Maths) -> PixelFormula:
    """Add N(0, σ²) per pixel to S of HSI, scaled to [0, 255] and clamped; hue and intensity stay: I + c·(S′/S)."""
    minimum, clip, where = maths.minimum, maths.clip, maths.where

    def pixel(red, green, blue, normal, sigma):  # type: ignore[no-untyped-def]
        # Differences to the smallest channel are exact where channels are close, so gray differs from nearly gray.
        low = minimum(red, minimum(green, blue))
        red, green, blue = red - low, green - low, blue - low
        chroma = (red + green + blue) / THREE  # I·S
        intensity = low + chroma
        changed = clip(normal * sigma / FULL + chroma / intensity, ZERO, ONE)
        gain = where(chroma > ZERO, changed * intensity / chroma, ZERO)
        return (
            (red - chroma) * gain + intensity,
            (green - chroma) * gain + intensity,
            (blue - chroma) * gain + intensity,
        )

    return pixel


TURN = np.float32(1 / 256)
ROOT_3, ROOT_3_HALVES = np.float32(3**-0.5), np.float32(3**0.5 / 2)
# These are the coefficients of Padé's approximation of the tangent of half an angle in turns, accurate to 2e-8 up to a
# quarter turn. Numerator and denominator are multiplied by SCALE, whose product with π is close to a float32, so that
# π costs no precision.
SCALE = 33433 / 65536
S1, S3, S5 = (np.float32(SCALE * np.pi**i * share) for i, share in ((1, 1), (3, -1 / 9), (5, 1 / 945)))
C0, C2, C4 = (np.float32(SCALE * np.pi**i * share) for i, share in ((0, 1), (2, -4 / 9), (4, 1 / 63)))


def hue_turn(maths: Maths) -> PixelFormula:
    """Return the formula that turns H by normal · σ, where 256 is a full turn; S and I stay.

    The turned colour is rescaled, so sine and cosine are needed only up to a common factor. Those of half the angle
    come from its tangent, and doubling the angle takes no division.
    """
    minimum, absolute, floor, where = maths.minimum, maths.absolute, maths.floor, maths.where

    def pixel(red, green, blue, normal, sigma):  # type: ignore[no-untyped-def]
        turns = normal * sigma * TURN
        turns = turns - floor(turns + HALF)
        half = floor(turns * TWO + HALF)
        turns = turns - half * HALF
        square = turns * turns
        sine = turns * (S1 + square * (S3 + square * S5))
        cosine = C0 + square * (C2 + square * C4)
        sign = ONE - absolute(half) * TWO
        sine, cosine = TWO * sine * cosine * sign, (cosine - sine) * (cosine + sine) * sign

        # In the plane across the gray axis, c has the component `first` along red and `beside`/√3 across it.
        low, beside = minimum(red, minimum(green, blue)), green - blue
        red, green, blue = red - low, green - low, blue - low
        chroma = (red + green + blue) / THREE  # I·S
        first = red - chroma
        intensity = low + chroma
        turned_red = first * cosine - beside * (sine * ROOT_3)
        across = first * (sine * ROOT_3_HALVES) + beside * (cosine * HALF)
        middle = -(turned_red * HALF)
        smallest = minimum(turned_red, middle - absolute(across))
        scale = where(chroma > ZERO, chroma / -smallest, ZERO)
        return (
            turned_red * scale + intensity,
            (middle + across) * scale + intensity,
            (middle - across) * scale + intensity,
        )

    return pixel


@degradation("hue_global", draw=normal_per_image, levels=SIGMAS, level_name="σ")
@pixelwise
def hue_global(maths: Maths) -> PixelFormula:
    """Add one N(0, σ²) per image to H of HSI, scaled so that 256 is a full turn; H wraps."""
    return hue_turn(maths)


@degradation("hue_local", draw=normal_per_pixel, levels=SIGMAS, level_name="σ")
@pixelwise
def hue_local(maths: Maths) -> PixelFormula:
    """Add N(0, σ²) per pixel to H of HSI, scaled so that 256 is a full turn; H wraps."""
    return hue_turn(maths)
