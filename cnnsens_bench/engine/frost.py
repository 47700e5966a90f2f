"""The degradations of a sweep by their names, with the ice that it asks for."""

from collections.abc import Iterable, Mapping

from cnnsens_bench.degradations import Degradation, parse_degradation
from cnnsens_bench.degradations.imagenet_c.frost import NAME, photographed_frost
from cnnsens_bench.images.frost import frost_photographs

GENERATED = "generated"
VARIANTS: dict[str, Mapping[str, Degradation]] = {
    GENERATED: {},
    "photographs": {NAME: photographed_frost(frost_photographs)},
}
"""By the config's key `frost`: the degradations that are taken in place of registered ones."""
ANY_SIZE = 16


def degradation_with(frost: str, text: str) -> Degradation:
    """Return the degradation that a text describes; `frost` is a key of `VARIANTS`."""
    return parse_degradation(text, VARIANTS[frost])


def require_photographs(frost: str, degradations: Iterable[str]) -> None:
    """Raise `UserError` if one of the degradations needs photographs of ice, and this machine has none."""
    if frost != GENERATED and any(NAME in text for text in degradations):
        frost_photographs(ANY_SIZE)
