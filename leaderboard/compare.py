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
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy.stats import binomtest

from cnnsens_bench.figures.summary import table_of
from cnnsens_bench.measures import accuracy_gain, clustered_interval
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import plain
from leaderboard.conditions import condition_text
from leaderboard.gate import Gate
from leaderboard.pairing import KEY, NOUNS, PairedBoard, PairRequest, pair_boards
from leaderboard.read import LoadedResults, read
from leaderboard.significance import ALPHA, holm

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
        The shares of the two entrants: accuracies, or label changes p_Δ.
    difference, low, high
        The first share minus the second, with its 95 % interval.
    images_for_first, images_for_second
        The numbers of images on which the one has the larger share of trials.
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


def compare(
    paths: Sequence[Path],
    request: PairRequest,
    out: Path | None = None,
    console: Console | None = None,
    against: Path | None = None,
    gate: Gate | None = None,
) -> bool:
    """Print a table for each protocol and data set that both entrants have, and the decision of a gate.

    Parameters
    ----------
    paths
        Results databases of runs.
    request
        The two entrants, and over what they are compared.
    out
        A file that gets the numbers as JSON.
    console
        Where the tables are printed; the default is the standard output.
    against
        A database from which the first entrant is taken; the second one is then of `paths`.
    gate
        How much worse the second entrant may be, and where the decision is written.

    Returns
    -------
    bool
        False where the gate fails, else True.

    Raises
    ------
    UserError
        Where an entrant or a condition is unknown, the two share nothing, or a file cannot be written.
    """
    if against and against.resolve() in {path.resolve() for path in paths}:
        raise UserError(f"{against} is named by --against and by --db: A is taken from the one and B from the other")
    results = read(paths, against)
    boards = pair_boards(results, request)
    decision = gate.decide(boards, request) if gate else None
    tables = [differences_of(results, board) for board in boards]
    if out:
        rows = [
            {"protocol": board.protocol, "dataset": board.dataset, "first": request.first, "second": request.second}
            | {"measure": request.measure, "differences": list(map(dataclasses.asdict, found))}
            | {"left_out": board.left_out}
            | ({"gate": decision.as_json(board)} if decision else {})
            for board, found in zip(boards, tables, strict=True)
        ]
        try:
            out.write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{out} cannot be written ({error.strerror}): choose another --json") from None
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    for board, found in zip(boards, tables, strict=True):
        console.print()
        console.print(_table(found, request, f"{plain(board.dataset)}, protocol {plain(board.protocol)}"))
        for sentence in board.left_out:
            console.print(Text(sentence))
    if decision:
        console.print()
        for sentence in decision.sentences():
            console.print(Text(sentence))
    return decision is None or not decision.failed


def comparisons(results: LoadedResults, first: str, second: str) -> dict[tuple[str, str], list[Difference]]:
    """Compare the accuracies of two entrants on every board that both are on.

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
    boards = pair_boards(results, PairRequest(first, second))
    return {(board.protocol, board.dataset): differences_of(results, board) for board in boards}


def differences_of(results: LoadedResults, board: PairedBoard) -> list[Difference]:
    """Compare two entrants under every condition in which they are paired.

    Parameters
    ----------
    results
        What the databases hold.
    board
        The pairs of the two entrants.

    Returns
    -------
    list of Difference
        One for each condition of `board`, in that order.
    """
    rows, labels_of = [], dict(iter(results.agreement(board.first, board.second).groupby(KEY)))
    for own in board.conditions:
        gain = accuracy_gain(own.image, own.first, own.second)
        # Whole trials are compared, because shares such as thirds differ by rounding.
        more = np.rint(own.first * own.trials) - np.rint(own.second * own.trials)
        wins, losses = int((more > 0).sum()), int((more < 0).sum())
        p = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
        same = labels_of[own.degradation, own.level]
        agreement = clustered_interval(same["same"].to_numpy(), int(same["trials"].max()))
        rows.append(
            Difference(
                own.degradation, own.level, len(own.image), int(own.trials.max()), float(own.first.mean()),
                float(own.second.mean()), gain.value, gain.low, gain.high, wins, losses, p, p,
                agreement.value, agreement.low, agreement.high,
            )
        )  # fmt: skip
    corrected = holm([row.p for row in rows])
    return [dataclasses.replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True)]


def _table(differences: list[Difference], request: PairRequest, title: str) -> Table:
    accuracy = request.measure == "accuracy"
    images = "images on which one is right in more" if accuracy else "images whose label changes for one in more"
    table = table_of(
        Text(f"{title}\nA: {plain(request.first)}\nB: {plain(request.second)}"),
        f"{NOUNS[request.measure]} in %; A − B with its 95 % interval, paired by image and trial; {images}\n"
        "trials, and the exact test of those (McNemar's where there is one trial); p after Holm for "
        f"{len(differences)} conditions, * below {ALPHA};\nsame: how often both predict the same label, in %",
    )
    table.add_column("condition", overflow="fold")
    counts = ("A\nbetter", "B\nbetter") if accuracy else ("A\nmore", "B\nmore")
    for heading in ("images", "trials", "A", "B", "A − B", *counts, "p", "p\n(Holm)", "same"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in differences:
        sure = row.p_holm < ALPHA
        table.add_row(
            Text(condition_text(row.degradation, row.level)),
            *(str(count) for count in (row.n_images, row.n_trials)),
            *(f"{100 * accuracy:.1f}" for accuracy in (row.first, row.second)),
            Text(f"{100 * row.difference:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]", "bold" if sure else ""),
            *(str(count) for count in (row.images_for_first, row.images_for_second)),
            f"{row.p:.2g}",
            f"{row.p_holm:.2g}{'*' if sure else ' '}",
            f"{100 * row.agreement:.1f}",
        )
    return table
