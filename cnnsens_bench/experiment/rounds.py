"""Runs a sweep in rounds of growing budget, until what `until` asks for is known.

What follows a round depends on the stored predictions of its cells alone, so that an interrupted run goes on with the
round that it was in. `round_results.py` reads these predictions, and `until_rules.py` decides by them.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np
from rich.console import Console

from cnnsens_bench.datasets.sample_table import ImageSelection
from cnnsens_bench.engine.sweep import Condition, Entrant, Sweep
from cnnsens_bench.experiment.round_results import RoundResults
from cnnsens_bench.experiment.until_rules import PointsRule, RankedRule
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import duration
from cnnsens_bench.utils.progress import say

RANKED = "ranked"
"""The value of `until` that asks for the order of the networks; other values are percentage points."""
STORED = "SELECT count(*) AS count FROM predictions"


def require_rounds(until: float | str | None, entrants: Sequence[Entrant], conditions: Sequence[Condition]) -> None:
    """Raise `UserError` where no rounds can tell what `until` asks for."""
    if until is not None and not conditions:
        raise UserError(f"until={until} is about means over degradations, and none is given: leave it out")
    if until == RANKED and len(entrants) < 2:
        raise UserError("until=ranked compares networks, and there is only one: add another, or set until=<points>")


def run_in_rounds(
    until: float | str,
    sweep: Sweep,
    images: ImageSelection,
    store: Store,
    protocol: str,
    console: Console,
    compute: Callable[[Sweep], int],
) -> int:
    """Evaluate a sweep in rounds, each with a larger budget and with the entrants that are not decided.

    Parameters
    ----------
    until
        `ranked`, or the half-width in percentage points that the 95 % intervals of means must have at most.
    sweep
        The whole sweep. Its budget is the largest share that may be evaluated.
    images
        The images.
    store
        The store of the run.
    protocol
        The hash of the protocol.
    console
        Where a person reads what each round has told, and what the next one costs.
    compute
        Evaluates what the store lacks of a sweep, and brings it into the store. It returns the number of images that
        failed.

    Returns
    -------
    int
        The largest number of images that failed in a round.
    """
    results = RoundResults(sweep, images, store, protocol, paired=until == RANKED)
    rule = RankedRule(results) if until == RANKED else PointsRule(results, float(until) / 100)
    chosen, failed, speed = np.arange(len(sweep.entrants)), 0, 0.0
    for number in range(1, results.rounds + 1):
        title, share = f"round {number} of at most {results.rounds}", results.shares[number]
        say(console, f"{title}: {_networks(len(chosen))}, {100 * share:g} % of the degraded cells")
        stored, began = _stored(store), time.monotonic()
        entrants = tuple(sweep.entrants[position] for position in chosen)
        failed = max(failed, compute(dataclasses.replace(sweep, budget=share, entrants=entrants)))
        if computed := _stored(store) - stored:
            speed = computed / (time.monotonic() - began)
        results.add(number, chosen)
        say(console, *(f"{title}: {sentence}" for sentence in rule.sentences(number)))
        chosen = rule.undecided(number)
        if not len(chosen) or number == results.rounds:
            break
        passes = results.passes(number + 1, chosen)
        took = f", about {duration(passes / speed / 3600)}" if speed else ""
        say(console, f"{title}: the next one asks {_networks(len(chosen))} for {passes:,} passes{took}")
    say(console, rule.verdict(number), results.evaluated())
    return failed


def _networks(count: int) -> str:
    return "1 network" if count == 1 else f"{count} networks"


def _stored(store: Store) -> int:
    """Return the number of predictions in a store."""
    return int(store.query(STORED)["count"][0])
