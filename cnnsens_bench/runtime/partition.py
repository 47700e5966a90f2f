"""How a sweep is cut into pieces of work: some images × the networks of a group.

A worker holds a group's networks at a time, so that a lineup of any size fits; each group degrades the images anew, so
there are as few groups as memory and the number of workers allow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cnnsens_bench.engine.plan import Entrant

TASKS_PER_WORKER = 4
"""At least so many, where the work allows: the last to end then holds up the others by little."""
SMALL_BATCH = 4
"""Chunks are first divided by up to this: smaller ones leave more of a batch empty than another group costs."""


@dataclass(frozen=True)
class NetworkSize:
    """What a network takes: bytes of its weights, and the side of its input."""

    size: int
    input_size: int


@dataclass(frozen=True)
class NetworkGroup:
    """Entrants (their positions in the sweep) that are loaded together, and the bytes of their networks."""

    entrants: tuple[int, ...]
    size: int


def cut(
    entrants: Sequence[Entrant],
    weights: Mapping[str, NetworkSize],
    budget: float,
    chunks: int,
    batch_size: int,
    workers: int,
) -> tuple[list[NetworkGroup], int]:
    """Groups of at most `budget` bytes, and into how many pieces each of the plan's `chunks` is divided.

    `weights`: of each checkpoint. There are at least `TASKS_PER_WORKER` pieces of work a worker where images and
    networks allow it.
    """
    groups = group(entrants, weights, budget)
    wanted = TASKS_PER_WORKER * workers if workers > 1 else 1
    networks = len({entrant.checkpoint for entrant in entrants})
    pieces = min(_lacking(wanted, len(groups) * chunks), max(1, min(SMALL_BATCH, batch_size)))
    if len(groups) * chunks * pieces < wanted:
        groups = group(entrants, weights, budget, min(networks, _lacking(wanted, chunks * pieces)))
    pieces = max(pieces, min(_lacking(wanted, len(groups) * chunks), batch_size))
    return groups, pieces


def group(
    entrants: Sequence[Entrant], weights: Mapping[str, NetworkSize], budget: float, at_least: int = 1
) -> list[NetworkGroup]:
    """Entrants of one checkpoint together, those of one input size beside each other; a checkpoint that alone is larger
    than `budget` bytes is a group by itself. `at_least`: groups, of about equal numbers of checkpoints."""
    order = list(dict.fromkeys(entrant.checkpoint for entrant in entrants))
    order.sort(key=lambda key: weights[key].input_size)  # stable: rendered and degraded once for neighbours of one size
    of = {key: [i for i, entrant in enumerate(entrants) if entrant.checkpoint == key] for key in order}
    groups: list[NetworkGroup] = []
    for part in range(at_least):
        here: list[str] = []
        for key in order[part * len(order) // at_least : (part + 1) * len(order) // at_least]:
            if here and sum(weights[k].size for k in here) + weights[key].size > budget:
                groups.append(_group(here, of, weights))
                here = []
            here.append(key)
        if here:
            groups.append(_group(here, of, weights))
    return groups


def _group(keys: list[str], of: Mapping[str, list[int]], weights: Mapping[str, NetworkSize]) -> NetworkGroup:
    return NetworkGroup(tuple(sorted(i for key in keys for i in of[key])), sum(weights[key].size for key in keys))


def _lacking(wanted: int, there: int) -> int:
    """By how much what is there must be multiplied."""
    return -(-wanted // max(1, there))
