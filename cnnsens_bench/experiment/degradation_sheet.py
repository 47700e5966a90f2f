"""What the command `degradations` does: previews of one image under degradations, drawn as a contact sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnsens_bench import images
from cnnsens_bench.camera.entries import with_cameras
from cnnsens_bench.datasets import load
from cnnsens_bench.degradations import degradations, parse_degradations
from cnnsens_bench.engine.degrade import previews
from cnnsens_bench.engine.dry_run import probe
from cnnsens_bench.engine.frost import GENERATED
from cnnsens_bench.engine.sweep import Condition
from cnnsens_bench.figures.degradation_sheet import SheetRow, check_suffix, degradation_sheet
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.plugins import load_plugins

FILES = "files"
"""Stands for a data set in the draws of an image that is in none."""


@dataclass(frozen=True)
class SheetRequest:
    """What a contact sheet shows, and where it goes.

    Either `image` names a file, with a `box` (x, y, width, height) in its pixels, or `dataset` a data set, with its
    folder `root` and one of its images. `size` is the side of a network's input in pixels, `tile` that of a tile.
    `step` is what a PNG's values are multiples of. `frost` is the ice of `common:frost`.
    """

    image: str | None
    dataset: str | None
    root: Path | None
    image_id: str | None
    box: images.Box | None
    out: Path
    degradations: Sequence[str] | None
    levels: Sequence[float] | None
    size: int
    tile: int
    step: int
    seed: int
    plugins: Sequence[str]
    frost: str = GENERATED


def draw_sheet(request: SheetRequest) -> None:
    """Draw a contact sheet, one row a degradation and one column a level.

    Raises
    ------
    UserError
        For a wrong request.
    ImageError
        For an image that cannot be read.
    """
    check_suffix(request.out)
    for name, value, low, high in (("size", request.size, 8, 2048), ("tile", request.tile, 32, 512)):
        if not low <= value <= high:
            raise UserError(f"--{name} is {value}: it must be between {low} and {high}")
    load_plugins(request.plugins)
    chosen = choose_conditions(request.degradations, request.levels)
    conditions = [condition for condition, _ in chosen]
    if request.plugins:  # a function that works in place would spoil the tiles after it
        probe(conditions, [request.size], frost=request.frost)
    uri, box, image_id, dataset = _source(request)
    image = images.decode(uri, box)
    tiles = previews(image, image_id, dataset, conditions, request.size, request.seed, request.frost)
    rows = [SheetRow(c.degradation, name, c.levels, tuple(row)) for (c, name), row in zip(chosen, tiles, strict=True)]
    undegraded, grouped = images.render(image, request.size), request.degradations is None
    title = image_id if dataset == FILES else f"{dataset}: {image_id}"
    notes = f"undegraded; every tile is what a network of {request.size} px sees, seed {request.seed}, trial 0"
    degradation_sheet(rows, undegraded, title, notes, request.out, request.tile, grouped, request.step)


def choose_conditions(names: Sequence[str] | None, levels: Sequence[float] | None) -> list[tuple[Condition, str]]:
    """Return the conditions of a sheet, each once, with the names of their levels.

    Parameters
    ----------
    names
        What a config can name, such as `pepper` or `common:*`; None for all that are registered.
    levels
        The levels of every degradation that has any; None for each degradation's own.

    Raises
    ------
    UserError
        For an unknown name, or a level out of range.
    """
    every = [d for name in with_cameras(names or list(degradations)) for d in parse_degradations(name)]
    once = {d.name: d for d in every}.values()
    return [(Condition(d.name, d.resolve_levels(levels if d.has_levels else None), 1), d.level_name) for d in once]


def _source(request: SheetRequest) -> tuple[str, images.Box | None, str, str]:
    """Return the image's URI, box, id and data set."""
    if request.image is not None:
        for option, value in (("--root", request.root), ("--image-id", request.image_id)):
            if value is not None:
                raise UserError(f"{option} belongs to --dataset: leave it out with --image")
        return request.image, request.box, request.image.replace("\\", "/").rpartition("/")[2], FILES
    if request.box is not None:
        raise UserError("--box belongs to --image: an image of a data set has its own")
    assert request.dataset is not None
    samples = load(request.dataset, request.root, None, {})
    wanted, frames = "test images", samples.select("test").frames()
    if request.image_id is not None:
        wanted = f"image '{request.image_id}'"
        frames = (frame[frame["image_id"] == request.image_id] for frame in samples.rows.frames())
    row = next((frame.iloc[0] for frame in frames if len(frame)), None)
    if row is None:
        raise UserError(f"dataset '{samples.name}' has no {wanted}")
    return row["uri"], (row["box_x"], row["box_y"], row["box_w"], row["box_h"]), row["image_id"], samples.name
