"""The level of a measured camera as a vertical band in a panel of curves."""

from matplotlib.axes import Axes

from cnnsens_bench.camera.report import CameraReport
from cnnsens_bench.utils.formatting import plain

COLOUR = "0.35"
LONGEST_NAME = 24
"""How many characters of a camera's name the band shows."""


def draw_camera_band(axis: Axes, report: CameraReport, degradation: str) -> None:
    """Draw the camera's level and its 95 % interval into a panel of curves over the levels of a degradation.

    What lies outside the panel is drawn at its edge, where an arrow says so. Nothing is drawn for a degradation that
    stands for nothing that was measured.

    Parameters
    ----------
    axis
        The panel, whose curves are drawn already.
    report
        What was measured of the camera.
    degradation
        The degradation of the panel.
    """
    level = report.levels.get(degradation)
    if level is None:
        return
    limits = axis.get_xlim()
    left, right = sorted(limits)
    low, high, value = (min(max(bound, left), right) for bound in (*level.span, level.value))
    name = plain(report.name)
    name = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
    beyond = {level.value < left: "← ", level.value > right: "→ "}.get(True, "")
    axis.axvspan(low, high, color=COLOUR, alpha=0.18, lw=0, zorder=0)
    axis.axvline(value, color=COLOUR, lw=1, ls=(0, (4, 2)), zorder=1)
    axis.annotate(
        f"{beyond}{name}",
        (value, 0.98),
        xycoords=axis.get_xaxis_transform(),
        xytext=(3, 0),
        textcoords="offset points",
        rotation=90,
        va="top",
        fontsize=7.5,
        color=COLOUR,
        parse_math=False,
    )
    axis.set_xlim(limits)
