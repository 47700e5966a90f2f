"""What was measured of a camera: the JSON file that `camera --json` writes, and that runs, figures and pages read."""

import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import plain

VERSION = 1
DIGITS = 4
"""The significant digits of the numbers in the file."""


class _Strict(BaseModel):
    """A part of the file; unknown keys, infinities and numbers written as text are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Measurement(_Strict):
    """A measured number with its 95 % interval; the bounds are None where nothing can be said about them.

    Examples
    --------
    >>> Measurement.of(8.12345, 7.9, math.inf)
    Measurement(value=8.123, low=7.9, high=None)
    """

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, value: float, low: float = math.nan, high: float = math.nan) -> "Measurement":
        """Return the measurement with numbers rounded to `DIGITS`; bounds that are not finite become None."""
        bounds = (rounded(bound) if math.isfinite(bound) else None for bound in (low, high))
        return cls(value=rounded(value), low=next(bounds), high=next(bounds))

    @model_validator(mode="after")
    def _ordered(self) -> "Measurement":
        low, high = self.span
        if not low <= self.value <= high:
            raise ValueError(f"the interval from {low:g} to {high:g} does not have the value {self.value:g} in it")
        return self

    @property
    def span(self) -> tuple[float, float]:
        """The interval, in which the value stands for a bound that is not known."""
        low, high = (self.value if bound is None else bound for bound in (self.low, self.high))
        return low, high


class BrightnessNoise(_Strict):
    """The standard deviation of noise in gray levels where the picture has a brightness, in [0, 255]."""

    brightness: float
    photographs: int
    red: Measurement
    green: Measurement
    blue: Measurement
    intensity: Measurement


class MixMember(_Strict):
    """A degradation, as a config writes it, and its level; None where its arguments say all."""

    degradation: str
    level: float | None = None

    @property
    def expression(self) -> str:
        """The member as a config writes it.

        Examples
        --------
        >>> MixMember(degradation="jpeg", level=80.0).expression
        'jpeg(80)'
        """
        return self.degradation if self.level is None else f"{self.degradation}({self.level:g})"


class CameraReport(_Strict):
    """What was measured of a camera.

    Attributes
    ----------
    version : int
        The version of this layout.
    name : str
        What the user calls the camera.
    camera : str or None
        The camera's model, where all photographs name the same.
    photographs : int
        How many photographs were measured.
    input_size : int or None
        The side of the network's input that the photographs were resized to; None for pictures as they are.
    measurements : dict
        Each measured quantity by its name, in the unit that `docs/howto/my-camera.md` lists.
    noise_by_brightness : list of BrightnessNoise
        The noise in each range of brightness in which enough was found.
    levels : dict
        For each degradation that stands for something that was measured: the camera's level.
    mix : list of MixMember
        The degradations that make of an undegraded photograph one of this camera, in order.
    notes : list of str
        What cannot be told, and what to be careful about: a sentence each.
    """

    version: int = VERSION
    name: str
    camera: str | None = None
    photographs: int
    input_size: int | None = None
    measurements: dict[str, Measurement]
    noise_by_brightness: list[BrightnessNoise] = []
    levels: dict[str, Measurement]
    mix: list[MixMember]
    notes: list[str] = []

    @field_validator("version")
    @classmethod
    def _known(cls, version: int) -> int:
        if version != VERSION:
            raise ValueError(f"it is {version}, and this program reads version {VERSION}")
        return version

    @property
    def expression(self) -> str:
        """The mix as one chain, as a config writes it and as the database names it. It is empty where the mix is."""
        return " + ".join(member.expression for member in self.mix)

    def json_text(self) -> str:
        """Return the content of the file."""
        return self.model_dump_json(indent=1, exclude_none=True) + "\n"


def rounded(number: float, digits: int = DIGITS) -> float:
    """Return a number rounded to significant digits.

    Examples
    --------
    >>> rounded(0.0123456), rounded(12345.6, 3)
    (0.01235, 12300.0)
    """
    return float(f"{number:.{digits}g}")


def read_report(path: str | Path) -> CameraReport:
    """Read a file that `camera --json` wrote.

    Parameters
    ----------
    path
        The file, in which `~` is the user's home folder.

    Raises
    ------
    UserError
        If the file cannot be read or is not of that kind.
    """
    file = Path(path).expanduser()
    remedy = "write one with cnnsens-bench camera photos/ --json FILE"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"the camera's file {plain(str(file))} cannot be read ({error.strerror}): {remedy}") from None
    try:
        return CameraReport.model_validate_json(content)
    except ValidationError as error:
        [first, *_] = error.errors(include_url=False)
        at = ".".join(map(str, first["loc"]))
        reason = plain(f"{at}: {first['msg']}" if at else str(first["msg"]))
        raise UserError(f"{plain(str(file))} is no file of a camera ({reason}): {remedy}") from None


def read_mix(path: str | Path) -> str:
    """Return the mix of a camera's file as one chain. Raise `UserError` where the file has none."""
    report = read_report(path)
    if not report.mix:
        raise UserError(
            f"the camera of {plain(str(path))} has an empty mix, since nothing was found that degrades its "
            "photographs: name degradations yourself"
        )
    return report.expression


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the file."""
    return CameraReport.model_json_schema()
