"""How a sweep is executed: settings that change its speed and its use of memory, but no result."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnsens_bench.runtime.resources import Layout, Machine, lay_out


@dataclass(frozen=True)
class ExecutionOptions:
    """Settings of `run_local`, `run_ray` and their workers.

    Attributes
    ----------
    threads
        The CPU threads of a process that computes; None for torch's own choice. Over a cluster the layout decides.
    weights_budget
        The bytes of weights that a worker holds at once; None for a quarter of its memory. Networks that need more are
        computed group by group.
    cache
        The cache folder; None for the user's. `run_local` keeps its record of crashes below it where the output is a
        URI.
    address
        The address of the Ray cluster; None for the job's own, or one that is started on this machine.
    layout
        Chooses how the workers lie on the machines of the cluster.
    """

    threads: int | None = None
    weights_budget: float | None = None
    cache: str | Path | None = None
    address: str | None = None
    layout: Callable[[Sequence[Machine]], Layout] = lay_out
