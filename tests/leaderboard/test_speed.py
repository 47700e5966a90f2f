"""Images per second: the interval, the choice of the device, and databases that have no timings."""

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from leaderboard.__main__ import main
from leaderboard.page import data
from leaderboard.read import read
from leaderboard.speed import rate, rates
from tests.leaderboard.made import sweep, timings, write


def test_the_interval_of_equal_batches_is_students() -> None:
    """It equals scipy's interval of the seconds per image, inverted."""
    seconds = np.random.default_rng(0).uniform(0.5, 0.7, 9)
    found = rate(np.full(9, 32), seconds)
    per_image = seconds / 32
    low, high = stats.t.interval(0.95, 8, per_image.mean(), stats.sem(per_image))
    assert found == pytest.approx((1 / per_image.mean(), 1 / high, 1 / low))


def test_the_interval_of_unequal_batches_covers() -> None:
    """With batches of 4 to 32 images, it contains the true rate in about 95 % of repetitions."""
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(800):
        images = rng.integers(4, 33, 12)
        value, low, high = rate(images, 0.02 * images * rng.uniform(0.7, 1.3, 12))
        assert low < value < high
        inside += low <= 50 <= high
    assert 0.91 <= inside / 800 <= 0.98


def test_too_few_batches_have_no_interval() -> None:
    value, low, high = rate(np.array([32]), np.array([0.5]))
    assert value == 64
    assert np.isnan([low, high]).all()
    # These two batches are so unlike that they allow any speed.
    assert np.isnan(rate(np.array([1, 1]), np.array([0.1, 9.0]))[1:]).all()
    assert np.isnan(rate(np.array([5]), np.array([0.0]))).all()


def test_the_device_with_most_images_counts() -> None:
    batches = pd.DataFrame(
        [(0, "a", 1.0, 30, 3.0), (0, "a", 2.0, 40, 2.0), (0, "b", np.nan, 39, 1.0), (1, "b", np.nan, 10, 0.5)],
        columns=["entrant", "device", "threads", "images", "seconds"],
    )
    found, usual = rates(batches)
    assert {entrant: (device, value[0]) for entrant, (device, value) in found.items()} == {
        0: ("a, 2 threads", 20.0),
        1: ("b", 20.0),
    }
    assert usual == "b"  # it computed 49 images
    assert rates(batches.iloc[:0]) == ({}, None)


@pytest.mark.parametrize("left", ["no table", "no rows"])
def test_databases_without_timings(tmp_path: Path, left: str) -> None:
    """A database may have no timings, alone or beside another that has them."""
    rows = sweep("r", "d", range(6), 0)
    path = write(tmp_path / "a", rows, {"r": "p"})
    if left == "no table":
        with duckdb.connect(str(path)) as connection:
            connection.execute("DROP VIEW leaderboard; DROP TABLE speed")
    (board,) = data(read([path]), "torchvision/alexnet")["boards"]
    assert board["device"] is None
    assert not any("images_per_second" in one["stats"] or one["device"] for one in board["entrants"])
    assert main(["build", "--db", str(path), "--out", str(tmp_path / "site")]) == 0
    other = write(tmp_path / "b", rows, {"r": "p"}, speed=timings(rows))
    (both,) = data(read([path, other]), "torchvision/alexnet")["boards"]
    (alone,) = data(read([other]), "torchvision/alexnet")["boards"]
    assert [one["stats"]["images_per_second"] for one in both["entrants"]] == [
        one["stats"]["images_per_second"] for one in alone["entrants"]
    ]
