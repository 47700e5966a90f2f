"""`python -m leaderboard`: a page of results databases, comparisons, rankings and cards of entrants, submissions."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
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
        The exit code: 0, or 1 where a gate fails, or 2 for a wrong request, which is explained in one sentence.
    """
    options = _parser().parse_args(arguments)
    try:
        answer = COMMANDS[options.command](options)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if isinstance(answer, str):
        print(answer)
        return 0
    return answer


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
    page.add_argument(
        "--verified",
        action="append",
        type=Path,
        default=[],
        help="a report of cnnsens-bench verify --json, which gives entrants the badge recomputed; several may be given",
    )
    page.add_argument(
        "--history",
        action="store_true",
        help="keep each version of the page, show what changed, and write a feed",
    )
    page.add_argument(
        "--camera", type=Path, metavar="FILE", help="show the levels of the camera that the command camera has measured"
    )
    page.add_argument(
        "--pictures",
        type=Path,
        metavar="FOLDER",
        help="what cnnsens-bench pictures has made, for the section Images (default: pictures below --out, if there)",
    )
    pair = commands.add_parser("compare", help="paired differences of two entrants, with tests")
    for name in ("first", "second"):
        pair.add_argument(name, help="a model, or model:defense, as in the database")
    pair.add_argument("--json", type=Path, help="write the numbers to this file too")
    pair.add_argument("--measure", choices=("accuracy", "label_change"), default="accuracy", help="default: accuracy")
    pair.add_argument(
        "--condition", action="append", default=[], metavar="NAME",
        help="only this condition, such as undegraded, pepper, 'gaussian_rgb(8)' or 'common:*'; several may be given",
    )  # fmt: skip
    pair.add_argument("--against", metavar="DB", help="a results.duckdb from which the first entrant is taken")
    pair.add_argument(
        "--fail-below", type=float, metavar="POINTS",
        help="end with exit code 1 where the second entrant is worse than the first by more than this, such as -1.0",
    )  # fmt: skip
    pair.add_argument("--junit", type=Path, metavar="FILE", help="write what --fail-below finds as JUnit XML")
    ranking = commands.add_parser("rank", help="rank entrants under one condition, or by their mean over conditions")
    ranking.add_argument(
        "--condition", action="append", default=[], metavar="NAME",
        help="a condition as compare takes it; several may be given (default: their mean, as on the page)",
    )  # fmt: skip
    ranking.add_argument(
        "--measure", choices=("accuracy", "label_change"), default="accuracy", help="default: accuracy"
    )
    ranking.add_argument(
        "--camera", type=Path, metavar="FILE", help="under the mix of degradations that the command camera has written"
    )
    ranking.add_argument("--json", type=Path, help="write the numbers to this file too")
    card = commands.add_parser("card", help="write the model card of an entrant: README.md and model-index.json")
    card.add_argument("entrant", help="a model, or model:defense, as in the database")
    card.add_argument("--out", type=Path, default=Path("card"), help="folder (default: card)")
    card.add_argument("--url", help="where the results can be looked up, for the card's source")
    for command in (page, pair, ranking, card):
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
    verdict = commands.add_parser("check", help="check such a folder as import does, and say what that cannot tell")
    verdict.add_argument("folder", type=Path)
    template = commands.add_parser("template", help="write a repository for a leaderboard that others submit to")
    template.add_argument("folder", type=Path, help="a new folder")
    bring_in = commands.add_parser("import", help="check such a folder, and bring it into a database")
    bring_in.add_argument("folder", type=Path)
    bring_in.add_argument("--db", type=Path, required=True, help="a .duckdb file; a new one is made")
    return parser


def build(options: argparse.Namespace) -> str:
    """Write the page; return its path."""
    from cnnsens_bench.utils.plugins import load_plugins
    from leaderboard.page import build as write_page

    load_plugins(options.plugin)
    with databases(options.db or [str(QUICK)]) as files:
        given = (options.reference, options.verified, options.history, options.camera, options.pictures)
        return str(write_page(files, options.out, *given))


def compare(options: argparse.Namespace) -> int:
    """Print the comparison of two entrants; return 1 where a gate fails, else 0."""
    from leaderboard.compare import compare as print_comparison
    from leaderboard.gate import Gate
    from leaderboard.pairing import PairRequest

    if options.junit and options.fail_below is None:
        raise UserError("--junit reports what a gate finds: add --fail-below, such as --fail-below -1.0")
    request = PairRequest(options.first, options.second, options.measure, tuple(options.condition))
    gate = None if options.fail_below is None else Gate(options.fail_below, options.junit)
    with (
        databases(options.db or [str(QUICK)]) as files,
        databases([options.against] if options.against else []) as baseline,
    ):
        passed = print_comparison(files, request, options.json, against=next(iter(baseline), None), gate=gate)
    return 0 if passed else 1


def rank(options: argparse.Namespace) -> int:
    """Print rankings of entrants; return 0."""
    from leaderboard.condition_ranking import print_rankings

    with databases(options.db or [str(QUICK)]) as files:
        print_rankings(files, options.condition, options.measure, options.json, camera=options.camera)
    return 0


def write_card(options: argparse.Namespace) -> str:
    """Write a model card; return the paths of its files."""
    from leaderboard.card import write_card as write_files

    with databases(options.db or [str(QUICK)]) as files:
        return "\n".join(map(str, write_files(files, options.entrant, options.out, options.url)))


@contextlib.contextmanager
def databases(texts: Iterable[str]) -> Iterator[list[Path]]:
    """Give the files of databases. Those at URIs are fetched into temporary files."""
    from cnnsens_bench.store import local_copy
    from cnnsens_bench.utils.storage import storage_path

    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(local_copy(storage_path(text))) for text in dict.fromkeys(texts)]


def export_submission(options: argparse.Namespace) -> str:
    """Write a submission; return its folder and how much is in it."""
    from cnnsens_bench.store.submission.transfer import Selection, export
    from cnnsens_bench.utils.environment import commit

    selection = Selection(options.dataset, options.model, options.protocol)
    moved = export(options.db, options.out, selection, options.by, options.note, commit())
    return f"{options.out}: {moved.predictions} predictions, {moved.entrants} entrants"


def check_folder(options: argparse.Namespace) -> str:
    """Check a submission; return what was checked and what was not."""
    from leaderboard.submission_report import submission_report

    return submission_report(options.folder)


def write_repository(options: argparse.Namespace) -> str:
    """Write the repository template; return its folder."""
    from leaderboard.repository import write_template

    return str(write_template(options.folder))


def import_into_database(options: argparse.Namespace) -> str:
    """Bring a submission into a database; return how much of it was new there."""
    from cnnsens_bench.store.submission.transfer import import_submission

    moved = import_submission(options.folder, options.db)
    return f"{options.db}: {moved.new} of {moved.predictions} predictions were new, of {moved.entrants} entrants"


COMMANDS: dict[str, Callable[[argparse.Namespace], str | int]] = {
    "build": build,
    "compare": compare,
    "export": export_submission,
    "check": check_folder,
    "import": import_into_database,
    "template": write_repository,
    "rank": rank,
    "card": write_card,
}
"""Each command returns the message that it ends with, or an exit code."""


if __name__ == "__main__":
    sys.exit(main())
