"""Finds shots of one scene among photographs, which differ by their noise alone."""

from collections.abc import Sequence

import numpy as np

from cnnsens_bench.utils.cpu_libraries import cv2

SIDE = 24
"""The side of the small pictures that are compared."""
CLOSE = 1.5
"""The root of the mean squared difference, in gray levels, up to which two small pictures show one scene."""


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Return a small gray copy of a picture without its mean brightness, (SIDE, SIDE) float32."""
    small = cv2.resize(np.ascontiguousarray(pixels), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    gray: np.ndarray = small.astype(np.float32).mean(2)
    return gray - gray.mean()


def same_scene(first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether two thumbnails show one scene."""
    return float(np.sqrt(np.mean((first - second) ** 2))) <= CLOSE


def one_of_each_scene(thumbnails: Sequence[np.ndarray], layouts: Sequence[object]) -> list[int]:
    """Return the positions of the photographs whose scene no earlier one shows; the parameters as in `repeated_pairs`.

    Examples
    --------
    >>> one_of_each_scene([np.zeros((2, 2)), np.zeros((2, 2)), np.full((2, 2), 9.0)], ["a", "a", "a"])
    [0, 2]
    """
    found: list[int] = []
    for index, own in enumerate(thumbnails):
        if not any(layouts[index] == layouts[other] and same_scene(own, thumbnails[other]) for other in found):
            found.append(index)
    return found


def repeated_pairs(thumbnails: Sequence[np.ndarray], layouts: Sequence[object]) -> list[tuple[int, int]]:
    """Return pairs of photographs that show one scene, each photograph in one pair at most.

    Parameters
    ----------
    thumbnails
        What `thumbnail` returned for each photograph.
    layouts
        The size of each photograph and how it was turned; only equal ones are compared.
    """
    free, pairs = set(range(len(thumbnails))), []
    for index in range(len(thumbnails)):
        if index not in free:
            continue
        for other in range(index + 1, len(thumbnails)):
            alike = other in free and layouts[index] == layouts[other]
            if alike and same_scene(thumbnails[index], thumbnails[other]):
                pairs.append((index, other))
                free -= {index, other}
                break
    return pairs
