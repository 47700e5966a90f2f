"""Writes conditions as people read them, and finds those that a user names on the command line."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import pandas as pd

from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import degradation_text, level_text, plain
from cnnsens_bench.utils.registry import near

UNDEGRADED = "undegraded"


def condition_text(degradation: str, level: float) -> str:
    """Return a condition as people read it.

    Examples
    --------
    >>> condition_text("gaussian_rgb", 4.0), condition_text("flip_lr", 0.0), condition_text("none", 0.0)
    ('gaussian_rgb σ=4', 'flip_lr', 'undegraded')
    """
    name = UNDEGRADED if degradation == "none" else degradation_text(degradation)
    return f"{name} {level_text(degradation, level)}".strip()


def is_named(wanted: str, degradation: str, level: float) -> bool:
    """Return whether a user means a condition.

    Parameters
    ----------
    wanted
        The name of a degradation, which means all its levels; a condition as `condition_text` writes it, or as
        `gaussian_rgb(4)`; or a pattern of either with `*` and `?`, such as `common:*`.
    degradation, level
        The condition.

    Examples
    --------
    >>> [is_named(wanted, "common:fog", 3.0) for wanted in ("common:fog", "common:fog(3)", "common:*", "common:fog(4)")]
    [True, True, True, False]
    """
    names = (
        degradation,
        degradation_text(degradation),
        f"{degradation}({level:g})",
        condition_text(degradation, level),
    )
    return wanted in names or any(fnmatchcase(name, wanted) for name in names)


def chosen_conditions(conditions: pd.DataFrame, wanted: Sequence[str]) -> pd.Series:
    """Return which conditions a user means.

    Parameters
    ----------
    conditions
        A row per condition: degradation, level.
    wanted
        Names as `is_named` takes them; none of them means all conditions.

    Returns
    -------
    pandas.Series
        A bool for each row of `conditions`.
    """
    rows = zip(conditions["degradation"], conditions["level"], strict=True)
    return pd.Series(
        [not wanted or any(is_named(one, *row) for one in wanted) for row in rows], conditions.index, dtype=bool
    )


def require_known(wanted: Sequence[str], conditions: Iterable[tuple[str, float]]) -> None:
    """Raise `UserError` for the first name that means none of the conditions.

    Parameters
    ----------
    wanted
        Names as `is_named` takes them.
    conditions
        The degradation and the level of each condition that there is.
    """
    known = list(conditions)
    for one in wanted:
        if not any(is_named(one, *condition) for condition in known):
            texts = {condition_text(*condition) for condition in known} | {plain(name) for name, _ in known}
            raise UserError(f"--condition '{plain(one)}' is not measured{near(one, sorted(texts - {'none'}))}")
