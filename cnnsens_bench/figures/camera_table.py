"""The table of what was measured of a camera, which `python -m cnnsens_bench.camera` prints."""

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from cnnsens_bench.camera.report import CameraReport, Measurement
from cnnsens_bench.figures.summary import table_of
from cnnsens_bench.utils.formatting import level_text, plain
from cnnsens_bench.utils.progress import say

GRAY_LEVELS = "gray levels"
SHARE = "%"
ROWS = {
    "noise_red": ("noise of red", GRAY_LEVELS),
    "noise_green": ("noise of green", GRAY_LEVELS),
    "noise_blue": ("noise of blue", GRAY_LEVELS),
    "noise_intensity": ("noise of intensity", GRAY_LEVELS),
    "noise_wavelet": ("noise and texture, by wavelets", GRAY_LEVELS),
    "noise_offset": ("variance without light", "gray levels²"),
    "noise_slope": ("variance a gray level of light", GRAY_LEVELS),
    "blur": ("blur, σ of a Gaussian", "px"),
    "intensity": ("mean intensity", GRAY_LEVELS),
    "exposure": ("exposure off middle gray", "stops"),
    "clipped_highlights": ("clipped highlights", SHARE),
    "clipped_shadows": ("clipped shadows", SHARE),
    "gain_red": ("gain of red over green", "×"),
    "gain_blue": ("gain of blue over green", "×"),
    "black_pixels": ("black pixels", SHARE),
    "black_values": ("values of 0 in light", SHARE),
    "dead_pixels": ("pixels always dark", SHARE),
    "bright_pixels": ("pixels always bright", SHARE),
    "jpeg_quality": ("JPEG quality", ""),
}
"""Each measured quantity, in the order of the table: what people read, and its unit there."""


def print_camera(console: Console, report: CameraReport) -> None:
    """Print the measurements of a camera, its levels, its mix, and what cannot be told.

    Parameters
    ----------
    console
        Where the table is printed.
    report
        What was measured.
    """
    at = f" at {report.input_size} px" if report.input_size else ""
    subject = report.camera or report.name
    table = table_of(Text(f"{plain(subject)}: {_counted(report.photographs)}{at}"), "with 95 % intervals")
    table.add_column("measured", no_wrap=True)
    for heading in ("value", "from", "to"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for name, (label, unit) in ROWS.items():
        if name in report.measurements:
            scale = 100 if unit == SHARE else 1
            table.add_row(label, *numbers(report.measurements[name], scale), unit)
    for entry in report.noise_by_brightness:
        label = f"noise of intensity at {entry.brightness:g}"
        table.add_row(label, *numbers(entry.intensity), f"{GRAY_LEVELS} ({_counted(entry.photographs)})")
    table.add_section()
    for name, level in report.levels.items():
        table.add_row(Text(name), *numbers(level), level_text(name, level.value).replace(f"{level.value:g}", "…"))
    console.print(table)
    say(console, *_sentences(report))


def numbers(measurement: Measurement, scale: float = 1) -> tuple[str, str, str]:
    """Return a value and the bounds of its interval as they are printed, `?` for an unknown bound.

    Examples
    --------
    >>> numbers(Measurement(value=0.01234, low=0.01), scale=100)
    ('1.23', '1', '?')
    """
    return (
        f"{scale * measurement.value:.3g}",
        *("?" if bound is None else f"{scale * bound:.3g}" for bound in (measurement.low, measurement.high)),
    )  # type: ignore[return-value]


def _counted(photographs: int) -> str:
    return "1 photograph" if photographs == 1 else f"{photographs} photographs"


def _sentences(report: CameraReport) -> Iterator[str]:
    yield from (f"note: {plain(note)}" for note in report.notes)
    yield f"mix: {report.expression}" if report.mix else "mix: nothing that undegraded photographs do not have too"
