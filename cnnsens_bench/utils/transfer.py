"""Copies between the host and a device that nothing waits for."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def upload(values: np.ndarray, device: torch.device | str) -> Tensor:
    """Return an array as a tensor on a device; a copy to a GPU goes through pinned memory and is not waited for.

    On the CPU the tensor shares the array's memory.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def constant(values: np.ndarray, device: torch.device) -> Tensor:
    """Return an array that is used again and again as a tensor on a device, which is kept there. It must not change."""
    return _constant(values.tobytes(), values.dtype.str, values.shape, device)


@functools.lru_cache(maxsize=256)
def _constant(content: bytes, kind: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # it may be used where gradients are computed
        return upload(np.frombuffer(content, kind).reshape(shape).copy(), device)


def scalar(value: float, device: torch.device) -> Tensor:
    """Return a number as a float32 tensor without dimensions, which the device itself makes."""
    return torch.full((), float(value), dtype=torch.float32, device=device)


def take_rows(values: Tensor, rows: np.ndarray) -> Tensor:
    """Return some rows of a tensor: a view where they follow each other, else a copy.

    Examples
    --------
    >>> take_rows(torch.tensor([5, 6, 7]), np.array([2, 0]))
    tensor([7, 5])
    """
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return values[int(rows[0]) : int(rows[-1]) + 1]
    return values[upload(rows, values.device)]


def fetch(values: Tensor) -> Callable[[], np.ndarray]:
    """Begin to copy a tensor to the host, and return a function that waits for the copy and returns the array."""
    if values.device.type != "cuda":
        return lambda: _array(values)
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied: Any = torch.cuda.Event()
    copied.record()

    def wait() -> np.ndarray:
        copied.synchronize()
        return _array(host)

    return wait


def _array(values: Tensor) -> np.ndarray:
    array: np.ndarray = values.cpu().numpy()
    return array
