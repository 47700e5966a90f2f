"""The command `cnnsens-bench verify submission`: computes a random sample of rows again and compares them.

The exit codes are 0 all sampled rows agree, 1 some could not be computed here (said why), 2 the request is wrong,
3 rows differ, 130 stopped.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from cnnsens_bench.experiment.command import DONE, INCOMPLETE, WIDTH, exit_code

if TYPE_CHECKING:
    from cnnsens_bench.experiment.verification import Verification

DIFFERENT = 3
"""The exit code where rows differ from what is computed here."""
CODES = "exit codes: 0 all agree, 1 some could not be computed here, 2 the request is wrong, 3 rows differ, 130 stopped"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    given = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    found: list[Verification] = []

    def work() -> int:
        # The import stands here because a help text or a wrong argument need not wait for torch.
        from cnnsens_bench.experiment.verification import VerifyRequest, verify

        keys = tuple(given.keys)
        request = VerifyRequest(given.results, given.sample, given.seed, keys, given.trust, given.json)
        found.append(verify(request, console))
        return found[0].not_recomputed

    code = exit_code(work, console, "stopped: nothing is kept")
    return DIFFERENT if code in (DONE, INCOMPLETE) and any(one.differed for one in found) else code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cnnsens_bench.verify",
        description="Compute a random sample of rows again, and say which agree, differ, or cannot be computed here.",
        epilog=CODES,
    )
    parser.add_argument("results", help="a submission, a results.duckdb, or the output folder of a run")
    text = "data_root=, dataset.root=, stored_root=: folders of the data on this machine; cache=; plugins=: to import"
    parser.add_argument("keys", nargs="*", metavar="key=value", help=text)
    parser.add_argument("--sample", type=int, default=50, help="rows of each model and defense (default: 50)")
    parser.add_argument("--seed", default="", help="a text that chooses the rows (default: drawn, and printed)")
    parser.add_argument(
        "--json", type=Path, help="write a report to this file too; leaderboard build --verified shows it"
    )
    parser.add_argument(
        "--trust", action="store_true", help="use the code, files and folders that the runs name: know who made them"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
