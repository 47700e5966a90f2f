"""The ids of boards and entrants in the page's address and in the names of the files beside it."""

import hashlib

import pandas as pd


def short_id(*names: str) -> str:
    """Return an id of names that is the same in every build.

    Examples
    --------
    >>> short_id("timm/a", "none") == short_id("timm/a", "none") != short_id("timm/an", "one")
    True
    >>> len(short_id())
    8
    """
    return hashlib.sha256("\0".join(names).encode("utf-8", "replace")).hexdigest()[:8]


def entrant_id(row: pd.Series) -> str:
    """Return the id of an entrant from its dataset, model, defense and weights."""
    return short_id(row["dataset"], row["model"], row["defense"], row["weights"])


def board_id(protocol: str, dataset: str) -> str:
    """Return the id of a board."""
    return short_id(protocol, dataset)
