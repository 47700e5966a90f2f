"""A contact sheet of degradations: a row for each, with an image for each level (figure 1 of the paper, right)."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnsens_bench import images
from cnnsens_bench.figures.summary import wrapped
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import UNITS, level_text, plain

matplotlib.rcParams["svg.hashsalt"] = "cnnsens_bench"  # the same picture gives the same file

SUFFIXES = (".png", ".pdf", ".svg")
PAPER, COMMON = "The paper's (Rodner et al. 2016)", "Common corruptions (Hendrycks & Dietterich 2019)"
BEYOND = "Beyond the paper"
ORDER = (
    *("gaussian_rgb", "gaussian_intensity", "saturation", "hue_global", "hue_local", "pepper", "pepper_pixel"),
    *("translation", "rotation", "flip_lr", "flip_ud"),
)
"""The degradations of the paper in the order of their rows."""

# All lengths are in pixels of a PNG.
DPI = 100
MARGIN, GAP, PANEL_GAP = 12, 5, 30
TEXT, HEADING = 14, 30
"""The height of a level above its tile, and of the heading of a group."""
CHARACTER, LINE = 6.3, 13
"""The width of a character and the height of a line in the label of a row."""
LONGEST_LINE, MOST_LINES = 21, 6
"""The largest numbers of characters in a line, and of lines, in the label of a row."""
WIDEST = 10
"""The largest number of tiles beside each other; further tiles of a row go below."""
TALLEST = 18
"""The largest number of rows below each other; more are laid out in two columns."""
NOTES = 420
"""The width of the notes beside the undegraded image."""


@dataclass(frozen=True)
class SheetRow:
    """A row of the sheet.

    Attributes
    ----------
    name : str
        The name of the degradation.
    level_name : str
        What its levels are, as it was registered.
    levels : tuple of float
        The levels.
    tiles : tuple of numpy.ndarray
        The degraded image at each level, (size, size, 3) uint8.
    """

    name: str
    level_name: str
    levels: tuple[float, ...]
    tiles: tuple[np.ndarray, ...]


def check_suffix(out: Path) -> None:
    """Raise `UserError` where a sheet cannot be written to a file, before anything is computed."""
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"{out}: the name of the sheet must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no folder {out.parent}")


def degradation_sheet(
    rows: Sequence[SheetRow],
    undegraded: np.ndarray,
    title: str,
    notes: str,
    out: Path,
    tile: int = 112,
    grouped: bool = True,
    step: int = 1,
) -> None:
    """Draw a sheet: the undegraded image with texts beside it, and below them the degradations.

    Parameters
    ----------
    rows
        The rows of the sheet.
    undegraded
        The undegraded image, (size, size, 3) uint8.
    title, notes
        The texts beside the undegraded image.
    out
        The file to write, whose ending is one of `SUFFIXES`.
    tile
        The side of a tile in pixels. Larger images are reduced to it.
    grouped
        Whether rows are grouped under headings (the paper's degradations, those beyond the paper, and common
        corruptions) instead of drawn in their order.
    step
        The step of the values in a PNG; see `images.write_png`.

    Raises
    ------
    UserError
        If the file has another ending, or its folder does not exist.
    """
    check_suffix(out)
    groups = _grouped(rows) if grouped else [("", list(rows))]
    panels = _panels(groups, tile)
    sizes = [_panel_size(panel, tile) for panel in panels]
    width = max(sum(w for w, _ in sizes) + PANEL_GAP * (len(sizes) - 1), tile + NOTES) + 2 * MARGIN
    top = MARGIN + tile + GAP
    figure, axes = _canvas(width, top + max(h for _, h in sizes) + MARGIN)
    _draw_tile(axes, undegraded, MARGIN, MARGIN, tile)
    beside = MARGIN + tile + 2 * GAP
    _write(axes, beside, MARGIN + tile / 2 - LINE, title, 10, weight="bold")
    _write(axes, beside, MARGIN + tile / 2 + LINE / 2, notes, 8, linespacing=1.5)
    left = float(MARGIN)
    for panel, (across, _) in zip(panels, sizes, strict=True):
        _draw_panel(axes, panel, left, top, tile)
        left += across + PANEL_GAP
    _save(figure, out, step)


RowGroup = tuple[str, list[SheetRow]]
"""A heading and the rows below it."""


def _grouped(rows: Sequence[SheetRow]) -> list[RowGroup]:
    """Return the rows under headings, those of the paper in its order."""
    found: dict[str, list[SheetRow]] = {PAPER: [], BEYOND: [], COMMON: []}
    for row in rows:
        group = PAPER if row.name in ORDER else COMMON if row.name.startswith("common:") else BEYOND
        found[group].append(row)
    found[PAPER].sort(key=lambda row: ORDER.index(row.name))
    return [(name, members) for name, members in found.items() if members]


def _panels(groups: list[RowGroup], tile: int) -> list[list[RowGroup]]:
    """Return the groups in one column, or in two of about equal heights. A single group is cut between rows."""
    if sum(len(members) for _, members in groups) <= TALLEST:
        return [groups]
    if len(groups) == 1:
        [(name, members)] = groups
        half = -(-len(members) // 2)
        return [[(name, members[:half])], [("", members[half:])]]
    cuts = [(groups[:i], groups[i:]) for i in range(1, len(groups))]
    return list(min(cuts, key=lambda cut: max(_panel_size(side, tile)[1] for side in cut)))


def _column_count(groups: list[RowGroup]) -> int:
    return max(min(len(row.tiles), WIDEST) for _, members in groups for row in members)


def _lines(members: list[SheetRow], columns: int, tile: int) -> Iterator[list[SheetRow]]:
    """Yield the rows of each line. Rows of one tile share a line where their labels fit between the tiles."""
    line: list[SheetRow] = []
    for row in members:
        fits = 2 * len(line) < columns and _label_width([row]) <= tile + GAP
        if line and not (fits and len(row.tiles) == len(line[0].tiles) == 1):
            yield line
            line = []
        line.append(row)
    yield line


def _panel_size(groups: list[RowGroup], tile: int) -> tuple[float, float]:
    """Return the width and the height of a column of groups."""
    columns = _column_count(groups)
    lines = [line for _, members in groups for line in _lines(members, columns, tile)]
    height = sum(HEADING for name, _ in groups if name) + sum(_height(line[0], tile) for line in lines)
    return _label_width([line[0] for line in lines]) + columns * (tile + GAP) - GAP, height


def _height(row: SheetRow, tile: int) -> int:
    return -(-len(row.tiles) // WIDEST) * (TEXT + tile + GAP)


def _label_width(rows: Sequence[SheetRow]) -> float:
    return max(len(line) for row in rows for line in _label(row).splitlines()) * CHARACTER + 2 * GAP


def _draw_panel(axes: Axes, groups: list[RowGroup], left: float, top: float, tile: int) -> None:
    columns = _column_count(groups)
    lines = [(name, list(_lines(members, columns, tile))) for name, members in groups]
    start = left + _label_width([line[0] for _, members in lines for line in members])
    for name, members in lines:
        if name:
            _write(axes, left, top + HEADING / 2 + 2, name, 9.5, weight="bold")
            top += HEADING
        for line in members:
            for i, row in enumerate(line):
                _draw_row(axes, row, start + 2 * i * (tile + GAP), top, tile)
            top += _height(line[0], tile)


def _draw_row(axes: Axes, row: SheetRow, left: float, top: float, tile: int) -> None:
    """Draw the tiles of a row from `left` on, and its label before them."""
    _write(axes, left - 2 * GAP, top + TEXT + tile / 2, _label(row), 7.5, ha="right", linespacing=1.3)
    for i, (level, pixels) in enumerate(zip(row.levels, row.tiles, strict=True)):
        x, y = left + i % WIDEST * (tile + GAP), top + i // WIDEST * (TEXT + tile + GAP)
        _write(axes, x + tile / 2, y + TEXT / 2, tile_text(row, level), 7.5, ha="center")
        _draw_tile(axes, pixels, round(x), round(y) + TEXT, tile)


def tile_text(row: SheetRow, level: float) -> str:
    """Return the text above a tile, such as `σ=4`, or a bare number where the label of the row names the unit."""
    return f"{row.level_name}={level:g}" if _is_symbol(row) else level_text(row.name, level)


def _is_symbol(row: SheetRow) -> bool:
    """Return whether the levels of a row are written as `<symbol>=<level>`."""
    return row.name not in UNITS and any(row.levels) and len(row.level_name) == 1 and row.level_name.isalpha()


def _label(row: SheetRow) -> str:
    """Return the name of a row in lines that fit, and the unit of levels that are bare numbers."""
    lines = list(wrapped(plain(row.name), LONGEST_LINE))
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], lines[MOST_LINES - 1][: LONGEST_LINE - 1] + "…"]
    bare = row.name not in UNITS and any(row.levels) and not _is_symbol(row) and row.level_name != "level"
    return "\n".join([*lines, *([f"({plain(row.level_name)})"] if bare else [])])


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes, whose unit is the pixel and whose origin is the upper left corner."""
    wide, high = round(width), round(height)
    figure = Figure(figsize=(wide / DPI, high / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, wide), ylim=(high, 0), autoscale_on=False)
    return figure, axes


def _draw_tile(axes: Axes, pixels: np.ndarray, x: int, y: int, tile: int) -> None:
    """Draw an image with its upper left corner at (x, y), reduced to the side of a tile where it is larger."""
    height, width = pixels.shape[:2]
    if height > tile:
        whole = (0.0, 0.0, float(width), float(height))
        pixels = images.resample(images.Decoded(pixels, 0, 0, width, height, whole), whole, tile)
    extent = (x, x + tile, y + tile, y)
    axes.imshow(pixels, extent=extent, interpolation="nearest", aspect="auto", origin="upper", zorder=1)


def _write(axes: Axes, x: float, y: float, text: str, size: float, **style: Any) -> None:
    # A dollar sign in a name begins no formula.
    axes.text(x, y, text, fontsize=size, va="center", parse_math=False, **style)


def _save(figure: Figure, out: Path, step: int) -> None:
    """Write the figure: a PNG with rounded values, other formats without the date, so that files can be compared."""
    if out.suffix.lower() != ".png":
        figure.savefig(out, metadata={"CreationDate" if out.suffix.lower() == ".pdf" else "Date": None})
        return
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba")
    width, height = (round(side * DPI) for side in figure.get_size_inches())
    images.write_png(out, np.frombuffer(buffer.getvalue(), np.uint8).reshape(height, width, 4)[..., :3], step)
