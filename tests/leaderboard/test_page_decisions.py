"""Decisions, the camera, families and mean ranks on the page, as a reader in Chromium finds them."""

import csv
import io
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from selenium.webdriver.support.ui import Select

from leaderboard.__main__ import main
from tests.leaderboard.browsing import NEEDS_CHROMIUM, embedded, find, press, scheme, screen, shown, visit
from tests.leaderboard.made import HOSTILE, sweep, write
from tests.leaderboard.test_accessibility import AXE, CHECK
from tests.leaderboard.test_decisions import CONDITIONS, REPORT, degrading

pytestmark = NEEDS_CHROMIUM


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build a page of two boards with a camera whose name is hostile; give its address."""
    folder = tmp_path_factory.mktemp("decided")
    models = ("timm/resnet18", "timm/b", "timm/resnet50")
    parts = [
        sweep("r1", "d", range(12), 0, models, conditions=CONDITIONS),
        sweep("r1", "e", range(8), 1, (*models[:2], HOSTILE[0]), ("none",), CONDITIONS),
    ]
    path = write(folder, degrading(pd.concat(parts, ignore_index=True)), {"r1": "p"})
    (folder / "camera.json").write_text(REPORT.json_text())
    assert main(["build", "--db", str(path), "--out", str(folder), "--camera", str(folder / "camera.json")]) == 0
    return (Path(folder) / "index.html").as_uri()


@pytest.fixture
def browser(chromium: Any, decided: str) -> Iterator[Any]:
    screen(chromium, 1600)
    scheme(chromium, "light")
    visit(chromium, decided)
    yield chromium
    assert chromium.get_log("browser") == []
    assert chromium.execute_script("return window.hacked") is None


def texts(browser: Any, selector: str) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(one => one.innerText.replaceAll('\\n', ' '))", selector
    )


def taken(browser: Any, table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(browser.execute_script("return csv(TABLES[arguments[0]]())", table))))


def test_failure_points_and_selective_accuracy(browser: Any) -> None:
    board = embedded(browser)["boards"][0]
    assert Select(find(browser, "#deg")).first_selected_option.text == "gaussian_rgb"  # the camera has its level
    assert "hall: σ=7 [6 – 9]" in find(browser, "#decisioncaption").text
    ids = browser.execute_script(
        "return [...document.querySelectorAll('[data-decision]')].map(r => r.dataset.decision)"
    )
    entrants = {one["id"]: one for one in board["entrants"]}
    sweep_of = [one[0] for one in board["decisions"]["sweeps"]].index("gaussian_rgb")
    levels = [entrants[key]["failure_points"]["half_accuracy"][sweep_of] for key in ids]
    strengths = [-1 if level is None else float("inf") if level[0] is None else level[0] for level in levels]
    assert sorted(ids) == sorted(entrants)
    assert strengths == sorted(strengths, reverse=True)
    assert strengths[0] == float("inf") > strengths[-1]
    cells = texts(browser, "[data-decision] td")
    assert cells[0].startswith("beyond σ=32")
    last = entrants[ids[-1]]
    at = next(
        i for i, one in enumerate(board["conditions"]) if (one["degradation"], one["level"]) == ("gaussian_rgb", 8)
    )
    aurc, confident = last["selective"][at]
    assert cells[-5].startswith(f"σ={float(f'{levels[-1][0]:.3g}'):g} [")
    assert cells[-2:] == [f"{100 * confident:.1f}", f"{aurc:.3f}"]
    rows = taken(browser, "decisions")
    assert {row["half_accuracy_level"] for row in rows} >= {"inf", "-inf"}
    assert len(taken(browser, "selective")) == sum(one is not None for e in board["entrants"] for one in e["selective"])


def test_degradation_and_level_are_in_the_link(browser: Any) -> None:
    Select(find(browser, "#deg")).select_by_visible_text("white_balance")
    Select(find(browser, "#level")).select_by_visible_text("-2000 K")
    table = find(browser, "#decisionrows").get_attribute("innerHTML")
    address = browser.current_url
    assert "deg=white_balance" in address
    assert "level=-2000" in address
    visit(browser, address)
    assert find(browser, "#decisionrows").get_attribute("innerHTML") == table
    Select(find(browser, "#deg")).select_by_visible_text("flip_lr")
    assert "no failure point" in find(browser, "#decisionnotes").text
    Select(find(browser, "#deg")).select_by_visible_text("undegraded")
    assert len(texts(browser, "#decisionhead th")) == 4
    visit(browser, f"{address.partition('#')[0]}#deg=nonsense&level=x&family=no&group=1")
    assert len(texts(browser, "[data-decision]")) == len(embedded(browser)["boards"][0]["entrants"])


def test_the_camera_is_a_band_and_a_column(browser: Any) -> None:
    drawn = browser.execute_script("return [...document.querySelectorAll('[data-camera]')].map(b => b.dataset.camera)")
    assert drawn == ["gaussian_rgb", "jpeg"]
    press(browser, "[data-sort='camera_accuracy']")
    entrants = {one["id"]: one["stats"]["camera_accuracy"][0] for one in embedded(browser)["boards"][0]["entrants"]}
    order = [entrants[key] for key in shown(browser)]
    assert order == sorted(order, reverse=True)
    assert REPORT.name in find(browser, "#notes").text
    band = (
        "const box = document.querySelector('[data-camera=gaussian_rgb]').getBoundingClientRect();"
        " return [box.left, box.right]"
    )
    marks = (
        "return [...document.querySelectorAll('#curves figure:nth-child(2) svg > text')]"
        ".filter(t => t.textContent.startsWith('σ=')).map(t => { const b = t.getBoundingClientRect();"
        " return (b.left + b.right) / 2; })"
    )
    left, right = browser.execute_script(band)
    two, eight, strongest = browser.execute_script(marks)
    assert two < left < eight < right < strongest  # levels 6 and 9 lie around 8


def test_families_are_grouped_and_chosen(browser: Any) -> None:
    press(browser, "#group")
    entrants = {one["id"]: one for one in embedded(browser)["boards"][0]["entrants"]}
    order = browser.execute_script(
        "return [...document.querySelectorAll('#rows tr')].map(r => r.dataset.familyRow ?? r.dataset.entrant)"
    )
    heading = ""
    for key in order:
        heading = heading if key in entrants else key
        assert key not in entrants or entrants[key]["family"] == heading
    assert sorted(set(order) - set(entrants)) == ["b", "resnet"]
    values = [one["stats"]["accuracy"][0] for one in entrants.values() if one["family"] == "resnet"]
    assert f"{100 * statistics.median(values):.1f} median" in texts(browser, "[data-family-row=resnet] td")
    Select(find(browser, "#family")).select_by_value("resnet")
    assert "family=resnet" in browser.current_url
    visit(browser, browser.current_url)
    assert find(browser, "#group").get_attribute("aria-pressed") == "true"
    assert {entrants[key]["family"] for key in shown(browser) if key} == {"resnet"}
    assert find(browser, "#count").text == "4 of 6 entrants"


def test_mean_ranks_over_boards(browser: Any) -> None:
    summary = embedded(browser)["board_summary"]
    assert len(texts(browser, "#boardsrows tr")) == len(summary["entrants"]) == 2
    assert "Left out: 5 entrants" in find(browser, "#boardscaption").text
    assert [row["mean_rank"] for row in taken(browser, "boards")[::2]] == [
        f"{one['mean_rank'][0]:g}" for one in summary["entrants"]
    ]


@pytest.mark.parametrize(("width", "colours"), [(1600, "light"), (360, "dark")])
def test_a_checker_finds_nothing(browser: Any, decided: str, width: int, colours: str) -> None:
    screen(browser, width)
    scheme(browser, colours)
    visit(browser, f"{decided}#group=1&deg=white_balance")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.set_script_timeout(60)
    browser.execute_script(AXE)
    found = browser.execute_async_script(CHECK)
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []
