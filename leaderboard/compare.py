"""Compares two entrants: paired differences of accuracy under each condition, with intervals and tests.

The test is exact and respects that trials are nested in images. An image counts for the entrant that is right in more
of its trials, images with equally many drop out, and the rest is a sign test (two-sided binomial). With one trial that
is McNemar's exact test. Holm's correction is over all conditions of a board.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy.stats import binomtest

from cnnsens_bench.figures.summary import table_of
from cnnsens_bench.measures import accuracy_gain, clustered_interval
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import degradation_text, level_text, plain
from cnnsens_bench.utils.registry import near
from leaderboard.read import LoadedResults, read

ALPHA = 0.05
KEY = ["degradation", "level"]
WIDTH = 120
"""The least width of a table where there is no terminal, in characters."""


@dataclass(frozen=True)
class Difference:
    """The difference of two entrants under one condition.

    Parameters
    ----------
    degradation, level
        The condition.
    n_images, n_trials
        The number of paired images, and the largest number of trials of one.
    first, second
        The accuracies of the two entrants.
    difference, low, high
        The first accuracy minus the second, with its 95 % interval.
    images_for_first, images_for_second
        The numbers of images on which the one is right in more trials than the other.
    p, p_holm
        The exact two-sided p-value, and the same corrected for the number of conditions of the board.
    agreement, agreement_low, agreement_high
        The share of (image, trial) for which both predict the same label, right or wrong, with its 95 % interval.
    """

    degradation: str
    level: float
    n_images: int
    n_trials: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    images_for_first: int
    images_for_second: int
    p: float
    p_holm: float
    agreement: float
    agreement_low: float
    agreement_high: float


def compare(paths: Sequence[Path], first: str, second: str, out: Path | None, console: Console | None = None) -> None:
    """Print a table for each protocol and data set that both entrants have.

    Parameters
    ----------
    paths
        Results databases of runs.
    first, second
        The entrants, as `model` or `model:defense`.
    out
        A file that gets the numbers as JSON.
    console
        Where the tables are printed; the default is the standard output.

    Raises
    ------
    UserError
        Where an entrant is unknown, the two share nothing, or the file cannot be written.
    """
    results = read(paths)
    tables = comparisons(results, first, second)
    shared = _shared_boards(results, first, second)
    missing = {board: left_out(results, shared.loc[board]) for board in tables}
    if out:
        rows = [
            {"protocol": protocol, "dataset": dataset, "first": first, "second": second}
            | {"differences": list(map(dataclasses.asdict, found)), "left_out": missing[protocol, dataset]}
            for (protocol, dataset), found in tables.items()
        ]
        try:
            out.write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{out} cannot be written ({error.strerror}): choose another --json") from None
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    for (protocol, dataset), differences in tables.items():
        console.print()
        console.print(_table(differences, first, second, f"{plain(dataset)}, protocol {plain(protocol)}"))
        for sentence in missing[protocol, dataset]:
            console.print(Text(sentence))


def left_out(results: LoadedResults, shared: pd.Series) -> list[str]:
    """Say which conditions or images of one of two entrants the comparison leaves out, and why.

    Parameters
    ----------
    results
        What the databases hold.
    shared
        The numbers of a `board` and of both entrants, `a` and `b`, there.

    Returns
    -------
    list of str
        A sentence for each reason; empty where nothing is left out.
    """
    own, other = (
        results.query("shares", entrant=int(shared[side])).set_index(["condition", "image"])["trials"] for side in "ab"
    )
    pairs = pd.concat({"a": own, "b": other}, axis=1)
    conditions = results.query("conditions", board=int(shared["board"]))
    unlike = pairs.dropna()[lambda both: both["a"] != both["b"]]
    sentences = []
    for (a, b), rows in unlike.groupby(["a", "b"]):
        which = rows.index.get_level_values("condition").value_counts().sort_index()
        listed = ", ".join(f"{_condition(*conditions.loc[i, KEY])} ({count} images)" for i, count in which.items())
        sentences.append(f"Left out, for A has {a:.0f} and B {b:.0f} trials of an image: {listed}.")
    for name, has, lacks in (("A", own, other), ("B", other, own)):
        alone = sorted(set(has.index.unique("condition")) - set(lacks.index.unique("condition")))
        if alone:
            listed = ", ".join(_condition(*conditions.loc[i, KEY]) for i in alone)
            sentences.append(f"Left out, for only {name} was measured under it: {listed}.")
    return sentences


def _condition(degradation: str, level: float) -> str:
    name = "undegraded" if degradation == "none" else degradation_text(degradation)
    return f"{name} {level_text(degradation, level)}".strip()


def _shared_boards(results: LoadedResults, first: str, second: str) -> pd.DataFrame:
    """Return the boards that both entrants are on, by protocol and data set, with the entrants' numbers `a` and `b`.

    Raise `UserError` where a name is unknown, or both are one entrant.
    """
    entrants, boards = results.entrants.set_index("board"), results.boards.set_index("board", drop=False)
    names = entrants["name"].where(entrants["defense"] == "none", entrants["name"] + ":" + entrants["defense"])
    for side, name in (("a", first), ("b", second)):
        found = entrants["entrant"][names == name]
        if found.empty:
            raise UserError(f"unknown entrant '{plain(name)}'{near(name, sorted(set(names)))}")
        boards = boards.join(found.rename(side), how="inner")
    if first == second:
        raise UserError(f"'{plain(first)}' is compared with itself: name two entrants")
    return boards.set_index(["protocol", "dataset"])


def comparisons(results: LoadedResults, first: str, second: str) -> dict[tuple[str, str], list[Difference]]:
    """Compare two entrants on every board that both are on.

    Parameters
    ----------
    results
        What the databases hold.
    first, second
        The entrants, as `model` or `model:defense`.

    Returns
    -------
    dict
        By protocol and data set: a difference for each condition, the undegraded one first.

    Raises
    ------
    UserError
        Where a name is unknown, the two are one entrant, or they share nothing that can be paired.
    """
    tables = {}
    for key, shared in _shared_boards(results, first, second).iterrows():
        pairs = results.query("pairs", first=int(shared["a"]), second=int(shared["b"]))
        pairs = pairs.dropna(subset=["hit", "reference_hit"])
        if not pairs.empty:
            conditions = results.query("conditions", board=int(shared["board"]))
            tables[key] = _differences(pairs, conditions, results.agreement(int(shared["a"]), int(shared["b"])))
    if not tables:
        raise UserError(
            f"'{plain(first)}' and '{plain(second)}' have no image in common under one protocol, condition and "
            "number of trials: nothing to pair"
        )
    return tables


def _differences(pairs: pd.DataFrame, conditions: pd.DataFrame, labels: pd.DataFrame) -> list[Difference]:
    rows, labels_of = [], dict(iter(labels.groupby(KEY)))
    for condition, own in pairs.groupby("condition"):
        gain = accuracy_gain(own["image"].to_numpy(), own["hit"].to_numpy(), own["reference_hit"].to_numpy())
        trials = own["trials"].to_numpy()
        # Whole trials are compared, because shares such as thirds differ by rounding.
        more = np.rint(own["hit"] * trials) - np.rint(own["reference_hit"] * trials)
        wins, losses = int((more > 0).sum()), int((more < 0).sum())
        p = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
        degradation, level = conditions.loc[condition, KEY]
        same = labels_of[degradation, level]
        agreement = clustered_interval(same["same"].to_numpy(), int(same["trials"].max()))
        rows.append(
            Difference(
                degradation, float(level), len(own), int(trials.max()), float(own["hit"].mean()),
                float(own["reference_hit"].mean()), gain.value, gain.low, gain.high, wins, losses, p, p,
                agreement.value, agreement.low, agreement.high,
            )
        )  # fmt: skip
    corrected = holm([row.p for row in rows])
    return [dataclasses.replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True)]


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's (1979) step-down procedure.

    Parameters
    ----------
    p
        The p-values, in any order.

    Returns
    -------
    list of float
        The corrected p-values, in the same order.

    Examples
    --------
    >>> holm([0.5, 0.125])
    [0.5, 0.25]
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.asarray(p, float)[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1)
    return corrected.tolist()


def _table(differences: list[Difference], first: str, second: str, title: str) -> Table:
    table = table_of(
        Text(f"{title}\nA: {plain(first)}\nB: {plain(second)}"),
        "accuracy in %; A − B with its 95 % interval, paired by image and trial; images on which one is right in more\n"
        "trials, and the exact test of those (McNemar's where there is one trial); p after Holm for "
        f"{len(differences)} conditions, * below {ALPHA};\nsame: how often both predict the same label, in %",
    )
    table.add_column("condition", overflow="fold")
    for heading in ("images", "trials", "A", "B", "A − B", "A\nbetter", "B\nbetter", "p", "p\n(Holm)", "same"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in differences:
        sure = row.p_holm < ALPHA
        table.add_row(
            Text(_condition(row.degradation, row.level)),
            *(str(count) for count in (row.n_images, row.n_trials)),
            *(f"{100 * accuracy:.1f}" for accuracy in (row.first, row.second)),
            Text(f"{100 * row.difference:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]", "bold" if sure else ""),
            *(str(count) for count in (row.images_for_first, row.images_for_second)),
            f"{row.p:.2g}",
            f"{row.p_holm:.2g}{'*' if sure else ' '}",
            f"{100 * row.agreement:.1f}",
        )
    return table
