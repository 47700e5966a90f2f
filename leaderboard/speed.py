"""Images per second of entrants, from the seconds that batches of images took."""

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from cnnsens_bench.measures.spec import UNKNOWN, Interval


def rate(images: np.ndarray, seconds: np.ndarray) -> Interval:
    """Return the images per second, Σimages/Σseconds, with its 95 % interval over batches.

    The interval is Student's of the seconds per image, with the variance of a ratio of sums (Cochran 1977, section
    6.3), inverted.

    Parameters
    ----------
    images
        Shape (batches,), above 0: the images of each batch.
    seconds
        Shape (batches,): the seconds that each batch took.

    Returns
    -------
    tuple
        The rate and its bounds. The bounds are NaN for a single batch, and where the interval of the seconds per image
        reaches 0; all three are NaN where no time was measured.

    Examples
    --------
    >>> rate(np.array([32, 32]), np.array([0.5, 0.5]))
    (64.0, 64.0, 64.0)
    """
    images, seconds = np.asarray(images, float), np.asarray(seconds, float)
    n, total = len(images), float(images.sum())
    per_image = float(seconds.sum()) / total
    if per_image <= 0:
        return UNKNOWN
    half = np.nan
    if n > 1:
        half = stdtrit(n - 1, 0.975) * np.sqrt(n / (n - 1) * ((seconds - per_image * images) ** 2).sum()) / total
    if not half < per_image:
        half = np.nan
    return 1 / per_image, float(1 / (per_image + half)), float(1 / (per_image - half))


def rates(batches: pd.DataFrame) -> tuple[dict[int, tuple[str, Interval]], str | None]:
    """Return the speed of each entrant of a board, on the device that computed most of its images.

    Parameters
    ----------
    batches
        A row per batch: entrant, device, threads (NaN for a GPU), images, seconds.

    Returns
    -------
    speeds : dict
        By entrant: the device, with the threads of a CPU, and `rate` there.
    device : str or None
        The device that computed most images of the board; None where nothing was timed.
    """
    labels = [_label(device, threads) for device, threads in zip(batches["device"], batches["threads"], strict=True)]
    batches = batches.assign(label=labels)
    found = {}
    for entrant, own in batches.groupby("entrant"):
        device = _most_used(own)
        there = own[own["label"] == device]
        found[int(entrant)] = device, rate(there["images"].to_numpy(), there["seconds"].to_numpy())
    return found, _most_used(batches) if len(batches) else None


def _most_used(batches: pd.DataFrame) -> str:
    return str(batches.groupby("label", sort=True)["images"].sum().idxmax())


def _label(device: str, threads: float) -> str:
    return device if pd.isna(threads) else f"{device}, {threads:.0f} thread{'s' if threads != 1 else ''}"
