"""What a network expects of its input: its size, its normalisation, and how an image becomes it."""

import dataclasses
import math
from dataclasses import dataclass, replace
from typing import Any

from cnnsens_bench.images.published import PublishedView

BOX, PUBLISHED = "box", "published"
"""The two ways to view an image: its box, or what the network's own library evaluates with."""


@dataclass(frozen=True)
class Preprocessing:
    """What an architecture expects of its input.

    Attributes
    ----------
    input_size : int
        The side of its square input in pixels.
    mean, std : tuple of float
        The mean and the standard deviation of each RGB channel, for values in [0, 1]. A source that cannot know them
        describes a network with `UNKNOWN_COLOURS`, and an unknown input size is 0: the user must then say them.
    view : PublishedView or None
        How the network's own library resizes and crops an image; None for its box, resized to the square.
    """

    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    view: PublishedView | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values by name. A view of the box is left out, as it was before there was another."""
        values = dataclasses.asdict(self)
        return values if self.view else {key: values[key] for key in values if key != "view"}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """Return the preprocessing of which `as_dict` gave the values. Raises `KeyError` or `TypeError`."""
        view = values.get("view")
        if view is not None:
            view = PublishedView(**{**view, "fill": tuple(view["fill"])})
        return cls(values["input_size"], tuple(values["mean"]), tuple(values["std"]), view)


Colours = tuple[float, float, float]
"""A mean or a standard deviation of each RGB channel, for values in [0, 1]."""

UNKNOWN_COLOURS: Colours = (math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class GivenInput:
    """What a user says of a network's input, in place of what its source knows; None for the latter.

    Attributes
    ----------
    mean, std : tuple of float or None
        As in `Preprocessing`.
    resize : int or None
        What the shorter side is resized to before the middle is cropped, in pixels. It counts in the published view.
    interpolation : str or None
        How it is resized: one of `cnnsens_bench.images.published.INTERPOLATIONS`.
    """

    mean: Colours | None = None
    std: Colours | None = None
    resize: int | None = None
    interpolation: str | None = None

    def over(self, known: Preprocessing) -> Preprocessing:
        """Return a preprocessing with what is said here in place of its own.

        Examples
        --------
        >>> known = Preprocessing(224, (0, 0, 0), (1, 1, 1), PublishedView(224))
        >>> GivenInput(resize=256, interpolation="bilinear").over(known).view.describe()
        'shorter side to 256 px, bilinear, then the central 224 px'
        """
        view = known.view
        if view and self.resize:
            view = replace(view, resize="shorter", resize_to=self.resize)
        if view and self.interpolation:
            view = replace(view, interpolation=self.interpolation)
        return replace(known, mean=self.mean or known.mean, std=self.std or known.std, view=view)


AS_KNOWN = GivenInput()
"""Nothing is said in place of what the source knows."""
