"""The birds of `plumage`: the species, their anatomy, and the drawing of one bird.

A bird has its shape in a unit frame, in which it faces right: x points right, y points down, the body is about one unit
long and has its centre at 0. A pose maps this frame to pixels. Shapes are filled at three times the resolution and
averaged, so that all edges are anti-aliased.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLING = 3
Colour = tuple[int, int, int]
Points = np.ndarray
"""The x and y of K points, (K, 2) float."""


@dataclass(frozen=True)
class Species:
    """A species of birds. The two species of a pair differ in their field mark alone.

    Attributes
    ----------
    name : str
        The name of the class.
    pair : int
        The number of the pair, from 0.
    field_mark : str
        What tells this species from the other one of its pair, in words.
    mark : str
        The kind of the field mark: `breast` (its colour), `bar` (on the wing), `streaks` (on the breast) or `crest`.
    marked : bool
        Whether this species has the mark.
    back, breast, belly, beak : tuple of int
        RGB colours in [0, 255].
    stout, tail, bill : float
        Factors of the width of the body and of the lengths of tail and bill.
    """

    name: str
    pair: int
    field_mark: str
    mark: str
    marked: bool
    back: Colour
    breast: Colour
    belly: Colour
    beak: Colour
    stout: float
    tail: float
    bill: float


def _pair(number: int, names: tuple[str, str], marks: tuple[str, str], mark: str, **look: object) -> list[Species]:
    """Return the two species of a pair, of which the first has the mark."""
    breasts = look.pop("breasts", (look.get("breast"),) * 2)
    both = zip(names, marks, (True, False), breasts, strict=True)  # type: ignore[call-overload]
    return [Species(name, number, text, mark, marked, **{**look, "breast": b}) for name, text, marked, b in both]


SPECIES: tuple[Species, ...] = (
    *_pair(
        0, ("ember_finch", "saffron_finch"), ("breast red", "breast yellow"), "breast",
        back=(112, 84, 66), breasts=((196, 58, 34), (226, 178, 44)), belly=(214, 196, 168), beak=(92, 84, 80),
        stout=1.1, tail=0.9, bill=0.75,
    ),
    *_pair(
        1, ("barred_willowet", "plain_willowet"), ("broad white wing bar", "wing plain olive"), "bar",
        back=(96, 118, 58), breast=(172, 178, 104), belly=(214, 212, 160), beak=(70, 60, 50),
        stout=0.92, tail=1.0, bill=0.9,
    ),
    *_pair(
        2, ("streaked_moorlark", "pale_moorlark"), ("dark streaks on the breast", "breast plain buff"), "streaks",
        back=(122, 92, 60), breast=(228, 206, 168), belly=(238, 226, 204), beak=(110, 86, 60),
        stout=1.05, tail=0.8, bill=1.2,
    ),
    *_pair(
        3, ("crested_bluecap", "smooth_bluecap"), ("tall crest", "round head"), "crest",
        back=(70, 96, 138), breast=(178, 192, 206), belly=(228, 230, 228), beak=(52, 52, 58),
        stout=1.0, tail=1.25, bill=0.8,
    ),
)  # fmt: skip
"""The eight species in the order of their labels."""


@dataclass(frozen=True)
class BirdImage:
    """A bird on an otherwise transparent canvas of H × W pixels.

    Attributes
    ----------
    colour : numpy.ndarray
        RGB in [0, 255], (H, W, 3) float.
    alpha : numpy.ndarray
        The coverage by the bird in [0, 1], (H, W) float.
    feet : numpy.ndarray
        The x and y of both feet in pixels, (2, 2) float.
    """

    colour: np.ndarray
    alpha: np.ndarray
    feet: Points


def draw_bird(species: Species, size: int, rng: np.random.Generator, texture: np.ndarray) -> BirdImage:
    """Draw a bird in a random pose.

    Parameters
    ----------
    species
        The species of the bird.
    size
        The side of the canvas in pixels.
    rng
        The source of all that is random. With the same state, both species of a pair have the same pose and light.
    texture
        Noise of standard deviation 1, which becomes the feathers; (size, size) float.
    """
    pose = _Pose(size, rng)
    jitter = rng.normal(0, 9, (4, 3)) + rng.normal(0, 7, (4, 1))
    stout = species.stout * rng.uniform(0.93, 1.08)
    mark_rng = np.random.default_rng(rng.integers(2**63))
    colours = np.array([species.back, species.breast, species.belly, species.beak], float) + jitter
    back, breast, belly, beak = np.clip(colours, 0, 255)
    canvas = _Canvas(size)
    legs = _draw_legs(canvas, pose, beak, stout)
    _draw_tail(canvas, pose, species, back)
    if species.mark == "crest" and species.marked:
        _draw_crest(canvas, pose, back)
    outline = canvas.mask(pose.body(_spline(_BODY * (1, stout))), pose.head(_circle(_HEAD, 0.155)))
    # The colour goes over from the back's to the belly's with the depth of a pixel under the line of the back.
    across, depth = pose.local(size)
    shade = np.clip((depth / stout + 0.1 + 0.35 * across) / 0.3, 0, 1)[..., None]
    front = np.clip((across - 0.02) / 0.18, 0, 1)[..., None]
    under = belly * (1 - front) + breast * front
    canvas.blend(outline, back * (1 - shade) + under * shade)
    if species.mark == "streaks" and species.marked:
        _draw_streaks(canvas, pose, outline, stout, mark_rng)
    canvas.blend(canvas.mask(pose.head(_spline(_CAP))) * outline, back * 0.9)
    _draw_wing(canvas, pose, species, back, stout)
    _draw_face(canvas, pose, species, beak)
    # The body is lit from above and darker towards the rim of the belly. Feathers are a fine texture.
    roundness = 1.08 - 0.32 * np.clip(depth / stout / 0.26, -0.5, 1) ** 2 - 0.1 * (depth > 0.1)
    canvas.colour *= (roundness * (1 + 0.045 * texture))[..., None]
    return BirdImage(np.clip(canvas.colour, 0, 255), canvas.alpha, np.stack([leg[-1] for leg in legs]))


_BODY = np.array(
    [[0.18, -0.32], [0.02, -0.24], [-0.2, -0.12], [-0.42, 0.04], [-0.44, 0.12], [-0.24, 0.21], [0.0, 0.25],
     [0.22, 0.15], [0.36, -0.04], [0.41, -0.18], [0.3, -0.3]]
)  # fmt: skip
_TAIL = np.array([[-0.34, 0.02], [-0.82, 0.11], [-0.84, 0.21], [-0.36, 0.15]])
_WING = np.array(
    [[0.17, -0.1], [0.02, -0.17], [-0.22, -0.09], [-0.5, 0.06], [-0.6, 0.15], [-0.32, 0.14], [-0.06, 0.13],
     [0.13, 0.05]]
)  # fmt: skip
_CAP = np.array([[0.11, -0.24], [0.2, -0.42], [0.36, -0.38], [0.43, -0.27], [0.27, -0.27]])
_HEAD = np.array([0.27, -0.25])
"""Outlines in the unit frame, and the centre of the head."""


def _draw_legs(canvas: "_Canvas", pose: "_Pose", beak: np.ndarray, stout: float) -> list[Points]:
    """Draw both legs, and return their points in pixels, the feet last."""
    legs = [pose.body(np.array([[x, 0.2 * stout], [x + 0.03, 0.3 * stout], [x + 0.01, 0.4]])) for x in (-0.06, 0.06)]
    for leg in legs:
        canvas.line(leg, 0.022 * pose.scale, beak * 0.8 + 30)
    return legs


def _draw_tail(canvas: "_Canvas", pose: "_Pose", species: Species, back: np.ndarray) -> None:
    canvas.paint(pose.tail(_TAIL * (species.tail, 1)), back * 0.72)
    quill = np.array([[-0.42, 0.09], [-0.42 - 0.4 * species.tail, 0.19]])
    canvas.line(pose.tail(quill), 0.01 * pose.scale, back * 0.5)


def _draw_crest(canvas: "_Canvas", pose: "_Pose", back: np.ndarray) -> None:
    for shift in (0.0, 0.05, 0.1):
        crest = np.array([[0.14 + shift, -0.34], [0.02 + shift * 1.3, -0.62 + shift * 0.6], [0.25 + shift, -0.39]])
        canvas.paint(pose.head(_spline(crest, 6)), back * (0.85 - shift))


def _draw_streaks(
    canvas: "_Canvas", pose: "_Pose", outline: np.ndarray, stout: float, rng: np.random.Generator
) -> None:
    """Draw dark streaks on the breast."""
    lines = []
    for _ in range(26):
        x, y = rng.uniform(-0.12, 0.36), rng.uniform(-0.12, 0.22)
        lines.append(pose.body(np.array([[x, y], [x - 0.03, y + 0.065]]) * (1, stout)))
    canvas.blend(canvas.strokes(lines, 0.026 * pose.scale) * outline, np.array([58, 38, 26]))


def _draw_wing(canvas: "_Canvas", pose: "_Pose", species: Species, back: np.ndarray, stout: float) -> None:
    """Draw the wing with its feathers, and with a white bar where that is the field mark."""
    wing = canvas.mask(pose.body(_spline(_WING * (1, stout))))
    canvas.blend(wing, back * 0.74)
    for i in range(5):
        start = np.array([0.02 - 0.1 * i, -0.09 + 0.03 * i])
        feather = (start + np.array([[0, 0], [-0.16, 0.1], [-0.34, 0.17 - 0.012 * i]])) * (1, stout)
        canvas.blend(canvas.strokes([pose.body(_spline_open(feather))], 0.012 * pose.scale) * wing, back * 0.48)
    if species.mark == "bar" and species.marked:
        bar = np.array([[0.07, -0.16], [-0.03, -0.18], [-0.13, 0.16], [-0.02, 0.16]]) * (1, stout)
        canvas.blend(canvas.mask(pose.body(bar)) * wing, np.array([244, 242, 232]))


def _draw_face(canvas: "_Canvas", pose: "_Pose", species: Species, beak: np.ndarray) -> None:
    """Draw the bill and the eye."""
    tip = 0.42 + 0.13 * species.bill
    canvas.paint(pose.head(np.array([[0.4, -0.29], [tip, -0.235], [0.4, -0.2]])), beak)
    canvas.line(pose.head(np.array([[0.4, -0.245], [tip, -0.235]])), 0.008 * pose.scale, beak * 0.5)
    canvas.paint(pose.head(_circle(np.array([0.325, -0.275]), 0.034)), np.array([24, 18, 16]))
    canvas.paint(pose.head(_circle(np.array([0.334, -0.287]), 0.011)), np.array([250, 250, 250]))


class _Pose:
    """A random pose of a bird, which maps points of the unit frame to pixels. Head and tail turn about their joints."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.scale = size * rng.uniform(0.40, 0.56)
        self.mirror = rng.choice([-1.0, 1.0])
        self.angle = np.deg2rad(rng.uniform(-20, 14))
        self.head_angle = np.deg2rad(rng.uniform(-16, 20))
        self.tail_angle = np.deg2rad(rng.uniform(-14, 22))
        margin = 0.62 * self.scale
        x, y = rng.uniform(margin, size - margin), rng.uniform(margin + 0.02 * size, size - 0.46 * self.scale)
        self.centre = np.array([x, y])

    def body(self, points: Points) -> Points:
        turned = _rotated(points, self.angle, np.zeros(2))
        return turned * (self.mirror * self.scale, self.scale) + self.centre

    def head(self, points: Points) -> Points:
        return self.body(_rotated(points, self.head_angle, np.array([0.2, -0.16])))

    def tail(self, points: Points) -> Points:
        return self.body(_rotated(points, self.tail_angle, np.array([-0.36, 0.08])))

    def local(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the x and y of every pixel in the unit frame of the body, (size, size) each."""
        rows, columns = np.mgrid[:size, :size] + 0.5
        x, y = (columns - self.centre[0]) / self.scale * self.mirror, (rows - self.centre[1]) / self.scale
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        return x * cosine + y * sine, y * cosine - x * sine


class _Canvas:
    """The colour and coverage that shapes are blended into, one over the other."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.colour = np.zeros((size, size, 3))
        self.alpha = np.zeros((size, size))

    def paint(self, polygon: Points, colour: np.ndarray) -> None:
        self.blend(self.mask(polygon), colour)

    def line(self, points: Points, width: float, colour: np.ndarray) -> None:
        self.blend(self.strokes([points], width), colour)

    def blend(self, coverage: np.ndarray, colour: np.ndarray) -> None:
        """Blend a colour, or one colour for each pixel, over what is drawn, in proportion to the coverage in [0, 1]."""
        rows, columns = np.flatnonzero(coverage.any(axis=1)), np.flatnonzero(coverage.any(axis=0))
        if not len(rows):
            return
        window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        cover, below = coverage[window], self.alpha[window]
        total = cover + below * (1 - cover)
        share = (cover / np.maximum(total, 1e-9))[..., None]
        over = colour[window] if colour.ndim == 3 else colour
        self.colour[window] = self.colour[window] * (1 - share) + over * share
        self.alpha[window] = total

    def mask(self, *polygons: Points) -> np.ndarray:
        """Return the coverage of polygons together, (size, size) in [0, 1]."""
        large = Image.new("L", (self.size * SUPERSAMPLING, self.size * SUPERSAMPLING))
        for polygon in polygons:
            ImageDraw.Draw(large).polygon(_flat(polygon), fill=255)
        return np.asarray(large.reduce(SUPERSAMPLING)) / 255.0

    def strokes(self, lines: list[Points], width: float) -> np.ndarray:
        """Return the coverage of lines of a width in pixels, (size, size) in [0, 1]."""
        large = Image.new("L", (self.size * SUPERSAMPLING, self.size * SUPERSAMPLING))
        for line in lines:
            ImageDraw.Draw(large).line(_flat(line), fill=255, width=max(1, round(width * SUPERSAMPLING)))
        return np.asarray(large.reduce(SUPERSAMPLING)) / 255.0


def _flat(points: Points) -> list[tuple[float, float]]:
    return [(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points]


def _rotated(points: Points, angle: float, about: np.ndarray) -> Points:
    cosine, sine = np.cos(angle), np.sin(angle)
    return (points - about) @ np.array([[cosine, sine], [-sine, cosine]]) + about


def _circle(centre: np.ndarray, radius: float) -> Points:
    turns = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    return centre + radius * np.stack([np.cos(turns), np.sin(turns)], axis=1)


def _spline(points: Points, steps: int = 8) -> Points:
    """Return points on the closed Catmull-Rom curve through the given points."""
    before, here, after, later = (np.roll(points, k, axis=0)[:, None] for k in (1, 0, -1, -2))
    return _catmull_rom(before, here, after, later, steps).reshape(-1, 2)


def _spline_open(points: Points, steps: int = 6) -> Points:
    """Return points on the open Catmull-Rom curve through the given points."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])[:, None]
    return _catmull_rom(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], steps).reshape(-1, 2)


def _catmull_rom(p0: np.ndarray, p1: np.ndarray, p2: np.ndarray, p3: np.ndarray, steps: int) -> np.ndarray:
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    return 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
