"""The command `cnnsens-bench pictures`: makes the gallery of images that the leaderboard's page shows.

The exit codes are 0 done, 1 some entrants are left out or lack pictures (said why), 2 wrong request, 130 stopped.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from cnnsens_bench.experiment.command import WIDTH, exit_code

QUICK = "runs/quick/results.duckdb"
CODES = "exit codes: 0 done, 1 some entrants are left out or lack pictures, 2 the request is wrong, 130 stopped"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    given = _parser().parse_intermixed_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)

    def work() -> int:
        # The import stands here because a help text or a wrong argument need not wait for torch.
        from cnnsens_bench.experiment.gallery import GalleryRequest, make_gallery

        databases, allow, keys = tuple(given.db or [QUICK]), tuple(given.allow), tuple(given.keys)
        request = GalleryRequest(databases, given.out, given.images, given.side, allow, keys, given.trust)
        return make_gallery(request, console)

    return exit_code(work, console, "stopped: the same command begins again")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cnnsens_bench.pictures",
        description="Make small pictures of each entrant's most and least fragile images, undegraded and as they were "
        "when the label changed, for the leaderboard's page.",
        epilog=CODES,
    )
    text = "data_root=, dataset.root=, stored_root=: folders of the data on this machine; cache=; plugins=: to import"
    parser.add_argument("keys", nargs="*", metavar="key=value", help=text)
    parser.add_argument(
        "--db", action="append", default=[], help=f"a results.duckdb; several may be given (default: {QUICK})"
    )
    parser.add_argument("--out", type=Path, default=Path("site/pictures"), help="folder (default: site/pictures)")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="DATASET",
        help="show the images of this data set too, which its licence must allow; several may be given (default: the "
        "drawn data set plumage alone)",
    )  # fmt: skip
    parser.add_argument(
        "--images", type=int, default=6, help="images at either end of each model and defense (default: 6)"
    )
    parser.add_argument("--side", type=int, default=96, help="side of a picture in pixels (default: 96)")
    parser.add_argument(
        "--trust", action="store_true", help="use the code, files and folders that the runs name: know who made them"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
