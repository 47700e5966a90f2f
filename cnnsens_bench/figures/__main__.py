"""Draw a figure from the database of a run, or a contact sheet of a data set."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cnnsens_bench.utils.errors import ImageError, UserError
from cnnsens_bench.utils.storage import storage_path

if TYPE_CHECKING:
    from cnnsens_bench.store import Store

STORE_FIGURES = {
    "table1": "p_Δ and accuracy under rotation and flips",
    "fig2": "accuracy under seven kinds of noise, a curve an architecture",
    "fig3": "the kinds of noise beside each other on other data sets, one architecture",
    "fig4": "accuracy under noise, a curve a defense",
    "combination": "two noises at once",
    "depth": "robustness over the number of parameters, depths of an architecture joined",
    "published": "the paper's numbers, each beside what the store has",
    "curves": "accuracy over levels, a panel a degradation",
    "defenses": "accuracy over levels, a panel a degradation, a curve a defense",
}
SCORE_FIGURES = {
    "fig5": "the most and the least sensitive images",
    "fig6": "predicted against measured sensitivity",
    "predictors": "how well each predictor agrees with trials, over its cost",
    "label-change": "predicted label change: reliability, and AUROC beside baselines",
}
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
    for name, text in (STORE_FIGURES | SCORE_FIGURES).items():
        figure = figures.add_parser(name, help=text, description=text)
        figure.add_argument("--db", required=True, help="a results.duckdb: a path or a URI")
        table = "; .csv or .tex of a table" if name in ("table1", "published") else ""
        figure.add_argument("--out", type=Path, help=OUT + table)
        if name == "fig3":
            figure.add_argument("--dataset", action="append", default=[], help="several (default: all but cub200)")
        elif name != "published":
            figure.add_argument("--dataset", help="default: the only one, of the paper's figures cub200")
        if name in SEVERAL_MODELS:
            figure.add_argument("--model", action="append", default=[], help="several, as in the database")
        elif name in SCORE_FIGURES or name in ("fig3", "fig4", "defenses"):
            figure.add_argument("--model", help="as in the database")
        if name in SCORE_FIGURES or name == "curves":
            figure.add_argument("--defense", default="none", help="as in the database")
        if name in SCORE_FIGURES:
            figure.add_argument("--protocol", help="needed where several are scored, as in the column of every view")
        if name in ("fig5", "fig6"):
            figure.add_argument("--output", choices=("logit", "probability"), default="logit")
        if name == "fig6":
            figure.add_argument("--predictor", default="paper", help="as in the view predictor_check")
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
    from cnnsens_bench.figures.catalogue import endings
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
        draw_into = _figure_function(given, store)
        for target in files:
            draw_into(target)
    return files


def _figure_function(given: argparse.Namespace, store: "Store") -> Callable[[Path], object]:
    """Return the function that draws the figure into a file."""
    from cnnsens_bench.figures import architectures, catalogue, curves, fragile, paper, sensitivity

    name = given.figure
    several = {
        "table1": paper.table1,
        "fig2": paper.fig2,
        "combination": architectures.combination,
        "depth": architectures.depth,
    }
    if name in several:
        return lambda out: several[name](store, out, given.dataset, given.model)
    if name == "fig3":
        return lambda out: paper.fig3(store, out, given.dataset, given.model)
    if name == "curves":
        return lambda out: curves.curves(store, out, given.defense, given.dataset)
    if name in ("fig4", "defenses"):
        if name == "fig4" and given.model is None and given.dataset is None:
            return lambda out: catalogue.FIGURES["fig4"](store, out)
        return lambda out: curves.defense_curves(store, out, given.model, given.dataset)
    if name == "published":
        return lambda out: catalogue.FIGURES["published"](store, out)
    entrant = sensitivity.choose_entrant(store, given.model, given.defense, given.dataset, given.protocol)
    if name == "fig5":
        return lambda out: fragile.fig5(store, out, entrant, output=given.output)
    if name == "fig6":
        return lambda out: sensitivity.fig6(store, out, entrant, given.output, given.predictor)
    if name == "predictors":
        return lambda out: sensitivity.predictor_figure(store, out, entrant)
    return lambda out: sensitivity.label_change_figure(store, out, entrant)


if __name__ == "__main__":
    sys.exit(main())
