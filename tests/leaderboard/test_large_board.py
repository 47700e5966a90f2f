"""A board of many entrants: rows and sections that are out of sight are drawn when they come near."""

import copy
from typing import Any

import pytest
from selenium.webdriver.support.ui import WebDriverWait

from leaderboard.folding import fold
from leaderboard.page import data, page
from leaderboard.read import read
from tests.leaderboard.browsing import NEEDS_CHROMIUM, embedded, find, press, scheme, screen, shown, visit
from tests.leaderboard.made import sweep, write

pytestmark = NEEDS_CHROMIUM
ENTRANTS = 300


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the page of a board whose entrants are many copies of a few; give its address."""
    folder = tmp_path_factory.mktemp("large")
    path = write(folder, sweep("r", "d", range(6), 0), {"r": "p"})
    content = data(read([path]), "torchvision/alexnet")
    [board] = content["boards"]
    few, board["entrants"] = board["entrants"], []
    for number in range(ENTRANTS):
        one = copy.deepcopy(few[number % len(few)]) | {"id": f"{number:08x}", "model": f"timm/network_{number}"}
        one["stats"]["mean_degraded_accuracy"][0] += number / 1e5
        board["entrants"].append(one)
    (folder / "index.html").write_text(page(fold(content)), "utf-8")
    return (folder / "index.html").as_uri()


@pytest.fixture
def browser(chromium: Any, large: str) -> Any:
    screen(chromium, 1600)
    scheme(chromium, "light")
    visit(chromium, large)
    yield chromium
    assert chromium.get_log("browser") == []


def test_more_rows_come_as_one_scrolls(browser: Any) -> None:
    entrants = embedded(browser)["boards"][0]["entrants"]
    key = lambda one: (not one["comparable"], -one["stats"]["mean_degraded_accuracy"][0], one["id"])  # noqa: E731
    wanted = [one["id"] for one in sorted(entrants, key=key)]
    first = shown(browser)
    assert 0 < len(first) < 200
    assert first == wanted[: len(first)]
    assert find(browser, "#count").text == f"{ENTRANTS} entrants"

    def scrolled(driver: Any) -> bool:
        driver.execute_script("const box = document.getElementById('table'); box.scrollTop = box.scrollHeight")
        return len(shown(driver)) == ENTRANTS

    WebDriverWait(browser, 20).until(scrolled)
    assert shown(browser) == wanted
    press(browser, "[data-sort=accuracy]")
    assert 0 < len(shown(browser)) < 200


def test_sections_are_drawn_when_they_come_near(browser: Any, large: str) -> None:
    rows = "return document.querySelectorAll('#heat tr').length"
    assert browser.execute_script(rows) == 0
    browser.execute_script("document.getElementById('section-heat').scrollIntoView()")
    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(rows))
    visit(browser, f"{large}#entrant=0000012b")
    assert find(browser, "#entrant-0000012b").get_attribute("open")
    visit(browser, large)
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script(rows) == len(shown(browser)) == ENTRANTS
