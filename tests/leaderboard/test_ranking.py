"""Which entrants are ranked on boards whose entrants were measured under different conditions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnsens_bench.store import Store
from leaderboard.aggregate import boards
from leaderboard.page import data
from leaderboard.ranking import BoardEntrant, rank, ranked_conditions
from leaderboard.read import read
from tests.figures.study import LEVELS, paper_store
from tests.leaderboard.made import sweep, write


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    store = paper_store(Store(tmp_path_factory.mktemp("paper")))
    assert isinstance(store.path, Path)
    return next(one for one in data(read([store.path]), "torchvision/alexnet")["boards"] if one["dataset"] == "cub200")


def test_a_page_of_the_paper_ranks_the_architectures(birds: dict[str, Any]) -> None:
    ranked = {(one["model"], one["defense"]) for one in birds["entrants"] if "mean_degraded_accuracy" in one["ranks"]}
    assert ranked == {("torchvision/alexnet", "none"), ("torchvision/vgg19", "none")}
    shared = {birds["conditions"][i]["degradation"] for i in birds["ranked"]}
    assert shared == set(LEVELS)


def sets(**groups: tuple[int, int]) -> tuple[dict[int, frozenset[int]], set[int]]:
    """Return nested sets of conditions for groups `<name>=(entrants, degraded conditions)`, and who is undefended.

    Condition 0 is the undegraded one. The groups whose names begin with `filter` have a defense.
    """
    made: dict[int, frozenset[int]] = {}
    undefended: set[int] = set()
    for name, (count, size) in groups.items():
        ids = range(len(made), len(made) + count)
        made |= dict.fromkeys(ids, frozenset(range(size + 1)))
        undefended |= set() if name.startswith("filter") else set(ids)
    return made, undefended


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ({"networks": (3, 37), "deeper": (4, 22), "filters": (5, 8), "one": (1, 39)}, 37),
        ({"networks": (1, 10), "others": (9, 4)}, 4),  # 10 × 16 against 1 × 100
        ({"networks": (1, 20), "others": (3, 10)}, 20),  # a tie, which the larger set wins
        ({"filters": (4, 2), "filters_more": (1, 3)}, 2),  # without undefended networks all entrants count
        ({"networks": (2, 0)}, 0),
    ],
)
def test_the_conditions_that_are_ranked(groups: dict[str, tuple[int, int]], size: int) -> None:
    made, undefended = sets(**groups)
    assert ranked_conditions(made, undefended, frozenset({0})) == frozenset(range(size + 1))


def test_equals_do_not_depend_on_the_order() -> None:
    pair = [frozenset({0, 1, 3}), frozenset({0, 1, 2})]
    for order in (pair, pair[::-1]):
        assert ranked_conditions(dict(enumerate(order)), {0, 1}, frozenset({0})) == {0, 1, 2}


def entrant(number: int, value: float, samples: np.ndarray | None) -> BoardEntrant:
    """Return an entrant with a mean degraded accuracy and its resamples, whose interval is 0.2 wide."""
    name = "mean_degraded_accuracy"
    stats = {name: (value, value - 0.1, value + 0.1)}
    resampled = {} if samples is None else {name: np.array([value, *samples])}
    return BoardEntrant(number, 200, [0], {}, {}, {}, stats, None, [], samples=resampled)


def ranks(entrants: list[BoardEntrant]) -> list[tuple[int, int]]:
    rank(entrants)
    return [one.ranks["mean_degraded_accuracy"] for one in entrants]


def test_entrants_are_ranked_by_their_paired_differences() -> None:
    """The images move two entrants alike and the third one differently, which alone is tied."""
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0, 0.05, (2, 1000))
    made = [entrant(0, 0.70, 0.70 + shared), entrant(1, 0.60, 0.60 + shared), entrant(2, 0.62, 0.62 + own)]
    assert ranks(made) == [(1, 2), (2, 3), (1, 3)]


def test_without_resamples_entrants_are_ranked_by_their_intervals() -> None:
    assert ranks([entrant(0, 0.70, None), entrant(1, 0.60, None), entrant(2, 0.45, None)]) == [(1, 2), (1, 3), (2, 3)]


def test_the_samples_of_an_entrant_keep_no_others_in_memory(tmp_path: Path) -> None:
    path = write(tmp_path, sweep("r1", "d", range(5), 0, ("timm/b",), ("none",)), {"r1": "p"})
    [board] = boards(read([path]), "torchvision/alexnet")
    samples = board.entrants[0].samples
    assert len(samples) > 5
    assert all(values.base is None for values in samples.values())
