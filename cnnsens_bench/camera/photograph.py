"""Measures one photograph."""

import math
from dataclasses import dataclass, replace

import numpy as np

from cnnsens_bench.camera.blur import blur_of
from cnnsens_bench.camera.defects import (
    BlackCounts,
    black_counts,
    surroundings,
    without_zeros,
    zeros_in_light,
)
from cnnsens_bench.camera.exposure import ExposureFigures, exposure_of
from cnnsens_bench.camera.jpeg_quality import JpegQuality, jpeg_quality
from cnnsens_bench.camera.noise import NoiseFigures, noise_between, noise_of, resizing_factor
from cnnsens_bench.camera.shots import thumbnail
from cnnsens_bench.images import Decoded, render
from cnnsens_bench.images.file_facts import FileFacts

MANY_BLACK = 0.002
"""The share of black values from which they are filled in before noise is measured."""
CONSTANT, CONSTANT_OF_LOSSY = 0.2, 0.5
"""The share of blocks without any noise from which a picture is no photograph, and that of a compressed picture."""


@dataclass(frozen=True)
class PhotographFigures:
    """What was measured of one photograph.

    Attributes
    ----------
    facts : FileFacts
        What its file says.
    reduction : float
        By what its width or height, whichever is less, is divided before it is measured; 1 without a resize.
    noise : NoiseFigures or None
        None where too little of it is not clipped.
    blur : float
        In pixels; NaN where there are too few edges.
    exposure : ExposureFigures
        Its light.
    black : BlackCounts or None
        None for a file that does not keep every pixel.
    jpeg : JpegQuality or None
        None for other files than JPEG.
    thumbnail : numpy.ndarray
        By which shots of one scene are found.
    """

    facts: FileFacts
    reduction: float
    noise: NoiseFigures | None
    blur: float
    exposure: ExposureFigures
    black: BlackCounts | None
    jpeg: JpegQuality | None
    thumbnail: np.ndarray

    @property
    def layout(self) -> tuple[tuple[int, int], int]:
        """The size of the file and how it is turned; photographs that differ in it show other pixels of the sensor."""
        return self.facts.size, self.facts.orientation

    @property
    def is_drawn(self) -> bool:
        """Whether so much of it has no noise at all that it is a screenshot or a drawing."""
        most = CONSTANT_OF_LOSSY if self.facts.lossy else CONSTANT
        return self.facts.camera is None and self.noise is not None and self.noise.constant > most


def measure_photograph(image: Decoded, facts: FileFacts, size: int | None) -> PhotographFigures:
    """Measure a photograph.

    Parameters
    ----------
    image
        The whole photograph.
    facts
        What its file says.
    size
        The side of the network's input that it is resized to first; None for the photograph as it is. Black pixels are
        always looked for in the photograph as it is.
    """
    pixels = image.pixels
    black = None
    if not facts.lossy:
        around = surroundings(pixels)
        zeros = zeros_in_light(pixels, around)
        filled = without_zeros(pixels, zeros) if zeros.mean() > MANY_BLACK else pixels
        own_noise = noise_of(filled)
        black = black_counts(pixels, around, math.sqrt(own_noise.fine.max()) if own_noise else 0.0)
        pixels = filled
    shown = pixels if size is None else render(image, size)
    noise = own_noise if black and size is None else noise_of(shown)
    if noise and size is not None:
        factor = resizing_factor(*(float(f"{side / size:.2g}") for side in (image.width, image.height)))
        noise = replace(noise, fine=noise.fine * factor, by_brightness=noise.by_brightness * factor)
    return PhotographFigures(
        facts=facts,
        reduction=1.0 if size is None else min(image.width, image.height) / size,
        noise=noise,
        blur=blur_of(shown),
        exposure=exposure_of(shown),
        black=black,
        jpeg=jpeg_quality(facts.quantization) if facts.quantization else None,
        thumbnail=thumbnail(image.pixels),
    )


def measure_pair(first: Decoded, second: Decoded, size: int | None) -> NoiseFigures | None:
    """Measure the noise of two shots of one scene, which have the same size, as `measure_photograph` takes them."""
    shown, again = (image.pixels if size is None else render(image, size) for image in (first, second))
    return noise_between(shown, again)
