"""Images that are in memory and not in files: Pillow's images, numpy arrays and tensors."""

from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from cnnsens_bench.images import Decoded, to_rgb
from cnnsens_bench.utils.errors import UserError

FORMS = "an image of Pillow's, an array (H, W, 3) or a tensor (3, H, W)"


class PixelBatch(NamedTuple):
    """The pixels of images, and what is needed to return others in the same form.

    `pixels` is (N, H, W, 3), uint8 or floating-point in [0, 255]. `form` is `pillow`, `array` or `tensor`, `single`
    whether one image was given without a dimension for several, and `like` the object that was given.
    """

    pixels: np.ndarray
    form: str
    single: bool
    like: Any

    def restored(self, pixels: np.ndarray) -> Any:
        """Return pixels (N, H, W, 3) float in [0, 255] in the form, type and shape that was given."""
        whole = not np.issubdtype(self.pixels.dtype, np.floating)
        values = np.rint(pixels).astype(np.uint8) if whole else pixels
        if self.form == "pillow":
            return Image.fromarray(values[0])
        if self.form == "array":
            values = values.astype(self.pixels.dtype)
            return values[0] if self.single else values
        tensor = torch.from_numpy(np.ascontiguousarray(values)).permute(0, 3, 1, 2).contiguous()
        tensor = tensor.to(self.like.device, self.like.dtype)
        return tensor[0] if self.single else tensor


def pixel_batch(image: Any) -> PixelBatch:
    """Return the pixels of one image or of several.

    Parameters
    ----------
    image
        An image of Pillow's of any mode; an array (H, W, 3) or (N, H, W, 3); or a tensor (3, H, W) or (N, 3, H, W);
        uint8, or floating-point in [0, 255].

    Raises
    ------
    UserError
        For anything else.

    Examples
    --------
    >>> pixel_batch(np.zeros((4, 6, 3), np.uint8)).pixels.shape
    (1, 4, 6, 3)
    """
    if isinstance(image, Image.Image):
        return PixelBatch(np.asarray(to_rgb(ImageOps.exif_transpose(image)))[None], "pillow", True, image)
    if isinstance(image, Tensor):
        shown, channel = image.detach().cpu(), -3
        values = (shown.float() if shown.dtype == torch.bfloat16 else shown).numpy()
    elif isinstance(image, np.ndarray):
        values, channel = image, -1
    else:
        raise UserError(f"a {type(image).__name__} is no image: give {FORMS}")
    if values.ndim not in (3, 4) or values.shape[channel] != 3 or not values.size:
        raise UserError(f"an image of the shape {values.shape} is not understood: give {FORMS}, or several in one")
    single = values.ndim == 3
    values = values[None] if single else values
    values = np.moveaxis(values, channel, -1)
    if np.issubdtype(values.dtype, np.floating):
        _check_range(values)
    elif values.dtype != np.uint8:
        raise UserError(f"an image of the type {values.dtype} is not understood: give uint8, or floats in [0, 255]")
    return PixelBatch(values, "tensor" if isinstance(image, Tensor) else "array", single, image)


def _check_range(values: np.ndarray) -> None:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # NaN is in no range
        raise UserError(f"an image of floats has values from {low:g} to {high:g}: give them in [0, 255]")
    if 0 < high <= 1:
        raise UserError(f"an image of floats has no value above {high:g}: give them in [0, 255], not in [0, 1]")


def decoded_in_memory(image: Any) -> Decoded:
    """Return one image in memory as `decode` returns a file, whole.

    Parameters
    ----------
    image
        As in `pixel_batch`, without a dimension for several, and uint8; an array may be gray (H, W).

    Raises
    ------
    UserError
        For anything else.
    """
    if isinstance(image, np.ndarray) and image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    batch = pixel_batch(image)
    if not batch.single:
        raise UserError(f"{len(batch.pixels)} images lie in one array where one is expected: give a list of images")
    if batch.pixels.dtype != np.uint8:
        raise UserError(f"an image of the type {batch.pixels.dtype} is not understood here: give uint8")
    height, width = batch.pixels.shape[1:3]
    pixels = np.ascontiguousarray(batch.pixels[0])
    return Decoded(pixels, 0, 0, width, height, (0.0, 0.0, float(width), float(height)))
