"""How degradations, levels and hostile text are written for a person to read."""

from collections.abc import Iterator, Mapping
from typing import Any

UNITS = {
    **dict.fromkeys(("gaussian_rgb", "gaussian_intensity", "saturation", "hue_global", "hue_local"), ("σ={}", "")),
    **dict.fromkeys(("pepper", "pepper_pixel"), ("p={}", "")),
    "translation": ("σ={}", ", σ in pixels of the network's input"),
    "rotation": ("±{}°", ""),
    **dict.fromkeys(("radial_distortion", "rolling_exposure"), ("{} %", "")),
    "shot_noise": ("{} e⁻", ", electrons at white"),
    "white_balance": ("{} K", ""),
    "bayer": ("{} px", ", width of a sensor's pixel in pixels of the network's input"),
    "jpeg": ("q={}", ""),
}
"""How the paper's degradations write a level, and what their titles add; others' levels are bare numbers."""


def level_text(degradation: str, level: float) -> str:
    """A level as a column heading: `σ=4`, `p=0.04`, `±45°`; empty for what has no level."""
    form, _ = UNITS.get(degradation, ("{}" if level else "", ""))
    return form.format(f"{level:g}")


def plain(text: str) -> str:
    """Escapes what would steer a terminal or tear a table (line ends, ANSI codes, changes of direction)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def flatten_mapping(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings with dotted keys; an empty mapping inside is a value.

    Examples
    --------
    >>> dict(flatten_mapping({"seed": 0, "dataset": {"name": "plumage", "options": {}}}))
    {'seed': 0, 'dataset.name': 'plumage', 'dataset.options': {}}
    """
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from flatten_mapping(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
