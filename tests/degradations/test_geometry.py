"""Moved, turned and bent views show the right part of the image, and repeat edges only outside the frame."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from cnnsens_bench import images
from cnnsens_bench.degradations import Streams, degradations, parse_degradation
from cnnsens_bench.engine.dry_run import probe
from cnnsens_bench.engine.sweep import Condition
from cnnsens_bench.images import Decoded, render
from cnnsens_bench.utils.errors import UserError

SIDE, SIZE = 900, 224
BOX = (250.0, 200.0, 400.0, 480.0)
DOT = 4.0


def decoded(pixels: np.ndarray, box: images.Box = BOX) -> Decoded:
    return Decoded(pixels, 0, 0, pixels.shape[1], pixels.shape[0], box)


def dots(points: np.ndarray) -> Decoded:
    """Return a dark full image with a soft bright dot at each (x, y)."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    total = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * DOT**2)) for px, py in points)
    return decoded(np.repeat((20 + 200 * np.clip(total, 0, 1)).round().astype(np.uint8)[..., None], 3, 2))


def centre_of(view: np.ndarray, near: np.ndarray, reach: int = 9) -> np.ndarray:
    """Return the (x, y) of the dot next to `near`: the centre of gravity of pixels brighter than the background."""
    left, top = np.round(near - reach).astype(int)
    window = view[top : top + 2 * reach, left : left + 2 * reach, 0].astype(float)
    weights = np.clip(window - 26, 0, None)
    y, x = ndimage.center_of_mass(weights)
    return np.array([left + x + 0.5, top + y + 0.5])


def on_input(points: np.ndarray) -> np.ndarray:
    """Return the positions on the network's input of points (x, y) of the full image."""
    x, y, w, h = BOX
    return (points - [x, y]) * [SIZE / w, SIZE / h]


GRID = np.array([(x, y) for x in (330, 450, 570) for y in (290, 440, 590)], float)
CENTRE = np.array([BOX[0] + BOX[2] / 2, BOX[1] + BOX[3] / 2])


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.37, -0.61), (-12.25, 7.5), (30.0, 25.0)])
def test_translation_lands_where_it_should(shift: tuple[float, float]) -> None:
    view = render(dots(GRID), SIZE, *shift)
    for point in on_input(GRID) - shift:
        if (point > 12).all() and (point < SIZE - 12).all():
            np.testing.assert_allclose(centre_of(view, point), point, atol=0.1)


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Return points turned counter-clockwise about the centre of the box, with y pointing down."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    x, y = (points - CENTRE).T
    return np.stack([c * x + s * y, -s * x + c * y], 1) + CENTRE


@pytest.mark.parametrize("degrees", [-45.0, -10.0, 0.5, 7.0, 30.0, 90.0, 180.0])
def test_rotation_lands_where_it_should(degrees: float) -> None:
    view = render(dots(GRID), SIZE, angle=degrees)
    found = 0
    for point in on_input(turned(GRID, degrees)):
        if (point > 12).all() and (point < SIZE - 12).all():
            np.testing.assert_allclose(centre_of(view, point), point, atol=0.1)
            found += 1
    assert found >= 5


@pytest.mark.parametrize("percent", [2.0, 10.0, 30.0, -10.0])
def test_radial_distortion_lands_where_its_formula_says(percent: float) -> None:
    """A point at the radius r of the picture shows what lies at r / (1 − level · r²), the corner's radius being 1."""
    motion = degradations["radial_distortion"].motion(None, percent)
    view = render(dots(GRID), SIZE, *motion.views(1)[0])
    corner = np.hypot(BOX[2], BOX[3]) / 2
    for point in GRID:
        true = np.linalg.norm(point - CENTRE) / corner
        seen = true
        for _ in range(200):  # r = r₀ · (1 − k r²), by fixed-point iteration
            seen = true * (1 - percent / 100 * seen**2)
        expected = CENTRE + (point - CENTRE) * (seen / true if true else 1)
        position = on_input(expected[None])[0]
        np.testing.assert_allclose(centre_of(view, position), position, atol=0.1)


WIDE = (130.0, 390.0, 640.0, 130.0)
TALL = (420.0, 60.0, 90.0, 760.0)


def source_of(box: images.Box, degrees: float, percent: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the (x, y) of the full image that each pixel of a turned and bent view shows."""
    x, y, w, h = box
    steps = (np.arange(SIZE) + 0.5) / SIZE - 0.5
    across, down = np.meshgrid(steps * w, steps * h)
    scale = 1 / (1 - percent / 100 * 4 * (across**2 + down**2) / (w**2 + h**2))
    across, down = across * scale, down * scale
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return x + w / 2 + c * across - s * down, y + h / 2 + s * across + c * down


@pytest.mark.parametrize("box", [BOX, WIDE, TALL])
@pytest.mark.parametrize(("degrees", "percent"), [(13.0, 0.0), (45.0, 0.0), (-45.0, 0.0), (90.0, 0.0), (0.0, 10.0)])
def test_views_show_the_right_pixels_also_in_the_corners_of_the_box(
    box: images.Box, degrees: float, percent: float
) -> None:
    """scipy's splines move a smooth picture exactly, from the full image."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    wave = 127 + 60 * np.sin(x / 31) * np.cos(y / 23) + 50 * np.sin((x + y) / 57)
    picture = decoded(np.repeat(wave.round().astype(np.uint8)[..., None], 3, 2), box)
    view = render(picture, SIZE, angle=degrees, bend=-percent / 100)[..., 0].astype(float)
    columns, rows = source_of(box, degrees, percent)
    expected = ndimage.map_coordinates(wave, [rows - 0.5, columns - 0.5], order=3)
    assert np.abs(view - expected).max() < 2.5
    assert np.abs(view - expected).mean() < 0.5
    slopes = np.stack([slope.ravel() for slope in np.gradient(expected)], 1)
    shift = np.linalg.lstsq(slopes, (view - expected).ravel(), rcond=None)[0]
    assert np.abs(shift).max() < 0.1


def grating(side: int, period: float, degrees: float) -> np.ndarray:
    """Return stripes with a period in pixels; at 0 degrees they are upright."""
    x = np.arange(side) + 0.5 - side / 2
    turn = np.deg2rad(degrees)
    stripes = 128 + 100 * np.cos(2 * np.pi / period * (np.cos(turn) * x + np.sin(turn) * x[:, None]))
    return np.repeat(stripes.round().astype(np.uint8)[..., None], 3, 2)


def contrast_of(pixels: np.ndarray, width: int, height: int, degrees: float = 0.0) -> float:
    """Return the contrast of the middle of an image, in a view turned by `degrees`."""
    side = len(pixels)
    box = ((side - width) / 2, (side - height) / 2, float(width), float(height))
    return float(render(decoded(pixels, box), SIZE // 2, angle=degrees)[..., 0].std())


@pytest.mark.parametrize(("width", "height"), [(960, 540), (540, 960), (540, 540), (800, 200)])
@pytest.mark.parametrize(("period", "stripes"), [(5.2, 0.0), (4.1, 0.0), (5.2, 90.0), (5.2, 45.0)])
def test_turned_views_show_no_stripes_that_are_too_fine_for_them(
    width: int, height: int, period: float, stripes: float
) -> None:
    """A turned photograph in an upright view looks alike: stripes too fine for the view are gray, without moiré."""
    given = grating(1024, period, stripes)
    for degrees in (1e-6, 5.0, 45.0, 80.0):
        upright = contrast_of(grating(1024, period, stripes - degrees), width, height)
        assert contrast_of(given, width, height, degrees) < upright + 3


def test_the_longer_side_of_a_turned_box_is_decoded_too(tmp_path: object) -> None:
    from pathlib import Path

    from PIL import Image

    path = Path(str(tmp_path)) / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
    for box in ((20.0, 430.0, 850.0, 40.0), (430.0, 20.0, 30.0, 850.0), (60.0, 300.0, 800.0, 200.0)):
        for size in (16, SIZE):
            kept, whole = images.decode(str(path), box, 0.0, 1.0), images.decode(str(path), box)
            for degrees in (0.5, 45.0, 90.0, 100.0, 180.0):
                assert np.array_equal(render(kept, size, angle=degrees), render(whole, size, angle=degrees))


def test_outside_the_full_image_its_edges_repeat() -> None:
    pixels = np.full((60, 60, 3), 100, np.uint8)
    pixels[:, :5] = 200
    whole = decoded(pixels, (0, 0, 60, 60))
    for view in (render(whole, 64, angle=45), render(whole, 64, -30)):
        # Only the two colours are seen, and the overshoot of a bicubic filter at an edge.
        assert view.min() >= 88
        assert view.max() <= 212


def test_no_motion_is_the_undegraded_view() -> None:
    picture = dots(GRID)
    still = render(picture, SIZE)
    for name in ("translation", "rotation", "radial_distortion"):
        d = degradations[name]
        draw = d.draw(Streams(0, "data", ["a"], 0), SIZE)
        assert np.array_equal(render(picture, SIZE, *d.motion(draw, 0.0).views(1)[0]), still)


@pytest.mark.parametrize("name", [n for n in degradations if degradations[n].geometric])
def test_views_stay_within_what_is_decoded(name: str, tmp_path: object) -> None:
    """The part of an image that `decode` keeps is enough for every view, at every level."""
    from pathlib import Path

    from PIL import Image

    path = Path(str(tmp_path)) / "a.png"
    Image.fromarray(dots(GRID).pixels).save(path)
    d = degradations[name]
    for level in (*d.levels, d.low if d.low > -1e9 else 0.0):
        reach = d.reach(level)
        kept = images.decode(str(path), BOX, reach.shift / SIZE, reach.radius)
        whole = images.decode(str(path), BOX)
        for trial in range(6):
            draw = d.draw(Streams(0, "data", ["a"], trial), SIZE)
            view = d.motion(draw, level).views(1)[0]
            assert np.array_equal(render(kept, SIZE, *view), render(whole, SIZE, *view))


def test_rotation_levels_scale_one_draw() -> None:
    d = degradations["rotation"]
    draw = d.draw(Streams(0, "data", [str(i) for i in range(50)], 0), SIZE)
    half, whole = (torch.as_tensor(d.motion(draw, level).angle) for level in (45.0, 90.0))
    torch.testing.assert_close(whole, 2 * half)


def test_a_chain_of_motions_is_one_view() -> None:
    both = parse_degradation("translation(4) + rotation(20)")
    draw = both.draw(Streams(0, "data", ["a", "b"], 3), SIZE)
    together = both.motion(draw, 0.0).views(2)
    moved = degradations["translation"].motion(draw[0], 4.0).views(2)
    turned_ = degradations["rotation"].motion(draw[1], 20.0).views(2)
    for one, shift, turn in zip(together, moved, turned_, strict=True):
        assert one == pytest.approx((shift[0], shift[1], turn[2], 0.0))


@pytest.mark.parametrize(
    "text",
    [
        "radial_distortion(25) + radial_distortion(25)",
        "radial_distortion(50) + rotation(9)",
        "radial_distortion(50) + radial_distortion(-20) + translation(3)",
    ],
)
def test_a_chain_of_lenses_stays_within_what_is_decoded(text: str, tmp_path: object) -> None:
    from pathlib import Path

    from PIL import Image

    path = Path(str(tmp_path)) / "a.png"
    Image.fromarray(dots(GRID).pixels).save(path)
    both = parse_degradation(text)
    box = (400.0, 440.0, 100.0, 20.0)
    reach = both.reach(0.0)
    kept = images.decode(str(path), box, reach.shift / SIZE, reach.radius)
    assert kept.pixels.size < SIDE * SIDE * 3
    view = both.motion(both.draw(Streams(0, "data", ["a"], 0), SIZE), 0.0).views(1)[0]
    assert np.array_equal(render(kept, SIZE, *view), render(images.decode(str(path), box), SIZE, *view))


def test_lenses_that_bend_too_much_together_are_refused() -> None:
    good, bad = (parse_degradation(f"radial_distortion(30) + radial_distortion({level})") for level in (20, 30))
    assert good.motion((None, None), 0.0).views(1)[0][3] == pytest.approx(-0.5)
    with pytest.raises(UserError, match="it bends by 60 % in all: 50 % is the most"):
        probe([Condition(bad.name, (0.0,), 1)], [32])
    probe([Condition(good.name, (0.0,), 1)], [32])


def test_translation_levels_scale_one_draw() -> None:
    d = degradations["translation"]
    draw = d.draw(Streams(0, "data", [str(i) for i in range(50)], 0), SIZE)
    half, whole = (d.motion(draw, level) for level in (4.0, 8.0))
    torch.testing.assert_close(whole.dx, 2 * torch.as_tensor(half.dx))
    torch.testing.assert_close(whole.dy, 2 * torch.as_tensor(half.dy))
