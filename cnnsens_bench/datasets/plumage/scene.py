"""The photographs of `plumage`: a background with natural 1/f texture, clutter, a perch, a bird and light."""

import functools
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from cnnsens_bench.datasets.plumage.birds import Species, draw_bird

GROUNDS = np.array(
    [(92, 124, 70), (132, 140, 92), (150, 128, 96), (120, 150, 178), (168, 176, 172), (84, 96, 84), (158, 118, 84)],
    float,
)
"""RGB colours of foliage, meadow, earth, sky, haze, wood and autumn leaves, in [0, 255]."""


@dataclass(frozen=True)
class Scene:
    """A drawn photograph of one bird.

    Attributes
    ----------
    image : numpy.ndarray
        The photograph, (H, W, 3) uint8.
    mask : numpy.ndarray
        255 where the bird is visible, else 0; (H, W) uint8.
    """

    image: np.ndarray
    mask: np.ndarray


def draw_scene(species: Species, size: int, entropy: list[int]) -> Scene:
    """Draw one photograph of one bird.

    Parameters
    ----------
    species
        The species of the bird.
    size
        The side of the photograph in pixels.
    entropy
        The numbers that determine all that is random. With the same numbers, both species of a pair have the same
        background, pose and light.
    """
    rng = np.random.default_rng(entropy)
    ground = background(size, rng)
    texture = pink_noise(size, rng, exponent=0.4)
    bird = draw_bird(species, size, rng, texture)
    clutter(ground, rng)
    perch(ground, bird.feet, rng)
    alpha = bird.alpha[..., None]
    canvas = ground * (1 - alpha) + bird.colour * alpha
    seen = bird.alpha
    if rng.random() < 0.3:
        leaf, cover = _leaf(size, rng, bird.feet.mean(axis=0) + rng.normal(0, 0.1 * size, 2), 0.07)
        canvas = canvas * (1 - cover[..., None]) + leaf * cover[..., None]
        seen = seen * (1 - cover)
    lit = light(canvas, rng)
    return Scene(np.clip(lit + 0.5, 0, 255).astype(np.uint8), np.where(seen > 0.5, 255, 0).astype(np.uint8))


def pink_noise(size: int, rng: np.random.Generator, exponent: float = 1.0) -> np.ndarray:
    """Return noise whose amplitude falls with the frequency f as 1/f^exponent, as it does in natural images.

    It has mean 0, standard deviation 1 and the shape (size, size).
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    noise = np.fft.irfft2(spectrum * _falloff(size, exponent), s=(size, size))
    return noise / noise.std()


@functools.lru_cache
def _falloff(size: int, exponent: float) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf
    return frequency**-exponent


def background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw two colours that blend into each other under a 1/f texture of brightness; (size, size, 3) float."""
    first, second = GROUNDS[rng.choice(len(GROUNDS), 2, replace=False)] + rng.normal(0, 12, (2, 3))
    blend = 1 / (1 + np.exp(-2.5 * (pink_noise(size, rng, 1.4) + rng.normal(0, 0.5))))
    brightness = pink_noise(size, rng) * rng.uniform(14, 30)
    return first * (1 - blend[..., None]) + second * blend[..., None] + brightness[..., None]


def clutter(ground: np.ndarray, rng: np.random.Generator) -> None:
    """Draw discs and twigs out of focus, and leaves in focus, into the background."""
    size = len(ground)
    canvas = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(canvas, "RGBA")
    for _ in range(rng.integers(2, 8)):
        radius = rng.uniform(0.03, 0.12) * size
        x, y = rng.uniform(0, size, 2)
        colour = GROUNDS[rng.integers(len(GROUNDS))] + rng.normal(20, 25, 3)
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=_rgba(colour, int(rng.integers(60, 150))))
    for _ in range(rng.integers(1, 5)):
        ends = rng.uniform(-0.1, 1.1, (2, 2)) * size
        draw.line([tuple(p) for p in ends], fill=_rgba(np.array([88, 70, 52]) + rng.normal(0, 18, 3), 200),
                  width=int(rng.integers(1, 6)))  # fmt: skip
    blurred = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.8, 3.0)))
    fine = ground - np.asarray(Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(2)))
    ground[...] = np.asarray(blurred) + 0.7 * fine
    for _ in range(rng.integers(0, 5)):
        leaf, cover = _leaf(size, rng, rng.uniform(0, size, 2), rng.uniform(0.05, 0.12))
        ground[...] = ground * (1 - cover[..., None]) + leaf * cover[..., None]


def perch(ground: np.ndarray, feet: np.ndarray, rng: np.random.Generator) -> None:
    """Draw a branch under the feet, lighter on its upper side, into the background."""
    size = len(ground)
    through, slope = feet.mean(axis=0), rng.uniform(-0.25, 0.25)
    width = rng.uniform(0.03, 0.06) * size
    rows, columns = np.mgrid[:size, :size] + 0.5
    across = (rows - through[1] - slope * (columns - through[0]) - 0.35 * width) / width
    cover = np.clip((0.5 - np.abs(across)) * width, 0, 1)[..., None]
    bark = np.array([104, 82, 62]) + rng.normal(0, 12, 3)
    shaded = bark * (1.15 - 0.9 * (across + 0.5))[..., None] + 10 * pink_noise(size, rng, 0.7)[..., None]
    ground[...] = ground * (1 - cover) + shaded * cover


def light(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the canvas under a random brightness, colour temperature and gradient of light."""
    size = len(canvas)
    warmth = rng.normal(0, 0.045)
    gains = rng.uniform(0.72, 1.12) * np.array([1 + warmth, 1.0, 1 - warmth])
    turn = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    slope = 1 + rng.uniform(0, 0.3) * (columns * np.cos(turn) + rows * np.sin(turn))
    return canvas * gains * slope[..., None]


def _leaf(size: int, rng: np.random.Generator, centre: np.ndarray, length: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the colour (3,) of a random leaf and its coverage (size, size) in [0, 1]."""
    along = np.linspace(0, np.pi, 14)
    half = np.stack([-np.cos(along), 0.34 * np.sin(along)], axis=1)
    outline = np.concatenate([half, half[::-1] * (1, -1)]) * length * size
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    canvas = Image.new("L", (2 * size, 2 * size))
    ImageDraw.Draw(canvas).polygon([tuple(2 * p) for p in outline @ rotation + centre], fill=255)
    colour = np.array([84, 124, 56]) + rng.normal(0, 22, 3)
    return colour, np.asarray(canvas.reduce(2)) / 255.0


def _rgba(colour: np.ndarray, alpha: int) -> tuple[int, int, int, int]:
    red, green, blue = (int(np.clip(value, 0, 255)) for value in colour)
    return red, green, blue, alpha
