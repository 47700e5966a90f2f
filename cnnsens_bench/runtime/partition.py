"""How a sweep is cut into tasks: some images × the networks of a group.

A worker holds the networks of one group at a time, so any number of networks fits. Each group degrades the images anew,
so there are as few groups as memory and the number of workers allow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cnnsens_bench.engine.sweep import Entrant

TASKS_PER_WORKER = 4
"""The least number of tasks a worker, where the work allows it, so that the last task holds up the others by little."""
SMALL_BATCH = 4
"""Image batches are first divided by up to this: more leaves more of a batch empty than another group costs."""


@dataclass(frozen=True)
class NetworkSize:
    """The bytes of a network's weights, and the side of its input in pixels."""

    size: int
    input_size: int


NetworkSizes = Mapping[str, NetworkSize]
"""The size of each network by the key of its checkpoint."""


@dataclass(frozen=True)
class NetworkGroup:
    """The positions of entrants that are loaded together, and the bytes of their networks."""

    entrants: tuple[int, ...]
    size: int


def cut(
    entrants: Sequence[Entrant], weights: NetworkSizes, budget: float, batches: int, batch_size: int, workers: int
) -> tuple[list[NetworkGroup], int]:
    """Return groups of networks, and the number of tasks that each group makes of an image batch.

    There are at least `TASKS_PER_WORKER` tasks a worker where images and networks allow it.

    Parameters
    ----------
    entrants
        The entrants of the sweep.
    weights
        The size of each checkpoint.
    budget
        The bytes of a group at most; a checkpoint that alone is larger is a group by itself.
    batches
        The number of image batches in the plan.
    batch_size
        The images of a batch.
    workers
        How many workers share the tasks.

    Examples
    --------
    >>> cut([Entrant("s/a", "a", "none", "a")], {"a": NetworkSize(100, 224)}, 1e9, batches=2, batch_size=32, workers=2)
    ([NetworkGroup(entrants=(0,), size=100)], 4)
    """
    groups = group(entrants, weights, budget)
    wanted = TASKS_PER_WORKER * workers if workers > 1 else 1
    networks = len({entrant.checkpoint for entrant in entrants})
    tasks_per_batch = min(_factor(wanted, len(groups) * batches), max(1, min(SMALL_BATCH, batch_size)))
    if len(groups) * batches * tasks_per_batch < wanted:
        groups = group(entrants, weights, budget, min(networks, _factor(wanted, batches * tasks_per_batch)))
    tasks_per_batch = max(tasks_per_batch, min(_factor(wanted, len(groups) * batches), batch_size))
    return groups, tasks_per_batch


def group(entrants: Sequence[Entrant], weights: NetworkSizes, budget: float, at_least: int = 1) -> list[NetworkGroup]:
    """Group entrants: those of one checkpoint together, those of one input size side by side.

    Parameters
    ----------
    entrants, weights, budget
        As in `cut`.
    at_least
        The least number of groups, which then have about equal numbers of checkpoints.
    """
    order = list(dict.fromkeys(entrant.checkpoint for entrant in entrants))
    # The sort is stable. Images are rendered and degraded once for neighbours of one size.
    order.sort(key=lambda key: weights[key].input_size)
    together: list[list[str]] = []
    for part in range(at_least):
        together.append([])
        for key in order[part * len(order) // at_least : (part + 1) * len(order) // at_least]:
            if together[-1] and sum(weights[k].size for k in [*together[-1], key]) > budget:
                together.append([])
            together[-1].append(key)
    groups = []
    for keys in filter(None, together):
        members = tuple(i for i, entrant in enumerate(entrants) if entrant.checkpoint in keys)
        groups.append(NetworkGroup(members, sum(weights[key].size for key in keys)))
    return groups


def _factor(wanted: int, there: int) -> int:
    """Return by how much what is there must be multiplied."""
    return -(-wanted // max(1, there))
