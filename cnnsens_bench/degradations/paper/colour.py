"""Gaussian noise on the colour channels and on hue, saturation and intensity (paper, section 2).

HSI is Gonzalez & Woods'. With I the mean of the channels and c = rgb − I, noise on one of its channels needs no
conversion and no trigonometry of the pixels: intensity is rgb·(I′/I), saturation I + c·(S′/S), and a hue turn by φ
turns c about the gray axis by φ and rescales it so that its smallest channel is −I·S again. Black and gray pixels
have no hue: turning or saturating them changes nothing.
"""

import numpy as np

from cnnsens_bench.degradations.base import degradation, normal_per_image, normal_per_pixel, normal_per_value
from cnnsens_bench.degradations.kernels.pixelwise import Maths, Pixel, Value, pixelwise, valuewise

SIGMAS = (1, 2, 4, 8, 16, 32, 64)

# float32 throughout: a Python number would lift a compiled loop to float64.
ZERO, HALF, ONE, TWO, THREE, FULL = (np.float32(value) for value in (0, 0.5, 1, 2, 3, 255))


@degradation("gaussian_rgb", draw=normal_per_value, levels=SIGMAS, level_name="σ")
@valuewise
def gaussian_rgb(maths: Maths) -> Value:
    """N(0, σ²) added to every pixel and channel on its own."""

    def value(given, normal, sigma):  # type: ignore[no-untyped-def]
        return normal * sigma + given

    return value


@degradation("gaussian_intensity", draw=normal_per_pixel, levels=SIGMAS, level_name="σ")
@pixelwise
def gaussian_intensity(maths: Maths) -> Pixel:
    """N(0, σ²) per pixel on I of HSI, I′ kept in [0, 255]; hue and saturation stay: rgb·(I′/I).

    A black pixel's limit is the gray of the new intensity.
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
def saturation(maths: Maths) -> Pixel:
    """N(0, σ²) per pixel on S of HSI, S scaled to [0, 255] and clamped; hue and intensity stay: I + c·(S′/S)."""
    minimum, clip, where = maths.minimum, maths.clip, maths.where

    def pixel(red, green, blue, normal, sigma):  # type: ignore[no-untyped-def]
        # Differences to the smallest channel are exact where channels are close: gray is told from nearly gray.
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
# Padé's approximation of the tangent of half an angle given in turns, both its parts times SCALE: good to 2e-8 up to
# a quarter. Times π, SCALE is next to a float32, so that π costs no precision.
SCALE = 33433 / 65536
S1, S3, S5 = (np.float32(SCALE * np.pi**i * share) for i, share in ((1, 1), (3, -1 / 9), (5, 1 / 945)))
C0, C2, C4 = (np.float32(SCALE * np.pi**i * share) for i, share in ((0, 1), (2, -4 / 9), (4, 1 / 63)))


def hue_turn(maths: Maths) -> Pixel:
    """The formula that turns H by normal · σ (256 is a full turn); S and I stay.

    The turned colour is rescaled, so sine and cosine are needed but for a common factor: those of half the angle come
    from its tangent, and doubling it takes no division.
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

        # In the plane across the gray axis c is `first` along red and `beside`/√3 across it.
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
def hue_global(maths: Maths) -> Pixel:
    """One N(0, σ²) per image on H of HSI, H scaled so that 256 is a full turn, wrapping."""
    return hue_turn(maths)


@degradation("hue_local", draw=normal_per_pixel, levels=SIGMAS, level_name="σ")
@pixelwise
def hue_local(maths: Maths) -> Pixel:
    """N(0, σ²) per pixel on H of HSI, H scaled so that 256 is a full turn, wrapping."""
    return hue_turn(maths)
