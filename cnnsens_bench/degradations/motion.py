"""How geometric degradations move the view of a photograph. `images.py` renders what a motion describes."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

MAX_BEND = 0.5
"""The largest |bend| of a view; at 1 an image would be turned inside out."""


@dataclass(frozen=True)
class Motion:
    """How the views of a batch move, turn and bend in their full images.

    Each parameter is one number for all images, or a tensor (N,).

    Parameters
    ----------
    dx, dy
        Shift of the view's box to the right and down, in pixels of the network's input.
    angle
        Turn about the centre of the moved box, in degrees; the content turns counter-clockwise.
    bend
        Radial distortion with its axis at the centre of the box: Δr / r at the box's corners, in [-0.5, 0.5]. Negative
        values are barrel distortions.
    """

    dx: Tensor | float = 0.0
    dy: Tensor | float = 0.0
    angle: Tensor | float = 0.0
    bend: Tensor | float = 0.0

    def views(self, count: int) -> list[tuple[float, float, float, float]]:
        """Return (dx, dy, angle, bend) for each of `count` images.

        Raises
        ------
        ValueError
            If a view is bent by more than `MAX_BEND`.

        Examples
        --------
        >>> Motion(angle=45.0).views(2)
        [(0.0, 0.0, 45.0, 0.0), (0.0, 0.0, 45.0, 0.0)]
        """
        parts = (self.dx, self.dy, self.angle, self.bend)
        columns = [part.tolist() if isinstance(part, Tensor) else [float(part)] * count for part in parts]
        most = max(map(abs, columns[3]), default=0.0)
        if most > MAX_BEND + 1e-6:
            raise ValueError(f"it bends by {100 * most:g} % in all: {100 * MAX_BEND:g} % is the most")
        return list(zip(*columns, strict=True))

    def then(self, other: "Motion") -> "Motion":
        """Return both motions as one: shifts and angles add, and small distortions add nearly."""
        return Motion(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


class Reach(NamedTuple):
    """How far outside the box a view can reach, so that enough of the photograph is kept.

    Parameters
    ----------
    shift
        The largest shift beyond the sides of the box, in pixels of the network's input.
    radius
        The largest distance from the centre of the box, in half diagonals of the box: its corners are at 1.
    """

    shift: float = 0.0
    radius: float = 0.0


UNLIMITED = Reach(float("inf"), float("inf"))
