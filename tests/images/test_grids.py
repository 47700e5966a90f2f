"""Turned and bent views beside the plain way to make them: maps in NumPy, OpenCV's remap and Pillow's resize."""

import cv2
import numpy as np
import pytest
from PIL import Image

from cnnsens_bench.images import Decoded, views, warp
from cnnsens_bench.images.grids import WEIGHT_BITS, pillow_weights
from cnnsens_bench.images.published import INTERPOLATIONS, PublishedView
from cnnsens_bench.images.views import OVERSAMPLING, Box


def photograph(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def plainly(image: Decoded, window: Box, size: int, angle: float, bend: float, interpolation: str) -> np.ndarray:
    """Return what `warp` gives, where the image is not reduced."""
    x, y, w, h = window
    wide, high = views._point_counts(w, h, size)
    (margin_x, positions_x), (margin_y, positions_y) = views._positions(wide, size), views._positions(high, size)
    across, down = np.meshgrid(positions_x * w, positions_y * h)
    scale = 1 / (1 + bend * np.minimum(4 * (across**2 + down**2) / (w**2 + h**2), 1))
    across, down = across * scale, down * scale
    turn = np.deg2rad(angle)
    columns = x + w / 2 + np.cos(turn) * across - np.sin(turn) * down
    rows = y + h / 2 + np.sin(turn) * across + np.cos(turn) * down
    x0, x1 = int(np.floor(columns.min())) - 3, int(np.ceil(columns.max())) + 3
    y0, y1 = int(np.floor(rows.min())) - 3, int(np.ceil(rows.max())) + 3
    part = image.pixels[
        np.arange(y0, y1).clip(0, image.height - 1)[:, None], np.arange(x0, x1).clip(0, image.width - 1)
    ]
    maps = ((columns - x0 - 0.5).astype(np.float32), (rows - y0 - 0.5).astype(np.float32))
    sampled = cv2.remap(part, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    inner = (margin_x, margin_y, margin_x + wide, margin_y + high)
    return np.asarray(Image.fromarray(sampled).resize((size, size), INTERPOLATIONS[interpolation], box=inner))


@pytest.mark.parametrize("window", [(20.0, 10.0, 90.0, 70.0), (30.5, 2.25, 41.0, 130.5), (3.0, 50.0, 180.0, 40.0)])
@pytest.mark.parametrize(("angle", "bend"), [(0.0, 0.3), (0.0, -0.5), (33.0, 0.0), (90.0, 0.0), (-140.0, -0.2)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_views_have_the_bits_of_the_plain_way(window: Box, angle: float, bend: float, interpolation: str) -> None:
    image = Decoded(photograph(150, 210), 0, 0, 210, 150, window)
    view = PublishedView(size=64, interpolation=interpolation)
    result = warp(image, window, 64, angle, bend, view)
    assert min(window[2:]) < OVERSAMPLING * 64  # otherwise the image would be reduced
    np.testing.assert_array_equal(result, plainly(image, window, 64, angle, bend, interpolation))


@pytest.mark.parametrize("interpolation", sorted(set(INTERPOLATIONS) - {"nearest"}))
@pytest.mark.parametrize(("count", "margin", "size"), [(460, 6, 224), (301, 10, 64), (70, 3, 64), (50, 2, 97)])
def test_weights_are_pillows(interpolation: str, count: int, margin: int, size: int) -> None:
    line = photograph(1, count)
    box = (margin, 0, count - margin, 1)
    expected = np.asarray(Image.fromarray(line).resize((size, 1), INTERPOLATIONS[interpolation], box=box))[0]
    first, weights = pillow_weights(count, margin, size, interpolation)
    taken = line[0, first[:, None] + np.arange(weights.shape[1])].astype(np.int64)
    sums = (taken * weights[..., None]).sum(1) + (1 << (WEIGHT_BITS - 1)) >> WEIGHT_BITS
    np.testing.assert_array_equal(sums.clip(0, 255), expected)


def test_a_rectangle_beyond_the_image_repeats_its_edges() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        height, width = (int(side) for side in rng.integers(1, 20, 2))
        image = Decoded(photograph(height, width), 0, 0, width, height, (0.0, 0.0, 1.0, 1.0))
        x0, y0 = (int(start) for start in rng.integers(-30, 30, 2))
        x1, y1 = x0 + int(rng.integers(1, 40)), y0 + int(rng.integers(1, 40))
        rows, columns = np.arange(y0, y1).clip(0, height - 1), np.arange(x0, x1).clip(0, width - 1)
        part = views._with_repeated_edges(image, x0, y0, x1, y1)
        np.testing.assert_array_equal(part, image.pixels[rows[:, None], columns])
