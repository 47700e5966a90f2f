"""Draw a figure from the database of a run, or a contact sheet of a data set."""

import argparse
import sys
from pathlib import Path

from cnnsens_bench.utils.errors import ImageError, UserError
from cnnsens_bench.utils.storage import storage_path

FIGURES = {
    "table1": "p_Δ and accuracy under rotation and flips",
    "fig2": "accuracy under seven kinds of noise, a curve an architecture",
    "fig3": "the kinds of noise beside each other on other data sets, one architecture",
    "fig4": "accuracy under noise, a curve a defense",
    "combination": "two noises at once",
    "depth": "robustness over the number of parameters, depths of an architecture joined",
    "published": "the paper's numbers, each beside what the store has",
    "curves": "accuracy over levels, a panel a degradation",
    "defenses": "accuracy over levels, a panel a degradation, a curve a defense",
    "risk-coverage": "errors among the most certain predictions, over the share that is kept",
    "predicted-curves": "predicted label change over levels, beside the measured one",
    "stored": "accuracy on pre-made pictures (stored:) beside corruptions made on the fly (common:)",
    "fig5": "the most and the least sensitive images",
    "fig6": "predicted against measured sensitivity",
    "predictors": "how well each predictor agrees with trials, over its cost",
    "label-change": "predicted label change: reliability, and AUROC beside baselines",
}
"""What each figure shows. `catalogue.ALL_FIGURES` has their functions."""
SCORED = ("fig5", "fig6", "predictors", "label-change")
SEVERAL_MODELS = ("table1", "fig2", "combination", "depth")
OUT = "a .png, .pdf or .svg file (default: a PDF and a PNG in the folder figures beside the database)"


def main(arguments: list[str] | None = None) -> int:
    """Draw what the arguments of the command line ask for, and return the exit code: 0, or 2 for a wrong request."""
    given = _parser().parse_args(arguments)
    try:
        files = draw(given)
    except (UserError, ImageError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for file in files:
        print(file)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cnnsens_bench.figures", description=__doc__)
    figures = parser.add_subparsers(dest="figure", required=True, metavar="FIGURE")
    for name, text in FIGURES.items():
        figure = figures.add_parser(name, help=text, description=text)
        figure.add_argument("--db", required=True, help="a results.duckdb: a path or a URI")
        table = "; .csv or .tex of a table" if name in ("table1", "published") else ""
        figure.add_argument("--out", type=Path, help=OUT + table)
        if name == "fig3":
            text = "several (default: all but cub200)"
            figure.add_argument("--dataset", dest="datasets", action="append", default=[], help=text)
        elif name != "published":
            figure.add_argument("--dataset", help="default: the only one, of the paper's figures cub200")
        if name in SEVERAL_MODELS:
            text = "several, as in the database"
            figure.add_argument("--model", dest="models", action="append", default=[], help=text)
        elif name in SCORED or name in ("fig3", "fig4", "defenses", "risk-coverage"):
            figure.add_argument("--model", help="as in the database")
        if name in SCORED or name in ("curves", "predicted-curves"):
            figure.add_argument("--defense", default="none", help="as in the database")
        if name in ("curves", "defenses"):
            figure.add_argument(
                "--camera", metavar="FILE", help="the file of a measured camera, whose levels are drawn"
            )
        if name in SCORED:
            figure.add_argument("--protocol", help="needed where several are scored, as in the column of every view")
        if name == "risk-coverage":
            figure.add_argument("--defense", help="as in the database (default: none, or the only one)")
            figure.add_argument("--protocol", help="needed where there are several, as in the column of every view")
            figure.add_argument("--score", help="the score of the dashed curves, such as margin (default: gradient)")
        if name in ("fig5", "fig6"):
            figure.add_argument("--output", choices=("logit", "probability"), default="logit")
        if name == "fig6":
            figure.add_argument("--predictor", default="paper", help="as in the view predictor_check")
        if name == "predicted-curves":
            text = "as in the view predicted_curve (default: gradient, which needs no degraded pass)"
            figure.add_argument("--predictor", default="gradient", help=text)
    sheet = figures.add_parser("contact-sheet", help="training images of each class of a data set")
    sheet.add_argument("--dataset", default="plumage")
    sheet.add_argument("--root")
    sheet.add_argument("--out", type=Path, required=True, help="a .png, .pdf or .svg file")
    return parser


def draw(given: argparse.Namespace) -> list[Path]:
    """Draw what the command line asks for, and return the files."""
    if given.figure == "contact-sheet":
        from cnnsens_bench.datasets import load
        from cnnsens_bench.figures.contact_sheet import contact_sheet

        contact_sheet(load(given.dataset, storage_path(given.root) if given.root else None, None, {}), given.out)
        return [given.out]
    from cnnsens_bench.figures.catalogue import ALL_FIGURES, endings
    from cnnsens_bench.store import local_copy
    from cnnsens_bench.store.read import results

    database = storage_path(given.db)
    files = [given.out]
    if given.out is None:
        if not isinstance(database, Path):
            raise UserError(f"--db is the URI {database}: name a file of this machine with --out")
        folder = database.parent / "figures"
        files = [folder / f"{given.figure}{ending}" for ending in endings(given.figure)]
    with local_copy(database) as file:
        store = results(file)
        files[0].parent.mkdir(parents=True, exist_ok=True)
        options = {key: value for key, value in vars(given).items() if key not in ("figure", "db", "out")}
        for target in files:
            ALL_FIGURES[given.figure](store, target, **options)
    return files


if __name__ == "__main__":
    sys.exit(main())
