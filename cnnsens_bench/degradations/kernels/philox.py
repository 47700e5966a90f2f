"""The numbers of NumPy's Philox4x64-10, by compiled loops on a CPU; `streams.py` makes them on other devices."""

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from cnnsens_bench.degradations.kernels import pixelwise
from cnnsens_bench.utils.compiled_loops import keep_code

MULTIPLIERS = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
WEYL = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
ROUNDS = 10
STEP = np.float32(2**-24)


def uniform_rows(keys: np.ndarray, call: int, out: np.ndarray) -> None:
    """Fill each row of `out` with uniform numbers in [0, 1).

    Parameters
    ----------
    keys
        (N, 2) uint64, the key of each row.
    call
        The second word of the counter.
    out
        (N, count) float32. The upper 24 bits of each half of a uint64 give a number, the lower half first.
    """
    pixelwise.share(len(out), out.shape[1], lambda a, b: _uniform_loop(keys, np.uint64(call), out, a, b))


def table_rows(keys: np.ndarray, call: int, table: np.ndarray, out: np.ndarray) -> None:
    """Fill each row of `out` with entries of a table of 65,536, which 16 bits each choose, the lowest first.

    Parameters
    ----------
    keys, call
        As in `uniform_rows`.
    table
        (65536,) float32.
    out
        (N, count) float32.
    """
    pixelwise.share(len(out), out.shape[1], lambda a, b: _table_loop(keys, np.uint64(call), table, out, a, b))


@intrinsic
def _wide_product(typing, a, b):  # type: ignore[no-untyped-def]
    """Return the high and the low 64 bits of a product of two uint64."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        wide, narrow = ir.IntType(128), ir.IntType(64)
        product = builder.mul(*(builder.zext(argument, wide) for argument in arguments))
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), narrow)
        return context.make_tuple(builder, signature.return_type, (high, builder.trunc(product, narrow)))

    return types.UniTuple(types.uint64, 2)(types.uint64, types.uint64), generate


@numba.njit(inline="always")
def _block(number, call, key0, key1):  # type: ignore[no-untyped-def]
    """Return the four uint64 of the counter (number, call, 0, 0)."""
    c0, c1, c2, c3 = number, call, np.uint64(0), np.uint64(0)
    for _ in range(ROUNDS):
        high0, low0 = _wide_product(c0, MULTIPLIERS[0])
        high1, low1 = _wide_product(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
        key0, key1 = key0 + WEYL[0], key1 + WEYL[1]
    return c0, c1, c2, c3


@keep_code
@numba.njit(nogil=True)
def _uniform_loop(keys, call, out, first, last):  # type: ignore[no-untyped-def]
    count = out.shape[1]
    for row in range(first, last):
        line, key0, key1 = out[row], keys[row, 0], keys[row, 1]
        for block in range((count + 7) // 8):
            # NumPy raises the counter before it generates, so the first block has counter 1.
            words = _block(np.uint64(block + 1), call, key0, key1)
            start = 8 * block
            if start + 8 <= count:
                for i in range(4):
                    word = words[i]
                    line[start + 2 * i] = np.float32(np.int32((word >> np.uint64(8)) & np.uint64(0xFFFFFF))) * STEP
                    line[start + 2 * i + 1] = np.float32(np.int32(word >> np.uint64(40))) * STEP
            else:
                for i in range(count - start):
                    half = words[i // 2] >> np.uint64(32 * (i % 2) + 8)
                    line[start + i] = np.float32(half & np.uint64(0xFFFFFF)) * STEP


@keep_code
@numba.njit(nogil=True)
def _table_loop(keys, call, table, out, first, last):  # type: ignore[no-untyped-def]
    count = out.shape[1]
    for row in range(first, last):
        line, key0, key1 = out[row], keys[row, 0], keys[row, 1]
        for block in range((count + 15) // 16):
            words = _block(np.uint64(block + 1), call, key0, key1)
            start = 16 * block
            if start + 16 <= count:
                for i in range(4):
                    for j in range(4):
                        line[start + 4 * i + j] = table[(words[i] >> np.uint64(16 * j)) & np.uint64(0xFFFF)]
            else:
                for i in range(count - start):
                    line[start + i] = table[(words[i // 4] >> np.uint64(16 * (i % 4))) & np.uint64(0xFFFF)]
