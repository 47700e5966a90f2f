"""`python -m leaderboard`: a page of results databases, comparisons of two entrants, and submissions to others."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from cnnsens_bench.utils.errors import UserError

QUICK = Path("runs/quick/results.duckdb")
REFERENCE = "torchvision/alexnet"


def main(arguments: list[str] | None = None) -> int:
    """Run one command of the leaderboard.

    Parameters
    ----------
    arguments
        The command line without the program's name; None takes that of the process.

    Returns
    -------
    int
        The exit code: 0, or 2 for a wrong request, which is explained in one sentence.
    """
    options = _parser().parse_args(arguments)
    try:
        if message := COMMANDS[options.command](options):
            print(message)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m leaderboard", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    page = commands.add_parser("build", help="write the page index.html, which opens from disk, and its folder data")
    page.add_argument("--out", type=Path, default=Path("site"), help="folder (default: site)")
    page.add_argument(
        "--reference",
        default=REFERENCE,
        help=f"what mCE is relative to: a model, or published:alexnet, which is AlexNet's published error rates on "
        f"ImageNet-C and stands in where a board of ImageNet's 1000 classes lacks the model (default: {REFERENCE})",
    )
    page.add_argument(
        "--plugin", action="append", default=[], help="a module that registers measures of yours; several may be given"
    )
    pair = commands.add_parser("compare", help="paired differences of two entrants, with tests")
    for name in ("first", "second"):
        pair.add_argument(name, help="a model, or model:defense, as in the database")
    pair.add_argument("--json", type=Path, help="write the numbers to this file too")
    for command in (page, pair):
        command.add_argument(
            "--db", action="append", default=[], help=f"a results.duckdb; several are merged (default: {QUICK})"
        )
    export = commands.add_parser("export", help="write results as a folder that others can import")
    export.add_argument("--db", type=Path, default=QUICK, help=f"a results.duckdb (default: {QUICK})")
    export.add_argument("--out", type=Path, default=Path("submission"), help="a new folder (default: submission)")
    for kind in ("dataset", "model", "protocol"):
        export.add_argument(f"--{kind}", action="append", default=[], help="only this; several may be given")
    export.add_argument("--by", default="", help="who submits, as they want to be named")
    export.add_argument("--note", default="", help="what a reader should know")
    bring_in = commands.add_parser("import", help="check such a folder, and bring it into a database")
    bring_in.add_argument("folder", type=Path)
    bring_in.add_argument("--db", type=Path, required=True, help="a .duckdb file; a new one is made")
    return parser


def build(options: argparse.Namespace) -> str:
    """Write the page; return its path."""
    from cnnsens_bench.utils.plugins import load_plugins
    from leaderboard.page import build as write_page

    load_plugins(options.plugin)
    with databases(options) as files:
        return str(write_page(files, options.out, options.reference))


def compare(options: argparse.Namespace) -> str:
    """Print the comparison of two entrants; return no further message."""
    from leaderboard.compare import compare as print_comparison

    with databases(options) as files:
        print_comparison(files, options.first, options.second, options.json)
    return ""


@contextlib.contextmanager
def databases(options: argparse.Namespace) -> Iterator[list[Path]]:
    """Give the files of `--db`. Databases at URIs are fetched into temporary files."""
    from cnnsens_bench.store import local_copy
    from cnnsens_bench.utils.storage import storage_path

    texts = dict.fromkeys(options.db or [str(QUICK)])
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(local_copy(storage_path(text))) for text in texts]


def export_submission(options: argparse.Namespace) -> str:
    """Write a submission; return its folder and how much is in it."""
    from cnnsens_bench.store.submission.transfer import Selection, export
    from cnnsens_bench.utils.environment import commit

    selection = Selection(options.dataset, options.model, options.protocol)
    moved = export(options.db, options.out, selection, options.by, options.note, commit())
    return f"{options.out}: {moved.predictions} predictions, {moved.entrants} entrants"


def import_into_database(options: argparse.Namespace) -> str:
    """Bring a submission into a database; return how much of it was new there."""
    from cnnsens_bench.store.submission.transfer import import_submission

    moved = import_submission(options.folder, options.db)
    return f"{options.db}: {moved.new} of {moved.predictions} predictions were new, of {moved.entrants} entrants"


COMMANDS = {"build": build, "compare": compare, "export": export_submission, "import": import_into_database}


if __name__ == "__main__":
    sys.exit(main())
