"""Several degradations in order (paper, section 5: "intensity σ=4 with pepper p=0.02")."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from cnnsens_bench.degradations.base import Degradation, Motion, Reach
from cnnsens_bench.degradations.streams import Streams
from cnnsens_bench.utils.errors import UserError


@dataclass(frozen=True)
class Member:
    """A degradation at a fixed level, or at the level of the sweep (None)."""

    degradation: Degradation
    level: float | None

    def at(self, level: float) -> float:
        """Its level where the sweep's is `level`."""
        return level if self.level is None else self.level


@dataclass(frozen=True)
class Chain(Degradation):
    """The members one after the other, clamped to [0, 255] between them, as each expects its input.

    A member's draw is the one it has on its own (the second of a name has another), so a chain is paired with its
    members. Geometric members come first: they move the box over the undegraded photograph.
    """

    members: tuple[Member, ...] = ()

    @property
    def random(self) -> bool:
        return any(member.degradation.random for member in self.members)

    def draw(self, streams: Streams, size: int, key: str | None = None) -> tuple[Any, ...]:
        seen: Counter[str] = Counter()
        draws = []
        for member in self.members:
            name = member.degradation.name
            seen[name] += 1
            draws.append(member.degradation.draw(streams, size, name if seen[name] == 1 else f"{name}#{seen[name]}"))
        return tuple(draws)

    def apply(self, pixels: Tensor, draw: Any, level: float) -> Tensor:
        begun = False
        for member, own in zip(self.members, draw, strict=True):
            if not member.degradation.geometric:
                pixels = member.degradation.apply(pixels.clamp(0, 255) if begun else pixels, own, member.at(level))
                begun = True
        return pixels

    def motion(self, draw: Any, level: float) -> Motion:
        total = Motion()
        for member, own in zip(self.members, draw, strict=True):
            if member.degradation.geometric:
                total = total.then(member.degradation.motion(own, member.at(level)))
        return total

    def reach(self, level: float) -> Reach:
        reaches = [member.degradation.reach(member.at(level)) for member in self.members]
        # A turn about the moved box's centre: both at once reach no further than one after the other. Bends add, and
        # one of b reaches to 1 / (1 − b).
        radius = max(reach.radius for reach in reaches)
        bend = sum(1 - 1 / reach.radius for reach in reaches if reach.radius > 1)
        if bend:
            radius = max(radius, 1 / (1 - bend)) if bend < 1 else float("inf")
        return Reach(sum(reach.shift for reach in reaches), radius)


def chain(members: Sequence[Member], name: str) -> Degradation:
    """The members as one degradation called `name`. Raises `UserError` where they cannot follow each other."""
    if len(members) == 1 and members[0].level is None:
        return members[0].degradation
    swept = [member.degradation for member in members if member.level is None and member.degradation.has_levels]
    if len(swept) > 1:
        raise UserError(
            f"degradation '{name}': only one member can be swept over levels; give '{swept[0].name}' or "
            f"'{swept[1].name}' a fixed level, as in gaussian_intensity(4) + pepper(0.02)"
        )
    kinds = [member.degradation.geometric for member in members]
    if kinds != sorted(kinds, reverse=True):
        late = next(m.degradation.name for before, m in zip(kinds, members[1:], strict=False)
                    if not before and m.degradation.geometric)  # fmt: skip
        raise UserError(
            f"degradation '{name}': '{late}' moves the box over the undegraded photograph: put it before the others"
        )
    base = swept[0] if swept else Degradation(name, _no_function, None, ())
    filled = [replace(m, level=0.0) if m.level is None and not m.degradation.has_levels else m for m in members]
    return Chain(
        name=name,
        function=_no_function,
        draw_function=None,
        levels=base.levels,
        level_name=base.level_name,
        low=base.low,
        high=base.high,
        whole=base.whole,
        needs_levels=base.needs_levels,
        geometric=kinds[0],
        members=tuple(filled),
    )


def _no_function(*_: Any) -> Any:
    raise TypeError("a chain is applied by its members")
