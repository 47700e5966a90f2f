"""Random numbers that depend only on what they are for, never on batch, worker, order or device.

A stream is Philox4x64-10 (Salmon et al. 2011) keyed by a hash of (seed, dataset, image id, degradation, trial).
On a CPU NumPy generates its bits; on other devices the same integer arithmetic runs in torch. Bits become
numbers only by table look-up, shift and multiplication by a power of two, all exact in IEEE arithmetic: a
logarithm or cosine would differ in the last bit between vector widths, libraries and devices.
"""

import functools
import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

NORMAL_BINS = 1 << 16


@functools.cache
def normal_table() -> np.ndarray:
    """Mean of the standard normal in each of 65,536 equally probable bins, float32, scaled to variance 1.

    Exact mean 0 and variance 1; its distribution function is nowhere further than 1/131072 from the normal's.
    """
    edges = norm.ppf(np.arange(NORMAL_BINS + 1) / NORMAL_BINS)
    means = -np.diff(norm.pdf(edges)) * NORMAL_BINS
    means = (means - means[::-1]) / 2
    table = (means / np.sqrt(np.mean(means**2))).astype(np.float32)
    table.setflags(write=False)
    return table


NORMAL_MAX = 4.4
"""No normal draw is larger in magnitude: what a shift can reach at most (see `Degradation.reach`)."""


class Streams:
    """One random stream per image of a batch, for one trial.

    `of(degradation)` keys the streams to a degradation; then each call of `normal`, `uniform` or `integers`
    takes fresh numbers, in the order of the calls. All methods return one row per image.
    """

    def __init__(
        self,
        seed: int,
        dataset: str,
        image_ids: Sequence[str],
        trial: int,
        device: torch.device | str = "cpu",
        degradation: str = "",
    ) -> None:
        self.seed, self.dataset, self.image_ids, self.trial = seed, dataset, tuple(image_ids), trial
        self.device = torch.device(device)
        self.degradation = degradation
        self.on_host = self.device.type == "cpu"
        self._calls = 0

    def of(self, degradation: str) -> "Streams":
        """These streams, keyed to `degradation` and at their beginning."""
        return Streams(self.seed, self.dataset, self.image_ids, self.trial, self.device, degradation)

    @functools.cached_property
    def keys(self) -> np.ndarray:
        """(N, 2) uint64: the Philox keys of the images."""
        digests = [
            hashlib.blake2b(
                json.dumps([self.seed, self.dataset, image_id, self.degradation, self.trial]).encode(), digest_size=16
            ).digest()
            for image_id in self.image_ids
        ]
        return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)

    def normal(self, *shape: int) -> Tensor:
        """(N, *shape) float32, N(0, 1)."""
        count = int(np.prod(shape))
        if self.on_host:
            table, out = normal_table(), np.empty((len(self.image_ids), count), np.float32)
            for row, words in zip(out, self._words(-(-count // 4)), strict=True):
                np.take(table, words.view("<u2")[:count], out=row, mode="clip")
            return torch.from_numpy(out).view(-1, *shape)
        bits = self._words_on_device(-(-count // 4))
        bins = torch.stack([(bits >> shift) & 0xFFFF for shift in (0, 16, 32, 48)], dim=-1)
        bins = bins.flatten(1)[:, :count]
        return torch.from_numpy(normal_table().copy()).to(self.device)[bins].view(-1, *shape)

    def uniform(self, *shape: int) -> Tensor:
        """(N, *shape) float32, uniform on the multiples of 2⁻²⁴ in [0, 1)."""
        count = int(np.prod(shape))
        if self.on_host:
            out = np.empty((len(self.image_ids), count), np.float32)
            for row, words in zip(out, self._words(-(-count // 2)), strict=True):
                np.multiply(words.view("<u4")[:count] >> 8, np.float32(2**-24), out=row, casting="unsafe")
            return torch.from_numpy(out).view(-1, *shape)
        bits = self._words_on_device(-(-count // 2))
        halves = torch.stack([(bits >> 8) & 0xFFFFFF, (bits >> 40) & 0xFFFFFF], dim=-1)
        return (halves.flatten(1)[:, :count].float() * 2**-24).view(-1, *shape)

    def integers(self) -> list[int]:
        """One 63-bit integer per image, to seed another library's generator."""
        return [int(words[0] >> np.uint64(1)) for words in self._words(1)]

    def _next_call(self) -> int:
        self._calls += 1
        return self._calls

    def _words(self, count: int) -> list[np.ndarray]:
        """`count` uint64 of each stream; every call starts at its own second counter word."""
        call = self._next_call()
        return [np.random.Philox(key=key, counter=[0, call, 0, 0]).random_raw(count).astype("<u8") for key in self.keys]

    def _words_on_device(self, count: int) -> Tensor:
        keys = torch.from_numpy(self.keys.astype(np.int64, casting="unsafe")).to(self.device)
        return philox_words(keys, self._next_call(), count)


def philox_words(keys: Tensor, call: int, count: int) -> Tensor:
    """The words NumPy's Philox gives for `counter=[0, call, 0, 0]`, in torch integers on the keys' device.

    `keys`: (N, 2) int64, the bits of the uint64 keys. Returns (N, count) int64, the bits of the uint64 words.
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
    return value - (1 << 64) if value >> 63 else value


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """High and low 64 bits of the unsigned product, from 32-bit halves (torch has no wider multiplication)."""
    mask = 0xFFFFFFFF
    a_low, a_high = a & mask, (a >> 32) & mask
    b_low, b_high = b & mask, b >> 32
    low, middle1, middle2 = a_low * b_low, a_low * b_high, a_high * b_low
    carry = ((low >> 32) & mask) + (middle1 & mask) + (middle2 & mask)
    high = a_high * b_high + ((middle1 >> 32) & mask) + ((middle2 >> 32) & mask) + (carry >> 32)
    return high, a * _signed(b)
