"""`python -m cnnsens_bench.degradations`: a contact sheet, one row a degradation, one column a level.

A tile shows what a network sees of the image in trial 0 of a run: the box, resized straight to the square input.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cnnsens_bench import images
from cnnsens_bench.datasets import load
from cnnsens_bench.degradations import degradations, parse_degradations
from cnnsens_bench.engine.dry_run import probe
from cnnsens_bench.engine.plan import Condition
from cnnsens_bench.engine.preview import previews
from cnnsens_bench.figures.degradation_sheet import SheetRow, check_suffix, degradation_sheet
from cnnsens_bench.utils.errors import ImageError, UserError
from cnnsens_bench.utils.plugins import load_plugins

EXAMPLES = """examples:
  python -m cnnsens_bench.degradations --image photo.jpg --box 120 80 300 260 --out sheet.png
  python -m cnnsens_bench.degradations --dataset plumage --degradations 'hue_*' 'gaussian_intensity(4) + pepper' \\
      --out sheet.pdf
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m cnnsens_bench.degradations",
        description=__doc__.partition(": ")[2] if __doc__ else None,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--image", help="a photograph: a path or an fsspec URI")
    what.add_argument("--dataset", metavar="NAME", help="show an image of this data set, with its box and its draws")
    made.add_argument("--root", type=Path, metavar="FOLDER", help="the data set's folder; plumage needs none")
    made.add_argument("--image-id", metavar="ID", help="which image of the data set; its first test image unless given")
    made.add_argument(
        "--box",
        type=float,
        nargs=4,
        metavar=("X", "Y", "W", "H"),
        help="the object in --image, in pixels; moved, turned and bent boxes show what lies around it. Without one the "
        "box is the whole image, as in a run, and its edge pixels repeat outside it",
    )
    made.add_argument("--out", type=Path, required=True, help="a .png, .pdf or .svg file")
    made.add_argument(
        "--degradations",
        nargs="+",
        metavar="NAME",
        help="what a config can name, one row each, in this order: 'pepper', 'common:*', 'gaussian_intensity(4) + "
        "pepper'. All registered ones unless given",
    )
    made.add_argument("--levels", type=float, nargs="+", help="in place of each degradation's own")
    made.add_argument("--size", type=int, default=224, help="side of the network's input in pixels (default: 224)")
    made.add_argument(
        "--tile",
        type=int,
        default=112,
        help="side of a tile in pixels (default: 112); an input is reduced to it, which softens noise: with "
        "--tile 224 every pixel shows",
    )
    made.add_argument(
        "--step",
        type=int,
        choices=images.PNG_STEPS,
        default=1,
        help="round a PNG's values to multiples of that many gray levels; 5 halves the size of the file",
    )
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--plugins", nargs="+", default=[], metavar="MODULE", help="your modules with degradations")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 for a wrong request."""
    given = parser().parse_args(arguments)
    try:
        draw(given)
    except (UserError, ImageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(given.out)
    return 0


def draw(given: argparse.Namespace) -> None:
    """Draw what was asked for. Raises `UserError` or `ImageError`."""
    check_suffix(given.out)
    for name, low, high in (("size", 8, 2048), ("tile", 32, 512)):
        if not low <= getattr(given, name) <= high:
            raise UserError(f"--{name} is {getattr(given, name)}: it must be between {low} and {high}")
    load_plugins(given.plugins)
    conditions = chosen(given.degradations, given.levels)
    if given.plugins:  # what works in place would spoil the tiles after it
        probe([condition for condition, _ in conditions], [given.size])
    uri, box, image_id, dataset = source(given)
    image = images.decode(uri, box)
    tiles = previews(image, image_id, dataset, [condition for condition, _ in conditions], given.size, given.seed)
    rows = [
        SheetRow(condition.degradation, level_name, condition.levels, tuple(row))
        for (condition, level_name), row in zip(conditions, tiles, strict=True)
    ]
    notes = f"undegraded; every tile is what a network of {given.size} px sees, seed {given.seed}, trial 0"
    title = image_id if dataset == FILES else f"{dataset}: {image_id}"
    degradation_sheet(
        rows,
        images.render(image, given.size),
        title,
        notes,
        given.out,
        given.tile,
        grouped=given.degradations is None,
        step=given.step,
    )


def chosen(names: Sequence[str] | None, levels: Sequence[float] | None) -> list[tuple[Condition, str]]:
    """The conditions of the sheet, each once, with the names of their levels. Raises `UserError`."""
    every = [d for name in names or degradations for d in parse_degradations(name)]
    return [
        (Condition(d.name, d.resolve_levels(levels if d.has_levels else None), 1), d.level_name)
        for d in {d.name: d for d in every}.values()
    ]


FILES = "files"
"""Stands for a data set in the draws of an image that is in none."""


def source(given: argparse.Namespace) -> tuple[str, images.Box | None, str, str]:
    """The image's URI, box, id and data set. Raises `UserError`."""
    if given.image is not None:
        for option in ("root", "image_id"):
            if getattr(given, option) is not None:
                raise UserError(f"--{option.replace('_', '-')} belongs to --dataset: leave it out with --image")
        return given.image, given.box, given.image.replace("\\", "/").rpartition("/")[2], FILES
    if given.box is not None:
        raise UserError("--box belongs to --image: an image of a data set has its own")
    samples = load(given.dataset, given.root, None, {})
    table = samples.table if given.image_id is not None else samples.split("test")
    if given.image_id is not None:
        table = table[table["image_id"] == given.image_id]
    if table.empty:
        wanted = "test images" if given.image_id is None else f"image '{given.image_id}'"
        raise UserError(f"dataset '{samples.name}' has no {wanted}")
    row = table.iloc[0]
    return row["uri"], (row["box_x"], row["box_y"], row["box_w"], row["box_h"]), row["image_id"], samples.name


if __name__ == "__main__":
    sys.exit(main())
