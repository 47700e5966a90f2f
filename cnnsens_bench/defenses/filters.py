"""Filters of the test image: Gaussian, morphological closing, median.

Closing and median only choose among pixels, so that all implementations give the same bits. OpenCV does it on CPUs,
where it takes 0.2 ms for an image of 224², a fifteenth of torch; torch does it on GPUs and for gradients.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur, pad

from cnnsens_bench.defenses.base import PreFilter, checked_number, checked_size, defense
from cnnsens_bench.utils.cpu_libraries import INSTALLED, cv2


@defense("gaussian_filter")
def gaussian_filter(size: int = 3, sigma: float = 0.5) -> PreFilter:
    """Filter by a Gaussian of `size` × `size` pixels with the standard deviation `sigma` in pixels; borders reflect."""
    checked_size(size)
    checked_number("sigma", sigma, lambda s: 0 < s < float("inf"), "above 0")

    def prefilter(pixels: Tensor) -> Tensor:
        return gaussian_blur(pixels, [size, size], [sigma, sigma]).contiguous(memory_format=torch.channels_last)

    return prefilter


@defense("morphological_closing")
def morphological_closing(size: int = 3) -> PreFilter:
    """Close channel by channel: take the largest value of `size` × `size` pixels, then the smallest of those.

    Pixels outside the image do not count. scipy.ndimage.grey_closing with mode="reflect" (its default) and
    cv2.morphologyEx with its default border give the same.
    """
    square = np.ones((checked_size(size),) * 2, np.uint8)

    def prefilter(pixels: Tensor) -> Tensor:
        if _by_opencv(pixels):
            return _image_by_image(pixels, lambda image: cv2.morphologyEx(image, cv2.MORPH_CLOSE, square))
        return closing_of_batch(pixels, size)

    return prefilter


@defense("median_filter")
def median_filter(size: int = 3) -> PreFilter:
    """Take the median of `size` × `size` pixels, channel by channel.

    Borders are mirrored with their edge pixel, as by scipy.ndimage.median_filter with mode="reflect" (its default); for
    size 3 that is also the border of cv2.medianBlur.
    """
    radius = checked_size(size) // 2

    def blurred(image: np.ndarray) -> np.ndarray:
        wide = cv2.copyMakeBorder(image, radius, radius, radius, radius, cv2.BORDER_REFLECT)
        return cv2.medianBlur(wide, size)[radius:-radius, radius:-radius]

    def prefilter(pixels: Tensor) -> Tensor:
        if size == 1:
            return pixels
        if _by_opencv(pixels) and size <= 5:  # OpenCV's limit for float32 is 5
            return _image_by_image(pixels, blurred)
        return median_of_batch(pixels, size)

    return prefilter


def _by_opencv(pixels: Tensor) -> bool:
    return INSTALLED and pixels.device.type == "cpu" and not pixels.requires_grad


def closing_of_batch(pixels: Tensor, size: int) -> Tensor:
    """Compute `morphological_closing` of a batch in torch, on any device."""
    radius = size // 2
    largest = F.max_pool2d(pixels, size, stride=1, padding=radius)
    return -F.max_pool2d(-largest, size, stride=1, padding=radius)


def median_of_batch(pixels: Tensor, size: int) -> Tensor:
    """Compute `median_filter` of a batch in torch, on any device."""
    wide = pad(pixels, [size // 2] * 4, padding_mode="symmetric")
    if size == 3:
        return _median_of_nine(wide).contiguous(memory_format=torch.channels_last)
    # One image at a time, because the windows of a whole batch may not fit into memory.
    windows = (image.unfold(1, size, 1).unfold(2, size, 1).flatten(-2) for image in wide)
    return torch.stack([w.median(-1).values for w in windows]).contiguous(memory_format=torch.channels_last)


def _median_of_nine(wide: Tensor) -> Tensor:
    """Compute the median of 3 × 3 pixels, (N, C, H + 2, W + 2) → (N, C, H, W).

    Each column of three is sorted once for the three windows that contain it (Smith 1996).
    """
    above, here, below = wide[:, :, :-2], wide[:, :, 1:-1], wide[:, :, 2:]
    low, high = torch.minimum(above, here), torch.maximum(above, here)
    upper, middle = torch.maximum(high, below), torch.minimum(high, below)
    lower, middle = torch.minimum(low, middle), torch.maximum(low, middle)

    def columns(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return values[..., :-2], values[..., 1:-1], values[..., 2:]

    (a, b, c), (d, e, f) = columns(lower), columns(upper)
    largest_low = torch.maximum(torch.maximum(a, b), c)
    smallest_high = torch.minimum(torch.minimum(d, e), f)
    return _median_of_three(largest_low, _median_of_three(*columns(middle)), smallest_high)


def _median_of_three(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))


def _image_by_image(pixels: Tensor, function: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Apply a function to each image as (H, W, 3), which in channels_last memory needs no copy."""
    result = torch.empty_like(pixels, memory_format=torch.channels_last)
    images = pixels.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy()
    for image, target in zip(images, result.permute(0, 2, 3, 1).numpy(), strict=True):
        target[:] = function(image)
    return result
