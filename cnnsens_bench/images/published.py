"""The view that a network's own library evaluates with: the whole image is resized by a rule, then cropped.

The undegraded view equals the library's transform exactly, because it is made by the functions that torchvision, timm
and transformers call themselves. A moved, turned or bent view is a window of the full image instead; see `views.py`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

Box = tuple[float, float, float, float]

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


@dataclass(frozen=True)
class PublishedView:
    """How a library resizes and crops an image for a network.

    Attributes
    ----------
    size : int
        The side of the square that is cropped from the centre, in pixels.
    resize : str
        What is resized first: the `shorter` side, the `longer` side, or `both` sides, which squashes the image.
    resize_to : int
        What that side, or both, are resized to, in pixels.
    interpolation : str
        One of `INTERPOLATIONS`.
    fill : tuple of int
        The colour around an image that is smaller than the square, in [0, 255].
    tensors : bool
        Whether the library resizes tensors, as transformers does, and not Pillow's images. The two round differently.
    floor : bool
        Whether the corner of the crop is rounded down, as transformers does, and not to the nearest even pixel.

    Examples
    --------
    >>> view = PublishedView(size=224, resize="shorter", resize_to=256, interpolation="bilinear")
    >>> view.resized(width=500, height=400), view.window(width=500, height=400)
    ((320, 256), (75.0, 25.0, 350.0, 350.0))
    """

    size: int
    resize: Literal["shorter", "longer", "both"] = "shorter"
    resize_to: int = 0
    interpolation: str = "bicubic"
    fill: tuple[int, int, int] = (0, 0, 0)
    tensors: bool = False
    floor: bool = False

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height that an image is resized to."""
        to = self.resize_to or self.size
        if self.resize == "both":
            return to, to
        if self.resize == "longer":
            ratio = max(width, height) / to
            return round(width / ratio), round(height / ratio)
        long = int(to * max(width, height) / min(width, height))
        return (to, long) if width <= height else (long, to)

    def window(self, width: int, height: int) -> Box:
        """Return the left, top, width and height of what the view shows, in pixels of the image."""
        wide, high = self.resized(width, height)
        left, top = self.offset(wide), self.offset(high)
        across, down = width / wide, height / high
        return left * across, top * down, self.size * across, self.size * down

    def offset(self, side: int) -> int:
        """Return where the crop begins along a side of the resized image; negative where it is padded."""
        if side < self.size:
            return -((self.size - side) // 2)
        return (side - self.size) // 2 if self.floor else round((side - self.size) / 2.0)

    def refusal(self, width: int, height: int) -> str | None:
        """Return why an image cannot be resized by this rule, None where it can.

        Examples
        --------
        >>> PublishedView(size=224).refusal(width=30_000, height=1)
        'an image of 30000×1 px becomes one of 6720000×224 px when its shorter side is resized to 224 px'
        """
        wide, high = self.resized(width, height)
        if min(wide, high) >= 1 and wide * high <= (Image.MAX_IMAGE_PIXELS or float("inf")):
            return None
        sides = {"shorter": "its shorter side is", "longer": "its longer side is", "both": "both sides are"}
        resized = f"{sides[self.resize]} resized to {self.resize_to or self.size} px"
        return f"an image of {width}×{height} px becomes one of {wide}×{high} px when {resized}"

    @property
    def pads(self) -> bool:
        """Whether the square can reach beyond the image, so that its rest has the colour `fill`."""
        return self.resize == "longer" or (self.resize_to or self.size) < self.size

    def describe(self) -> str:
        """Say in a few words what is done.

        Examples
        --------
        >>> PublishedView(size=224, resize_to=256).describe()
        'shorter side to 256 px, bicubic, then the central 224 px'
        """
        sides = {"shorter": "shorter side", "longer": "longer side", "both": "both sides"}[self.resize]
        to = self.resize_to or self.size
        whole = to == self.size and self.resize == "both"
        return f"{sides} to {to} px, {self.interpolation}" + ("" if whole else f", then the central {self.size} px")


def render_published(pixels: np.ndarray, view: PublishedView) -> np.ndarray:
    """Return the view of a whole image, as the library makes it.

    Parameters
    ----------
    pixels
        The upright image, (h, w, 3) uint8.
    view
        The library's rule.

    Returns
    -------
    numpy.ndarray
        (size, size, 3) uint8.
    """
    height, width = pixels.shape[:2]
    wide, high = view.resized(width, height)
    if view.tensors:
        image = torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))  # a copy, since torch wants to write
        mode = functional.InterpolationMode(view.interpolation)
        resized = functional.resize(image, [high, wide], interpolation=mode, antialias=True)
        cropped = _cropped(resized, view)
        assert isinstance(cropped, torch.Tensor)
        return cropped.permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if picture.size != (wide, high):
        picture = picture.resize((wide, high), INTERPOLATIONS[view.interpolation])
    return np.array(_cropped(picture, view))


def _cropped(image: "torch.Tensor | Image.Image", view: PublishedView) -> "torch.Tensor | Image.Image":
    """Return the central square of an image, after padding it where it is smaller, as timm and torchvision do."""
    height, width = functional.get_size(image)
    short = [max(0, view.size - side) for side in (width, height)]
    if any(short):
        before = [part // 2 for part in short]
        after = [(part + 1) // 2 for part in short]
        image = functional.pad(image, [*before, *after], fill=list(view.fill))
    height, width = functional.get_size(image)
    return functional.crop(image, view.offset(height), view.offset(width), view.size, view.size)
