"""Random numbers that depend only on what they are for, never on batch, worker, order or device.

A stream is Philox4x64-10 (Salmon et al. 2011), keyed by a hash of (seed, dataset, image id, degradation, trial). Its
bits are NumPy's, by compiled loops on a CPU (`kernels/philox.py`) and by the same integer arithmetic in torch on other
devices. Bits become numbers only by table look-up, shift and multiplication by a power of two, which are exact in IEEE
arithmetic; a logarithm or cosine would differ in the last bit between vector widths, libraries and devices.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.utils.cpu_libraries import INSTALLED
from cnnsens_bench.utils.transfer import constant, upload

if INSTALLED:
    from cnnsens_bench.degradations.kernels import philox

NORMAL_BINS = 1 << 16


@functools.cache
def normal_table() -> np.ndarray:
    """Return the mean of the standard normal in each of 65,536 equally probable bins, float32, scaled to variance 1.

    Mean and variance are exactly 0 and 1, and the distribution function is nowhere further than 1/131072 from the
    normal's.
    """
    edges = torch.special.ndtri(torch.arange(NORMAL_BINS + 1, dtype=torch.float64) / NORMAL_BINS).numpy()
    density = np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi)
    means = -np.diff(density) * NORMAL_BINS
    means = (means - means[::-1]) / 2
    table = (means / np.sqrt(np.mean(means**2))).astype(np.float32)
    table.setflags(write=False)
    return table


NORMAL_MAX = 4.4
"""The largest magnitude of a normal draw, which bounds how far a shift can reach (see `Degradation.reach`)."""


@dataclasses.dataclass(eq=False)
class Streams:
    """One random stream per image of a batch, for one trial.

    `of(degradation)` keys the streams to a degradation. Each call of `normal`, `uniform` or `integers` then takes fresh
    numbers, in the order of the calls, one row per image.

    Parameters
    ----------
    seed, dataset, image_ids, trial
        What the numbers depend on, together with the degradation.
    device
        Where the numbers are made; their bits are the same everywhere.
    degradation
        The name that the streams are keyed to.

    Examples
    --------
    >>> first = Streams(0, "birds", ["a", "b"], trial=0).of("pepper").uniform(2)
    >>> alone = Streams(0, "birds", ["b"], trial=0).of("pepper").uniform(2)
    >>> bool((first[1] == alone[0]).all())
    True
    """

    seed: int
    dataset: str
    image_ids: Sequence[str]
    trial: int
    device: torch.device | str = "cpu"
    degradation: str = ""

    def __post_init__(self) -> None:
        self.on_host = INSTALLED and torch.device(self.device).type == "cpu"
        self._calls = itertools.count(1)

    def of(self, degradation: str) -> "Streams":
        """Return these streams keyed to a degradation, at their beginning."""
        return dataclasses.replace(self, degradation=degradation)

    def on(self, device: torch.device | str) -> "Streams":
        """Return these streams, at their beginning, for numbers on another device."""
        return dataclasses.replace(self, device=device)

    @functools.cached_property
    def keys(self) -> np.ndarray:
        """The Philox keys of the images: (N, 2) uint64."""
        texts = [json.dumps([self.seed, self.dataset, name, self.degradation, self.trial]) for name in self.image_ids]
        digests = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
        return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)

    def normal(self, *shape: int) -> Tensor:
        """Draw from N(0, 1): (N, *shape) float32, at most `NORMAL_MAX` in magnitude."""
        count = int(np.prod(shape))
        if self.on_host:
            out = np.empty((len(self.image_ids), count), np.float32)
            philox.table_rows(self.keys, next(self._calls), normal_table(), out)
            return torch.from_numpy(out).view(-1, *shape)
        bits = self._uint64s_on_device(-(-count // 4))
        bins = torch.stack([(bits >> shift) & 0xFFFF for shift in (0, 16, 32, 48)], dim=-1)
        bins = bins.flatten(1)[:, :count]
        return constant(normal_table(), torch.device(self.device))[bins].view(-1, *shape)

    def uniform(self, *shape: int) -> Tensor:
        """Draw uniformly from the multiples of 2⁻²⁴ in [0, 1): (N, *shape) float32."""
        count = int(np.prod(shape))
        if self.on_host:
            out = np.empty((len(self.image_ids), count), np.float32)
            philox.uniform_rows(self.keys, next(self._calls), out)
            return torch.from_numpy(out).view(-1, *shape)
        bits = self._uint64s_on_device(-(-count // 2))
        halves = torch.stack([(bits >> 8) & 0xFFFFFF, (bits >> 40) & 0xFFFFFF], dim=-1)
        return (halves.flatten(1)[:, :count].float() * 2**-24).view(-1, *shape)

    def integers(self) -> list[int]:
        """Draw one 63-bit integer per image, as a seed for the generator of another library."""
        counter = [0, next(self._calls), 0, 0]  # the number of the call is the second word
        return [int(np.random.Philox(key=key, counter=counter).random_raw()) >> 1 for key in self.keys]

    def _uint64s_on_device(self, count: int) -> Tensor:
        keys = upload(self.keys.astype(np.int64, casting="unsafe"), self.device)
        return philox_uint64s(keys, next(self._calls), count)


def philox_uint64s(keys: Tensor, call: int, count: int) -> Tensor:
    """Compute what NumPy's Philox gives for `counter=[0, call, 0, 0]`, in torch integers on the device of the keys.

    Parameters
    ----------
    keys
        (N, 2) int64, the bits of the uint64 keys.
    call
        The number of the call, from 1.
    count
        How many numbers each stream gives.

    Returns
    -------
    Tensor
        (N, count) int64, the bits of the uint64 numbers.
    """
    blocks = -(-count // 4)
    # NumPy raises the counter before it generates, so the first block has counter 1.
    c0 = torch.arange(1, blocks + 1, device=keys.device).expand(len(keys), blocks)
    c1, c2, c3 = (torch.full_like(c0, value) for value in (call, 0, 0))
    k0, k1 = keys[:, :1], keys[:, 1:]
    for _ in range(10):
        high0, low0 = _multiply(c0, 0xD2E7470EE14C6C93)
        high1, low1 = _multiply(c2, 0xCA5A826395121157)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + _signed(0x9E3779B97F4A7C15), k1 + _signed(0xBB67AE8584CAA73B)
    return torch.stack([c0, c1, c2, c3], dim=-1).flatten(1)[:, :count]


def _signed(value: int) -> int:
    """Return the int64 with the bits of a uint64."""
    return value - (1 << 64) if value >> 63 else value


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """Return the high and low 64 bits of the unsigned product, from 32-bit halves (torch cannot multiply wider)."""
    mask = 0xFFFFFFFF
    a_low, a_high = a & mask, (a >> 32) & mask
    b_low, b_high = b & mask, b >> 32
    low, middle1, middle2 = a_low * b_low, a_low * b_high, a_high * b_low
    carry = ((low >> 32) & mask) + (middle1 & mask) + (middle2 & mask)
    high = a_high * b_high + ((middle1 >> 32) & mask) + ((middle2 >> 32) & mask) + (carry >> 32)
    return high, a * _signed(b)
