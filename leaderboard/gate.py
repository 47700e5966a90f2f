"""Decides for continuous integration whether an entrant is worse than another by more than a margin.

The comparison that it follows is in compare.py, and the tests are in significance.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cnnsens_bench.measures import accuracy_gain
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import plain
from leaderboard.conditions import condition_text
from leaderboard.junit import JunitCase, write_junit
from leaderboard.pairing import NOUNS, PairedBoard, PairRequest
from leaderboard.significance import ALPHA, holm, margin_p, worse_p

SHOWN = 5
"""The number of undecided conditions that the terminal lists."""


@dataclass(frozen=True)
class GateCheck:
    """What a gate finds under one condition.

    Parameters
    ----------
    board
        The protocol and the data set.
    degradation, level, n_images
        The condition, and the number of paired images.
    gain, low, high
        By how much the second entrant is better, as a share, with its 95 % interval.
    p, p_holm
        The p-value of the hypothesis that the second entrant is worse by at most the margin, and the same corrected for
        the number of conditions of all boards.
    outcome
        `worse`: it is worse by more than the margin, with corrected confidence. `holds`: it is not, with a confidence
        that is not corrected. `undecided`: neither can be said.
    """

    board: tuple[str, str]
    degradation: str
    level: float
    n_images: int
    gain: float
    low: float
    high: float
    p: float
    p_holm: float
    outcome: Literal["worse", "holds", "undecided"]

    @property
    def text(self) -> str:
        """The condition with the gain and its interval, in points."""
        gain, low, high = (100 * share for share in (self.gain, self.low, self.high))
        condition = condition_text(self.degradation, self.level)
        return f"{condition} ({gain:+.1f} [{low:+.1f}, {high:+.1f}], {self.n_images} images)"


def check(boards: Sequence[PairedBoard], margin: float, measure: str = "accuracy") -> list[GateCheck]:
    """Test under every condition whether the second entrant is worse than the first by more than a margin.

    Parameters
    ----------
    boards
        The pairs of the two entrants.
    margin
        In [0, 1].
    measure
        What the pairs have: `accuracy`, of which more is better, or `label_change`, of which less is better.

    Returns
    -------
    list of GateCheck
        One for each condition, in the order of `boards`. Holm's correction is over all of them.
    """
    sign = 1 if measure == "accuracy" else -1
    pairs = [((board.protocol, board.dataset), own) for board in boards for own in board.conditions]
    gains = [sign * (own.second - own.first) for _, own in pairs]
    p = [worse_p(own_gains, own.trials, margin) for own_gains, (_, own) in zip(gains, pairs, strict=True)]
    rows = []
    for (board, own), own_gains, raw, corrected in zip(pairs, gains, p, holm(p), strict=True):
        better, worse = (own.second, own.first) if sign > 0 else (own.first, own.second)
        gain = accuracy_gain(own.image, better, worse)
        holds = 1 - margin_p(own_gains, margin) < ALPHA
        outcome: Any = "worse" if corrected < ALPHA else "holds" if holds else "undecided"
        rows.append(
            GateCheck(
                board, own.degradation, own.level, len(own.image), gain.value, gain.low, gain.high, raw, corrected,
                outcome,
            )
        )  # fmt: skip
    return rows


@dataclass(frozen=True)
class Decision:
    """What a gate decides from its checks.

    Parameters
    ----------
    request
        The two entrants, and over what they are compared.
    margin
        By how much the second entrant may be worse, as a share.
    checks
        What was found under each condition.
    """

    request: PairRequest
    margin: float
    checks: list[GateCheck]

    @property
    def failed(self) -> bool:
        """Whether the second entrant is worse by more than the margin under any condition."""
        return any(one.outcome == "worse" for one in self.checks)

    @property
    def rule(self) -> str:
        """The sentence that says what is asked of the second entrant."""
        return (
            f"Gate: {NOUNS[self.request.measure]} of B may be at most {_points(self.margin)} worse than A's; "
            f"{100 * (1 - ALPHA):g} % confidence over {len(self.checks)} conditions (Holm)."
        )

    def sentences(self) -> list[str]:
        """Return what the terminal prints: what is asked, where it fails, what is undecided, and the decision.

        Differences are by how many points B is better, so that those of a worse B are negative.
        """
        worse, holds, undecided = (
            [one for one in self.checks if one.outcome == outcome] for outcome in ("worse", "holds", "undecided")
        )
        found = [f"Worse under {one.text}: corrected p = {one.p_holm:.2g}." for one in worse]
        if undecided:
            listed = ", ".join(one.text for one in sorted(undecided, key=lambda one: one.gain)[:SHOWN])
            more = f", and {len(undecided) - SHOWN} more" if len(undecided) > SHOWN else ""
            found.append(f"Not decided, which more images would change: {listed}{more}.")
        counts = f"{len(worse)} worse, {len(holds)} not worse, {len(undecided)} not decided"
        verdict = "FAILED" if self.failed else "Passed"
        return [self.rule, *found, f"{verdict}. Conditions: {counts}."]

    def as_json(self, board: PairedBoard) -> dict[str, Any]:
        """Return the decision, and the checks of a board, in the types of JSON."""
        return {
            "failed": self.failed,
            "fail_below": -100 * self.margin,
            "alpha": ALPHA,
            "tested": len(self.checks),
            "checks": [
                {name: value for name, value in vars(one).items() if name != "board"}
                for one in self.checks
                if one.board == (board.protocol, board.dataset)
            ],
        }


@dataclass(frozen=True)
class Gate:
    """What is asked of the second entrant, and where the decision is written.

    Parameters
    ----------
    fail_below
        The gain, in points and at most 0, below which the second entrant fails: -1 allows a loss of one point.
    junit
        A file that gets the checks as JUnit XML.
    """

    fail_below: float
    junit: Path | None = None

    def decide(self, boards: Sequence[PairedBoard], request: PairRequest) -> Decision:
        """Check all conditions of two entrants, and write the file of JUnit XML.

        Raises
        ------
        UserError
            Where `fail_below` is no number of points in [-100, 0], or the file cannot be written.
        """
        if not -100 <= self.fail_below <= 0:
            raise UserError(
                f"--fail-below {self.fail_below:g} is no margin: it takes a number of points from -100 to 0, such as -1"
            )
        margin = abs(self.fail_below) / 100
        decision = Decision(request, margin, check(boards, margin, request.measure))
        if self.junit:
            suite = f"{plain(request.second)} against {plain(request.first)}"
            write_junit(self.junit, suite, _test_cases(decision), _notes(decision, boards))
        return decision


def _points(share: float) -> str:
    return f"{100 * share:g} point{'' if share == 0.01 else 's'}"


def _test_cases(decision: Decision) -> list[JunitCase]:
    return [
        JunitCase(
            f"{plain(one.board[1])}, protocol {plain(one.board[0])}",
            condition_text(one.degradation, one.level),
            {"worse": "failure", "undecided": "skipped"}.get(one.outcome),
            f"{one.text}: corrected p = {one.p_holm:.2g}",
        )
        for one in decision.checks
    ]


def _notes(decision: Decision, boards: Sequence[PairedBoard]) -> list[str]:
    return [decision.rule, *(sentence for board in boards for sentence in board.left_out)]
