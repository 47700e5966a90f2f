"""How levels of degradations, and text from outside the program, are written for people to read."""

import re
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
"""The form of a level and an addition to titles, for each degradation whose levels are not shown as bare numbers."""


def level_text(degradation: str, level: float) -> str:
    """Return the level of a degradation as a heading; the text is empty for a degradation without levels.

    Examples
    --------
    >>> level_text("gaussian_rgb", 4.0), level_text("rotation", 45.0), level_text("flip_lr", 0.0)
    ('σ=4', '±45°', '')
    """
    form, _ = UNITS.get(degradation, ("{}" if level else "", ""))
    return form.format(f"{level:g}")


def degradation_text(degradation: str) -> str:
    """Return the name of a degradation as people read it, safe to print; the pages' state.js does the same.

    Examples
    --------
    >>> degradation_text("common:fog"), degradation_text("stored:fog(3) + pepper")
    ('common:fog', 'fog(3) (stored) + pepper')
    """
    return plain(re.sub(r"\bstored:(\w+(?:\([^)]*\))?)", r"\1 (stored)", degradation))


def plain(text: str) -> str:
    """Return a text with all characters escaped that would control a terminal or break a table.

    Such characters are line ends, ANSI codes and marks that change the direction of text.

    Examples
    --------
    >>> print(plain("red\\x1b[31m\\nnext"))
    red\\x1b[31m\\nnext
    """
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


def share_span(low: float, high: float) -> str:
    """Return two shares in per cent, or one of them where they do not differ when they are rounded.

    Examples
    --------
    >>> share_span(0.1, 0.1001), share_span(0.1, 1.0)
    ('10.0 %', '10.0 to 100.0 %')
    """
    return " to ".join(dict.fromkeys(f"{100 * share:.1f}" for share in (low, high))) + " %"


def duration(hours: float) -> str:
    """Return a time in the unit that fits it.

    Examples
    --------
    >>> duration(0.2), duration(2.5)
    ('12.0 minutes', '2.5 hours')
    """
    if hours >= 1:
        return f"{hours:,.1f} hours"
    return f"{60 * hours:.1f} minutes" if hours >= 1 / 60 else f"{3600 * hours:.1f} seconds"
