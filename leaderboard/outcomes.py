"""Packs the outcomes of every entrant per image into script files, from which the page compares two entrants.

They lie beside the page, and a page that was opened from disk may load scripts and nothing else. Each file calls the
page's function `receive`.
"""

import base64
import json
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from leaderboard.ids import short_id

WIDTHS = (np.uint8, np.uint16, np.uint32)


def codes(shares: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """Return one number for each image and condition that says in how many of how many trials something happened.

    Parameters
    ----------
    shares
        Shape (images, conditions), in [0, 1]: NaN where an image has none.
    trials
        Shape (images, conditions): the numbers of trials.

    Returns
    -------
    np.ndarray
        Shape (conditions, images): n·(n + 1)/2 + k for k of n trials, and 0 where an image has none. The type is the
        smallest unsigned one that holds all of them.

    Examples
    --------
    >>> codes(np.array([[1.0, 0.5], [0.0, np.nan]]), np.array([[1, 2], [1, 2]])).tolist()
    [[2, 1], [4, 0]]
    """
    n = np.where(np.isnan(shares), 0, np.nan_to_num(trials)).astype(np.int64)
    k = np.rint(np.nan_to_num(shares) * n).astype(np.int64)
    found = (n * (n + 1) // 2 + k).T
    largest = int(found.max(initial=0))
    return found.astype(next(width for width in WIDTHS if largest <= np.iinfo(width).max))


def pack(tables: Mapping[str, np.ndarray]) -> dict[str, str | int]:
    """Return the outcomes of an entrant as texts: `codes` in little-endian order, deflated, in base64.

    Parameters
    ----------
    tables
        By name, shape (images, conditions): `hit` and `changed`, shares, and `trials`.

    Returns
    -------
    dict
        `accuracy` and `change`: the texts. `accuracy_bytes` and `change_bytes`: the bytes of one code.
    """
    packed: dict[str, str | int] = {}
    for name, table in (("accuracy", "hit"), ("change", "changed")):
        found = codes(tables[table], tables["trials"])
        content = found.astype(found.dtype.newbyteorder("<")).tobytes()
        packed[name] = base64.b64encode(zlib.compress(content)).decode()
        packed[f"{name}_bytes"] = found.dtype.itemsize
    return packed


def build_key(conditions: pd.DataFrame, images: pd.DataFrame) -> str:
    """Return an id of the conditions and images of a board, in their order, which its script files repeat.

    So the page can tell that a file belongs to another build.
    """
    named = [f"{row.degradation} {row.level!r}" for row in conditions.itertuples()]
    return short_id(*named, *images["image_id"].astype(str))


def script_files(
    board_id: str, key: str, images: pd.DataFrame, outcomes: Mapping[str, Mapping[str, str | int]]
) -> Iterator[tuple[str, str]]:
    """Yield the names and texts of a board's script files: one with its images, and one for each entrant.

    Parameters
    ----------
    board_id, key
        The id of the board, and its `build_key`.
    images
        A row per image: image_id, class_name.
    outcomes
        By the id of an entrant: what `pack` returns.

    Yields
    ------
    tuple of str
        The file's name, `<board>.js` or `<board>-<entrant>.js`, and its text in ASCII.
    """
    named = {
        name: [one if isinstance(one, str) else None for one in images[name]] for name in ("image_id", "class_name")
    }
    yield _script(board_id, {"key": key, **named})
    for entrant, packed in outcomes.items():
        yield _script(f"{board_id}-{entrant}", {"key": key, **packed})


def _script(name: str, content: Mapping[str, object]) -> tuple[str, str]:
    return f"{name}.js", f'receive("{name}", {json.dumps(content, separators=(",", ":"))});\n'
