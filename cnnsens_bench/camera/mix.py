"""Chooses the degradations that make of an undegraded photograph one of the camera that was measured."""

import math
from collections.abc import Mapping

from cnnsens_bench.camera.report import Measurement, MixMember, rounded

DIGITS = 3
"""The significant digits of levels in a mix, so that its name in the database stays short."""
LEAST_BLUR = 1.0
"""The blur in pixels from which it is part of a mix; undegraded photographs have edges nearly as soft."""
LEAST_NOISE = 0.5
"""The standard deviation in gray levels that noise must surely exceed."""
LEAST_PART = 0.15
"""The share of the variance from which noise that channels share, or do not share, is a member of its own."""
LEAST_BLACK = 0.0005
"""The share of black pixels that must surely be exceeded: eyes and hairs are black too."""
LEAST_COLOUR = 500.0
"""By how many kelvin the light must surely be off daylight: what photographs show has a colour too."""
BEST_QUALITY = 95.0
"""The highest JPEG quality that is part of a mix."""
BLUR = "albumentations:GaussianBlur(blur_limit=0, sigma_limit=({0!r}, {0!r}))"


def mix_of(measurements: Mapping[str, Measurement], levels: Mapping[str, Measurement]) -> list[MixMember]:
    """Return the degradations of a camera in the order in which light, sensor and file have them.

    What is so small that undegraded photographs have it too is left out.

    Parameters
    ----------
    measurements, levels
        As in `CameraReport`.

    Examples
    --------
    >>> levels = {"gaussian_rgb": Measurement.of(8.0), "gaussian_intensity": Measurement.of(4.62)}
    >>> [member.expression for member in mix_of({}, levels | {"jpeg": Measurement.of(80)})]
    ['gaussian_rgb(8)', 'jpeg(80)']
    """
    members = []
    blur = measurements.get("blur")
    if blur and blur.value >= LEAST_BLUR:
        members.append(MixMember(degradation=BLUR.format(rounded(blur.value, DIGITS))))
    light = levels.get("white_balance")
    if light and light.low is not None and light.high is not None and max(light.low, -light.high) >= LEAST_COLOUR:
        members.append(_member("white_balance", light.value))
    members += _noise(levels)
    for name in ("pepper_pixel", "pepper"):
        black = levels.get(name)
        if black and black.low is not None and black.low > LEAST_BLACK:
            members.append(_member(name, black.value))
    quality = levels.get("jpeg")
    if quality and quality.value <= BEST_QUALITY:
        members.append(MixMember(degradation="jpeg", level=float(round(quality.value))))
    return members


def _noise(levels: Mapping[str, Measurement]) -> list[MixMember]:
    """Return the noise, divided into what the three channels share and what each has of its own.

    If the shared part has the variance c and the own part o, a channel has c + o and the intensity c + o/3.
    """
    if "gaussian_rgb" not in levels or levels["gaussian_rgb"].span[0] < LEAST_NOISE:
        return []
    channel, intensity = (levels[name].value ** 2 for name in ("gaussian_rgb", "gaussian_intensity"))
    own = min(max(1.5 * (channel - intensity), 0.0), channel)
    shared = channel - own
    if shared < LEAST_PART * channel:
        return [_member("gaussian_rgb", math.sqrt(channel))]
    if own < LEAST_PART * channel:
        return [_member("gaussian_intensity", math.sqrt(channel))]
    return [_member("gaussian_intensity", math.sqrt(shared)), _member("gaussian_rgb", math.sqrt(own))]


def _member(name: str, level: float) -> MixMember:
    return MixMember(degradation=name, level=rounded(level, DIGITS))
