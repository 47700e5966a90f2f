"""Images per second of entrants, from the seconds of chunks."""

import numpy as np
import pandas as pd
from scipy.stats import t

Device = str
"""In words: its name, and the threads of a CPU."""


def rate(images: np.ndarray, seconds: np.ndarray) -> tuple[float, float, float]:
    """Images per second, Σimages/Σseconds, with its 95 % interval over chunks.

    `images` (chunks,) above 0; `seconds` (chunks,). The interval is Student's of seconds per image, with the variance
    of a ratio of sums (Cochran 1977, section 6.3), inverted; NaN of one chunk, and where it reaches 0 seconds.
    """
    images, seconds = np.asarray(images, float), np.asarray(seconds, float)
    n, total = len(images), float(images.sum())
    per_image = float(seconds.sum()) / total
    if per_image <= 0:
        return (float("nan"),) * 3
    half = np.nan
    if n > 1:
        half = t.ppf(0.975, n - 1) * np.sqrt(n / (n - 1) * ((seconds - per_image * images) ** 2).sum()) / total
    if not half < per_image:
        half = np.nan
    return 1 / per_image, 1 / (per_image + half), 1 / (per_image - half)


def rates(chunks: pd.DataFrame) -> tuple[dict[int, tuple[Device, tuple[float, float, float]]], Device | None]:
    """Entrant → the device that computed most of its images, and `rate` there; and the one that computed most of all.

    `chunks`: entrant, device, threads (NaN: a GPU's), images, seconds, of the entrants of one board.
    """
    words = [_words(device, threads) for device, threads in zip(chunks["device"], chunks["threads"], strict=True)]
    chunks = chunks.assign(words=words)
    found = {}
    for entrant, own in chunks.groupby("entrant"):
        device = _most(own)
        there = own[own["words"] == device]
        found[int(entrant)] = device, rate(there["images"].to_numpy(), there["seconds"].to_numpy())
    return found, _most(chunks) if len(chunks) else None


def _most(chunks: pd.DataFrame) -> Device:
    by_device = chunks.groupby("words", sort=True)["images"].sum()
    return str(by_device.idxmax())


def _words(device: str, threads: float) -> Device:
    return device if pd.isna(threads) else f"{device}, {threads:.0f} thread{'s' if threads != 1 else ''}"
