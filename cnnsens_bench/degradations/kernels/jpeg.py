"""What JPEG loses, in integer tensor operations on any device, with the bits of libjpeg-turbo.

These are the steps of its default settings: its integer cosine transforms, colour at half the resolution, and smooth
enlargement of the colour. The lossless part of the format is left out, because it changes no pixel.
"""

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.utils.transfer import constant

BLOCK = 8
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMINANCE = np.full((BLOCK, BLOCK), 99)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
"""The quantization tables of the JPEG standard, annex K, at quality 50."""

COLOUR_BITS = 16
HALF = 1 << (COLOUR_BITS - 1)
DCT_BITS, FIRST_BITS = 13, 2
"""The bits behind the point of the transforms' constants, and of what their first pass gives."""


def _fixed(value: float, bits: int) -> int:
    return int(value * (1 << bits) + 0.5)


C0298, C0390, C0541, C0765, C0899, C1175 = (
    _fixed(value, DCT_BITS) for value in (0.298631336, 0.390180644, 0.541196100, 0.765366865, 0.899976223, 1.175875602)
)
C1501, C1847, C1961, C2053, C2562, C3072 = (
    _fixed(value, DCT_BITS) for value in (1.501321110, 1.847759065, 1.961570560, 2.053119869, 2.562915447, 3.072711026)
)


def coded(pixels: Tensor, quality: int) -> Tensor:
    """Return images as they are after JPEG has stored them.

    Parameters
    ----------
    pixels
        (N, 3, H, W) int32, whole numbers from 0 to 255.
    quality
        From 1 to 100, on the scale of the Independent JPEG Group.

    Returns
    -------
    Tensor
        (N, 3, H, W) int32 in [0, 255].
    """
    height, width = pixels.shape[-2:]
    red, green, blue = pixels.unbind(1)
    centre = (128 << COLOUR_BITS) + HALF - 1
    light = _mixed((red, green, blue), (0.299, 0.587, 0.114), HALF)
    bluish = _mixed((red, green, blue), (-0.16874, -0.33126, 0.5), centre)
    reddish = _mixed((red, green, blue), (0.5, -0.41869, -0.08131), centre)
    colours = torch.stack([bluish, reddish], dim=1)
    light = _quantized(light[:, None], _table(LUMINANCE, quality, pixels.device))[:, 0]
    small = _quantized(_halved(colours), _table(CHROMINANCE, quality, pixels.device))[..., : -(-width // 2)]
    bluish, reddish = (_doubled(small)[..., :height, :width] - 128).unbind(1)
    red = light + ((reddish * _fixed(1.402, COLOUR_BITS) + HALF) >> COLOUR_BITS)
    less = bluish * -_fixed(0.34414, COLOUR_BITS) + HALF - reddish * _fixed(0.71414, COLOUR_BITS)
    blue = light + ((bluish * _fixed(1.772, COLOUR_BITS) + HALF) >> COLOUR_BITS)
    return torch.stack([red, light + (less >> COLOUR_BITS), blue], dim=1).clamp(0, 255)


def _mixed(channels: tuple[Tensor, ...], shares: tuple[float, ...], offset: int) -> Tensor:
    """Return a weighted sum of channels; weights are rounded as libjpeg rounds them, by their magnitude."""
    weights = [_fixed(abs(share), COLOUR_BITS) * (1 if share > 0 else -1) for share in shares]
    total = channels[0] * weights[0] + channels[1] * weights[1] + channels[2] * weights[2]
    return (total + offset) >> COLOUR_BITS


def _table(base: np.ndarray, quality: int, device: torch.device) -> Tensor:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return constant(((base * scale + 50) // 100).clip(1, 255).astype(np.int32), device)


def _padded(planes: Tensor, below: int, right: int) -> Tensor:
    """Repeat the last row and column of planes (N, C, H, W)."""
    rows, columns = (
        constant(np.minimum(np.arange(side + more), side - 1), planes.device)
        for side, more in zip(planes.shape[-2:], (below, right), strict=True)
    )
    return planes[:, :, rows][:, :, :, columns] if below or right else planes


def _halved(planes: Tensor) -> Tensor:
    """Return the means of 2 × 2 pixels; halves are rounded down and up in turn along a row.

    The images are continued to whole blocks first along a row, which changes what the last block stores.
    """
    planes = _padded(planes, planes.shape[-2] % 2, -planes.shape[-1] % (2 * BLOCK))
    total = planes[..., ::2, ::2] + planes[..., ::2, 1::2] + planes[..., 1::2, ::2] + planes[..., 1::2, 1::2]
    bias = constant(np.arange(total.shape[-1], dtype=np.int32) % 2 + 1, planes.device)
    return (total + bias) >> 2


def _doubled(planes: Tensor) -> Tensor:
    """Enlarge planes twice, each pixel weighted 9 : 3 : 3 : 1 with its neighbours."""
    height, width = planes.shape[-2:]
    rows, columns = (constant(np.arange(-1, side + 1).clip(0, side - 1), planes.device) for side in planes.shape[-2:])
    wide = planes[:, :, rows]
    lines = torch.stack([wide[:, :, 1:-1] * 3 + wide[:, :, :-2], wide[:, :, 1:-1] * 3 + wide[:, :, 2:]], dim=3)
    lines = lines.flatten(2, 3)[:, :, :, columns]
    left, right = lines[..., 1:-1] * 3 + lines[..., :-2] + 8, lines[..., 1:-1] * 3 + lines[..., 2:] + 7
    return (torch.stack([left, right], dim=-1) >> 4).view(len(planes), -1, 2 * height, 2 * width)


def _quantized(planes: Tensor, table: Tensor) -> Tensor:
    """Return planes (N, C, H, W) after the cosine transform, the rounding of its coefficients, and the way back."""
    count, channels, height, width = planes.shape
    padded = _padded(planes, -height % BLOCK, -width % BLOCK)
    down, across = padded.shape[-2] // BLOCK, padded.shape[-1] // BLOCK
    blocks = padded.view(count, channels, down, BLOCK, across, BLOCK).transpose(3, 4) - 128
    coefficients = _forward(_forward(blocks, -1, True), -2, False)
    steps = table * 8
    sizes = torch.div(coefficients.abs() + (steps >> 1), steps, rounding_mode="floor") * table
    values = torch.where(coefficients < 0, -sizes, sizes)
    result = _backward(_backward(values, -2, DCT_BITS - FIRST_BITS), -1, DCT_BITS + FIRST_BITS + 3)
    result = (result + 128).clamp(0, 255).transpose(3, 4).reshape(count, channels, *padded.shape[-2:])
    return result[..., :height, :width]


def _rounded(values: Tensor, bits: int) -> Tensor:
    return (values + (1 << (bits - 1))) >> bits


def _odd(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the odd part of both transforms (Loeffler, Ligtenberg and Moschytz 1989)."""
    both = (a + c + b + d) * C1175
    z1, z2 = (a + d) * -C0899, (b + c) * -C2562
    z3, z4 = (a + c) * -C1961 + both, (b + d) * -C0390 + both
    return a * C0298 + z1 + z3, b * C2053 + z2 + z4, c * C3072 + z2 + z3, d * C1501 + z1 + z4


def _forward(values: Tensor, axis: int, first: bool) -> Tensor:
    """Return the cosine transform along an axis of 8, with `FIRST_BITS` bits more after the first pass."""
    d = values.unbind(axis)
    sums, differences = [d[i] + d[7 - i] for i in range(4)], [d[3 - i] - d[4 + i] for i in range(4)]
    outer, outer_difference = sums[0] + sums[3], sums[0] - sums[3]
    inner, inner_difference = sums[1] + sums[2], sums[1] - sums[2]
    bits = DCT_BITS - FIRST_BITS if first else DCT_BITS + FIRST_BITS
    both = (inner_difference + outer_difference) * C0541
    seventh, fifth, third, one = _odd(*differences)
    ends = [outer + inner, outer - inner]
    ends = [end << FIRST_BITS if first else _rounded(end, FIRST_BITS) for end in ends]
    second, sixth = both + outer_difference * C0765, both - inner_difference * C1847
    odd = [_rounded(part, bits) for part in (one, second, third, fifth, sixth, seventh)]
    return torch.stack([ends[0], odd[0], odd[1], odd[2], ends[1], odd[3], odd[4], odd[5]], dim=axis)


def _backward(values: Tensor, axis: int, bits: int) -> Tensor:
    """Return the inverse of the cosine transform along an axis of 8, without so many bits."""
    d = values.unbind(axis)
    both = (d[2] + d[6]) * C0541
    low, high = both - d[6] * C1847, both + d[2] * C0765
    outer, inner = (d[0] + d[4]) << DCT_BITS, (d[0] - d[4]) << DCT_BITS
    even = [outer + high, inner + low, inner - low, outer - high]
    odd = _odd(d[7], d[5], d[3], d[1])[::-1]
    parts = [a + b for a, b in zip(even, odd, strict=True)]
    parts += [a - b for a, b in zip(even[::-1], odd[::-1], strict=True)]
    return torch.stack([_rounded(part, bits) for part in parts], dim=axis)
