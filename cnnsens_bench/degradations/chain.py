"""Several degradations in order (paper, section 5: "intensity σ=4 with pepper p=0.02")."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from torch import Tensor

from cnnsens_bench.degradations.base import Degradation, StoredPicture
from cnnsens_bench.degradations.motion import Motion, Reach
from cnnsens_bench.degradations.streams import Streams
from cnnsens_bench.utils.errors import UserError


@dataclass(frozen=True)
class ChainMember:
    """A degradation at a fixed level, or at the level of the sweep (None)."""

    degradation: Degradation
    level: float | None

    def level_at(self, sweep_level: float) -> float:
        """Return the member's level when the sweep is at `sweep_level`."""
        return sweep_level if self.level is None else self.level


@dataclass(frozen=True)
class Chain(Degradation):
    """Members that follow one another; pixels are clamped to [0, 255] between them, as each expects its input.

    A member draws the same numbers as it does alone, so a chain is paired with its members; only where a name occurs
    again does it draw others. Geometric members come first, because they move the box over the undegraded photograph;
    so does a stored picture, which takes the photograph's place.
    """

    members: tuple[ChainMember, ...] = ()

    @property
    def random(self) -> bool:
        return any(member.degradation.random for member in self.members)

    @property
    def as_stored(self) -> bool:
        return all(member.degradation.as_stored for member in self.members)

    def draw(self, streams: Streams, size: int, key: str | None = None) -> tuple[Any, ...]:
        seen: Counter[str] = Counter()
        draws = []
        for member in self.members:
            name = member.degradation.name
            seen[name] += 1
            draws.append(member.degradation.draw(streams, size, name if seen[name] == 1 else f"{name}#{seen[name]}"))
        return tuple(draws)

    def apply(self, pixels: Tensor, draw: Any, level: float) -> Tensor:
        changed = False
        for member, own_draw in zip(self.members, draw, strict=True):
            if not member.degradation.geometric:
                clamped = pixels.clamp(0, 255) if changed else pixels
                pixels = member.degradation.apply(clamped, own_draw, member.level_at(level))
                changed = True
        return pixels

    def motion(self, draw: Any, level: float) -> Motion:
        total = Motion()
        for member, own_draw in zip(self.members, draw, strict=True):
            if member.degradation.geometric:
                total = total.then(member.degradation.motion(own_draw, member.level_at(level)))
        return total

    def picture(self, level: float) -> StoredPicture | None:
        first = self.members[0]
        return first.degradation.picture(first.level_at(level))

    def reach(self, level: float) -> Reach:
        reaches = [member.degradation.reach(member.level_at(level)) for member in self.members]
        # Turns are about the centre of the moved box, so a shift and a turn together reach no further than one after
        # the other. Bends add, and a bend of b reaches to a radius of 1 / (1 − b).
        radius = max(reach.radius for reach in reaches)
        bend = sum(1 - 1 / reach.radius for reach in reaches if reach.radius > 1)
        if bend:
            radius = max(radius, 1 / (1 - bend)) if bend < 1 else float("inf")
        return Reach(sum(reach.shift for reach in reaches), radius)


def chain(members: Sequence[ChainMember], name: str) -> Degradation:
    """Return the members as one degradation; a single member without a fixed level is returned as it is.

    Parameters
    ----------
    members
        In their order; at most one is swept over levels, and geometric ones or a stored picture come first.
    name
        The canonical name of the chain.

    Raises
    ------
    UserError
        If the members cannot follow one another.
    """
    if len(members) == 1 and members[0].level is None:
        return members[0].degradation
    swept = [member.degradation for member in members if member.level is None and member.degradation.has_levels]
    _check_order(members, swept, name)
    base = swept[0] if swept else Degradation(name, _no_function, None, ())
    filled = [replace(m, level=0.0) if m.level is None and not m.degradation.has_levels else m for m in members]
    limits = {key: getattr(base, key) for key in ("levels", "level_name", "low", "high", "whole", "needs_levels")}
    geometric = members[0].degradation.geometric
    return Chain(name, _no_function, None, geometric=geometric, members=tuple(filled), **limits)


def _check_order(members: Sequence[ChainMember], swept: Sequence[Degradation], name: str) -> None:
    """Raise `UserError` if two members are swept, or one that must come first follows another."""
    if len(swept) > 1:
        raise UserError(
            f"degradation '{name}': only one member can be swept over levels; give '{swept[0].name}' or "
            f"'{swept[1].name}' a fixed level, as in gaussian_intensity(4) + pepper(0.02)"
        )
    for before, member in pairwise(members):
        if member.degradation.as_stored:
            raise UserError(
                f"degradation '{name}': '{member.degradation.name}' takes the place of the image: put it first, and no "
                "other pre-made picture and no motion of the view beside it"
            )
        if member.degradation.geometric and before.degradation.as_stored:
            raise UserError(
                f"degradation '{name}': '{member.degradation.name}' moves the view over the undegraded photograph, "
                f"which '{before.degradation.name}' replaces: leave one of them out"
            )
        if member.degradation.geometric and not before.degradation.geometric:
            raise UserError(
                f"degradation '{name}': '{member.degradation.name}' moves the box over the undegraded photograph: put "
                "it before the others"
            )


def _no_function(*_: Any) -> Any:
    raise TypeError("a chain is applied by its members")
