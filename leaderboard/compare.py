"""Two entrants, paired: differences of accuracy under each condition, with intervals and tests.

The test is exact and knows that trials are nested in images: an image counts for the entrant that is right in more of
its trials, images with as many right drop out, and the rest is a sign test (two-sided binomial). With one trial that is
McNemar's exact test. Holm's correction is over all conditions of a board.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from cnnsens_bench.utils.formatting import level_text, plain
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy.stats import binomtest

from cnnsens_bench.figures.summary import table_of
from cnnsens_bench.measures import accuracy_gain
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near
from leaderboard.read import Results, read

ALPHA = 0.05
WIDTH = 120


@dataclass(frozen=True)
class Difference:
    """Of one condition, the first entrant's accuracy less the second's. `images_for_first`: images on which it is right
    in more trials; `p`: exact two-sided; `p_holm`: corrected for the conditions of this board."""

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


def compare(paths: Sequence[Path], first: str, second: str, out: Path | None, console: Console | None = None) -> None:
    """Print a table for each protocol and data set that both have; JSON to `out`. Raises `UserError`."""
    results = read(paths)
    tables = comparisons(results, first, second)
    if out:
        rows = [
            {
                "protocol": protocol,
                "dataset": dataset,
                "first": first,
                "second": second,
                "differences": [dataclasses.asdict(one) for one in differences],
                "left_out": left_out(results, first, second, protocol, dataset),
            }
            for (protocol, dataset), differences in tables.items()
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
        for sentence in left_out(results, first, second, protocol, dataset):
            console.print(Text(sentence))


def left_out(results: Results, first: str, second: str, protocol: str, dataset: str) -> list[str]:
    """A sentence for each reason why a condition of one of the two has no row, or not all of its images."""
    board = results.boards[(results.boards["protocol"] == protocol) & (results.boards["dataset"] == dataset)]["board"]
    named = _named(results)
    named = named[named["board"] == board.item()].set_index("full")["entrant"]
    own, other = (
        results.query("entrant", entrant=int(named[name])).set_index(["condition", "image"])["trials"]
        for name in (first, second)
    )
    pairs = pd.concat({"a": own, "b": other}, axis=1)
    conditions = results.query("conditions", board=int(board.item()))
    unlike = pairs.dropna()[lambda both: both["a"] != both["b"]]
    sentences = []
    for (a, b), those in unlike.groupby(["a", "b"]):
        which = those.index.get_level_values("condition").value_counts().sort_index()
        told = ", ".join(f"{_condition(conditions, i)} ({count} images)" for i, count in which.items())
        sentences.append(f"Left out, for A has {a:.0f} and B {b:.0f} trials of an image: {told}.")
    for name, has, lacks in (("A", own, other), ("B", other, own)):
        alone = sorted(set(has.index.unique("condition")) - set(lacks.index.unique("condition")))
        if alone:
            told = ", ".join(_condition(conditions, i) for i in alone)
            sentences.append(f"Left out, for only {name} was measured under it: {told}.")
    return sentences


def _condition(conditions: pd.DataFrame, number: int) -> str:
    name, level = conditions.loc[number, ["degradation", "level"]]
    return f"{plain('undegraded' if name == 'none' else name)} {level_text(name, level)}".strip()


def _named(results: Results) -> pd.DataFrame:
    """The entrants with the names that a command line takes."""
    return results.entrants.assign(
        full=[
            name if defense == "none" else f"{name}:{defense}"
            for name, defense in zip(results.entrants["name"], results.entrants["defense"], strict=True)
        ]
    )


def comparisons(results: Results, first: str, second: str) -> dict[tuple[str, str], list[Difference]]:
    """(protocol, data set) → a row a condition, undegraded first. Raises `UserError` for unknown or unpaired names."""
    named = _named(results)
    chosen = []
    for name in (first, second):
        found = named[named["full"] == name]
        if found.empty:
            raise UserError(f"unknown entrant '{plain(name)}'{near(name, sorted(set(named['full'])))}")
        chosen.append(found.set_index("board")["entrant"])
    if first == second:
        raise UserError(f"'{plain(first)}' is compared with itself: name two entrants")
    tables = {}
    for board in results.boards.itertuples():
        if board.board not in chosen[0].index or board.board not in chosen[1].index:
            continue
        ids = [int(those[board.board]) for those in chosen]
        pairs = results.query("pairs", first=ids[0], second=ids[1]).dropna(subset=["hit", "reference_hit"])
        if not pairs.empty:
            conditions = results.query("conditions", board=int(board.board))
            tables[(str(board.protocol), str(board.dataset))] = _differences(pairs, conditions)
    if not tables:
        raise UserError(
            f"'{plain(first)}' and '{plain(second)}' have no image in common under one protocol, condition and "
            "number of trials: nothing to pair"
        )
    return tables


def _differences(pairs: pd.DataFrame, conditions: pd.DataFrame) -> list[Difference]:
    rows = []
    for condition, those in pairs.groupby("condition"):
        gain = accuracy_gain(those["image"].to_numpy(), those["hit"].to_numpy(), those["reference_hit"].to_numpy())
        trials = those["trials"].to_numpy()
        # In whole trials: shares of thirds differ by rounding.
        more = np.rint(those["hit"] * trials) - np.rint(those["reference_hit"] * trials)
        wins, losses = int((more > 0).sum()), int((more < 0).sum())
        p = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
        degradation, level = conditions.loc[condition, ["degradation", "level"]]
        rows.append(
            Difference(
                degradation, float(level), len(those), int(trials.max()), float(those["hit"].mean()),
                float(those["reference_hit"].mean()), gain.value, gain.low, gain.high, wins, losses, p, p,
            )
        )  # fmt: skip
    corrected = holm([row.p for row in rows])
    return [dataclasses.replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True)]


def holm(p: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction, in the order given."""
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
        f"{len(differences)} conditions, * below {ALPHA}",
    )
    table.add_column("condition", overflow="fold")
    for heading in ("images", "trials", "A", "B", "A − B", "A better", "B better", "p", "p (Holm)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in differences:
        condition = "undegraded" if row.degradation == "none" else row.degradation
        sure = row.p_holm < ALPHA
        table.add_row(
            Text(f"{plain(condition)} {level_text(row.degradation, row.level)}".strip()),
            str(row.n_images),
            str(row.n_trials),
            f"{100 * row.first:.1f}",
            f"{100 * row.second:.1f}",
            Text(f"{100 * row.difference:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]", "bold" if sure else ""),
            str(row.images_for_first),
            str(row.images_for_second),
            f"{row.p:.2g}",
            f"{row.p_holm:.2g}{'*' if sure else ' '}",
        )
    return table
