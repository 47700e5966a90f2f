"""Boards that lack something show a page that says so: one entrant, one level, no degraded image, nothing shared."""

from typing import Any

import pandas as pd
import pytest
from selenium.webdriver.support.ui import WebDriverWait

from leaderboard.__main__ import main
from tests.leaderboard.browsing import NEEDS_CHROMIUM, embedded, find, screen, shown, visit
from tests.leaderboard.made import sweep, write

pytestmark = NEEDS_CHROMIUM
NONE = ("none",)
ONE = {("pepper", 0.1): 1}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build a page with a board of each kind; give its address."""
    folder = tmp_path_factory.mktemp("odd")
    images = range(10, 16)
    rows = [
        sweep("r", "one entrant", images, 0, ("timm/a",), NONE, ONE),
        sweep("r", "undegraded", images, 0, ("timm/a", "timm/b"), NONE, {}),
        sweep("r", "nothing shared", images, 0, ("timm/a",), NONE, ONE),
        sweep("r", "nothing shared", range(20, 26), 0, ("timm/b",), NONE, {("flip_lr", 0.0): 1}),
        sweep("r", "no undegraded", images, 0, ("timm/a", "timm/b"), NONE, ONE).query("degradation != 'none'"),
    ]
    path = write(folder, pd.concat(rows, ignore_index=True), {"r": "p"})
    assert main(["build", "--db", str(path), "--out", str(folder / "site")]) == 0
    return (folder / "site" / "index.html").as_uri()


@pytest.mark.parametrize(
    ("dataset", "entrants", "up", "pairs"),
    [
        ("one entrant", 1, "Degraded accuracy", None),
        ("undegraded", 2, "Parameters", 1),
        ("nothing shared", 2, "Degraded accuracy", 0),
        ("no undegraded", 2, "Degraded accuracy", 1),
    ],
)
def test_each_kind(chromium: Any, odd: str, dataset: str, entrants: int, up: str, pairs: int | None) -> None:
    screen(chromium, 360)
    visit(chromium, odd)
    board = next(board for board in embedded(chromium)["boards"] if board["dataset"] == dataset)
    a, b = (board["entrants"][i % entrants]["id"] for i in (0, 1))
    visit(chromium, f"{odd}#board={board['id']}&a={a}&b={b}&more=1")
    assert len(shown(chromium)) == entrants
    assert find(chromium, "#axis-y option:checked").text == up
    assert find(chromium, "#front").text.startswith("Best ")
    assert len(chromium.find_elements("css selector", "[data-point]")) == entrants
    WebDriverWait(chromium, 20).until(lambda one: "Loading" not in find(one, "#pairstatus").text)
    status = find(chromium, "#pairstatus").text
    if pairs is None:
        assert "compared with itself" in status
    else:
        assert ("nothing to pair" in status) == (pairs == 0)
        assert chromium.execute_script("return compared ? compared.rows.length : 0") == pairs
    for table in ("ranking", "tradeoff", "conditions", "heat", "fragile"):
        chromium.execute_script("csv(TABLES[arguments[0]]()); json(arguments[0], TABLES[arguments[0]]())", table)
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= 360
    assert chromium.get_log("browser") == []
