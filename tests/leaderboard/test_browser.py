"""The page as a reader uses it, in headless Chromium."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from leaderboard.__main__ import main
from leaderboard.page import build
from tests.leaderboard.browsing import NEEDS_CHROMIUM, embedded, find, press, scheme, screen, shown, visit
from tests.leaderboard.made import HOSTILE, MODELS, sweep, write
from tests.leaderboard.test_history import report

pytestmark = NEEDS_CHROMIUM


def in_order(browser: Any, measure: str, descending: bool) -> list[str]:
    entrants = embedded(browser)["boards"][0]["entrants"]
    sign = -1 if descending else 1
    last = "same_images" if measure == "accuracy" else "comparable"
    key = lambda one: (not one[last], sign * one["stats"][measure][0], one["id"])  # noqa: E731
    return [one["id"] for one in sorted(entrants, key=key)]


def test_sorting(browser: Any) -> None:
    assert shown(browser) == in_order(browser, "mean_degraded_accuracy", True)
    press(browser, "[data-sort=mean_label_change]")
    assert shown(browser) == in_order(browser, "mean_label_change", False)  # the best one comes first
    head = find(browser, "th[aria-sort]")
    assert head.get_attribute("aria-sort") == "ascending"
    assert len(browser.find_elements(By.CSS_SELECTOR, "th[aria-sort]")) == 1
    press(browser, "[data-sort=mean_label_change]")
    assert shown(browser) == in_order(browser, "mean_label_change", True)
    assert find(browser, "th[aria-sort]").get_attribute("aria-sort") == "descending"


def test_numbers_and_ranks_of_the_table(browser: Any) -> None:
    for one in embedded(browser)["boards"][0]["entrants"]:
        text = find(browser, f"tr[data-entrant='{one['id']}']").text
        value, low, high = one["stats"]["accuracy"]
        assert f"{100 * value:.1f}" in text
        assert f"[{100 * low:.0f}–{100 * high:.0f}]" in text
        if "mean_degraded_accuracy" in one["ranks"]:
            first, last = one["ranks"]["mean_degraded_accuracy"]
            rank = find(browser, f"tr[data-entrant='{one['id']}'] .rank").text
            assert rank == (f"{first}–{last}" if first != last else f"{first}")
        else:
            assert "other conditions" in text


def test_speed(browser: Any, site: str) -> None:
    board, without = embedded(browser)["boards"]
    assert board["device"] in find(browser, "#notes").text
    press(browser, "[data-sort=images_per_second]")
    on_it = [one for one in board["entrants"] if one["same_device"]]
    fastest = sorted(on_it, key=lambda one: -one["stats"]["images_per_second"][0])
    assert shown(browser)[: len(on_it)] == [one["id"] for one in fastest]
    for one in board["entrants"]:
        text = find(browser, f"tr[data-entrant='{one['id']}']").text
        assert ("other device" in text) != one["same_device"]
        value = one["stats"]["images_per_second"][0]
        assert (f"{value:.0f}" if value >= 100 else f"{value:.1f}") in text
    visit(browser, f"{site}#board={without['id']}")  # this board has no timings
    for row in browser.find_elements(By.CSS_SELECTOR, "#rows tr"):
        assert row.text.endswith("–")


def test_filtering(browser: Any) -> None:
    everyone = len(shown(browser))
    find(browser, "#q").send_keys("timm median")
    assert 0 < len(shown(browser)) < everyone
    assert all("timm" in row.text for row in browser.find_elements(By.CSS_SELECTOR, "#rows tr"))
    assert find(browser, "#count").text == f"{len(shown(browser))} of {everyone} entrants"
    assert len(browser.find_elements(By.CSS_SELECTOR, "#heat tr")) == len(shown(browser))
    find(browser, "#q").send_keys(" nothing like it")
    assert "No entrant matches" in find(browser, "#rows").text
    browser.execute_script("q.value = ''; q.dispatchEvent(new Event('input'))")
    browser.execute_script("defense.value = 'none'; defense.dispatchEvent(new Event('change'))")
    assert len(shown(browser)) == everyone // 2


def test_curves(browser: Any) -> None:
    lines = "return [...new Set([...document.querySelectorAll('[data-line]')].map(line => line.dataset.line))].sort()"
    everyone = browser.execute_script(lines)
    assert everyone == sorted(shown(browser))
    gone = everyone[0]
    press(browser, f"[data-curve='{gone}']")
    assert browser.execute_script(lines) == everyone[1:]
    assert f"off={gone}" in browser.current_url
    press(browser, "[data-show=none]")
    assert browser.execute_script(lines) == []
    press(browser, "[data-show=all]")
    assert browser.execute_script(lines) == everyone
    before = find(browser, "#curves").get_attribute("innerHTML")
    press(browser, "[data-measure=change]")
    assert find(browser, "#curves").get_attribute("innerHTML") != before
    assert find(browser, "[data-measure=change]").get_attribute("aria-pressed") == "true"


def test_deep_link(browser: Any) -> None:
    press(browser, "[data-sort=accuracy]")
    press(browser, "[data-sort=accuracy]")
    press(browser, "[data-measure=change]")
    find(browser, "#q").send_keys("timm")
    press(browser, f"[data-curve='{shown(browser)[0]}']")
    address, rows = browser.current_url, shown(browser)
    curves = find(browser, "#curves").get_attribute("innerHTML")
    visit(browser, address)
    assert browser.current_url == address
    assert shown(browser) == rows
    assert find(browser, "#q").get_attribute("value") == "timm"
    assert find(browser, "#curves").get_attribute("innerHTML") == curves
    visit(browser, address.partition("#")[0] + "#sort=nonsense&dir=up&board=gone&defense=none&entrant=%3Cb%3E&off=..")
    assert shown(browser)


def test_an_entrant_opens(browser: Any) -> None:
    one = embedded(browser)["boards"][0]["entrants"][0]
    press(browser, f"tr[data-entrant='{one['id']}'] a")
    card = find(browser, f"#entrant-{one['id']}")
    assert card.get_attribute("open")
    for image, _, _ in one["fragile"]:
        assert image in card.text
    assert "abc1234" in card.text
    assert "python -m cnnsens_bench.run suite=quick" in card.text
    browser.execute_async_script("setTimeout(arguments[0], 50)")
    assert f"entrant={one['id']}" in browser.current_url


def test_dark_and_light(browser: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    colour = "return getComputedStyle(document.body).backgroundColor"

    def becomes(good: Callable[[str], bool]) -> str:
        """Wait, because a change of the scheme reaches the page a moment later."""
        return WebDriverWait(browser, 10).until(lambda b: good(c := b.execute_script(colour)) and c)

    light = browser.execute_script(colour)
    scheme(browser, "dark")
    dark = becomes(lambda c: c != light)
    press(browser, "#theme")
    assert find(browser, "#theme").text == "Theme: light"
    becomes(lambda c: c == light)
    visit(browser, browser.current_url)  # the choice is kept
    becomes(lambda c: c == light)
    press(browser, "#theme")
    becomes(lambda c: c == dark)


@pytest.mark.parametrize("board", [0, 1])
@pytest.mark.parametrize("width", [360, 1600])
def test_the_page_does_not_overflow(browser: Any, site: str, width: int, board: int) -> None:
    screen(browser, width)
    visit(browser, f"{site}#more=1&board={embedded(browser)['boards'][board]['id']}")
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    browser.execute_async_script("setTimeout(arguments[0], 100)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return document.querySelectorAll('#entrants .card').length") == len(shown(browser))


def test_hostile_names_show_as_text(browser: Any, site: str) -> None:
    hostile = embedded(browser)["boards"][1]
    visit(browser, f"{site}#board={hostile['id']}")
    press(browser, "[data-show=all]")
    names = browser.execute_script(
        "return [...document.querySelectorAll('#rows th a bdi')].map(name => name.textContent)"
    )
    assert set(names) == set(HOSTILE)
    assert browser.execute_script("return window.hacked") is None
    assert not browser.find_elements(By.CSS_SELECTOR, "main img, main script")


def test_keyboard_alone(browser: Any) -> None:
    """Tab reaches every control, Enter sorts, the space bar switches a curve, and the focus stays where it was."""
    reached = set()
    for _ in range(70):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        reached |= set(
            browser.execute_script(
                "const a = document.activeElement; return [a.id, a.tagName, ...Object.keys(a.dataset)]"
                ".concat(a.dataset.sort === 'accuracy' ? ['sorts'] : [])"
            )
        )
    assert {"theme", "board", "defense", "q", "more", "sort", "measure", "curve", "show", "table", "SUMMARY"} <= reached
    browser.execute_script("document.querySelector('[data-sort=accuracy]').focus()")
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert shown(browser) == in_order(browser, "accuracy", True)
    assert browser.execute_script("return document.activeElement.dataset.sort") == "accuracy"
    browser.execute_script("document.querySelector('[data-curve]').focus()")
    curve = browser.execute_script("return document.activeElement.dataset.curve")
    browser.switch_to.active_element.send_keys(Keys.SPACE)
    assert f"off={curve}" in browser.current_url
    assert browser.execute_script("return document.activeElement.dataset.curve") == curve
    assert browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_pre_made_pictures_are_named_as_such(chromium: Any, tmp_path: Any) -> None:
    conditions = {(name, float(level)): 1 for name in ("stored:fog", "common:fog") for level in (1, 2)}
    path = write(tmp_path, sweep("r", "d", range(8), 0, MODELS, ("none",), conditions), {"r": "p"})
    assert main(["build", "--db", str(path), "--out", str(tmp_path / "site")]) == 0
    visit(chromium, (tmp_path / "site" / "index.html").as_uri())
    shown = [
        element.text for element in chromium.find_elements(By.CSS_SELECTOR, "#heathead th, #curves figcaption bdi")
    ]
    assert {"fog (stored)", "common:fog"} <= set(shown)
    assert "stored:" not in chromium.find_element(By.TAG_NAME, "body").text
    assert chromium.get_log("browser") == []


def test_changes_and_the_badge_are_shown(chromium: Any, tmp_path: Path) -> None:
    """A page with a version before it has the section, whose links lead to both from here and from a kept version."""
    for seed, models in enumerate((MODELS, (*MODELS, HOSTILE[4]))):
        folder = tmp_path / str(seed)
        path = write(folder, sweep("r", "d", range(6), seed, models=models, defenses=["none"]), {"r": "p"})
        build([path], tmp_path / "site", MODELS[0], [report(tmp_path / "r.json", dataset="d")], history=True)
    site = (tmp_path / "site").as_uri()
    visit(chromium, f"{site}/index.html")
    lines = [one.text for one in chromium.find_elements(By.CSS_SELECTOR, "#changelist li")]
    assert any("is new: rank 1" in line for line in lines)
    assert [one.text for one in chromium.find_elements(By.CSS_SELECTOR, "[data-entrant] .chip")].count(
        "recomputed"
    ) == 1
    day = find(chromium, "#changelist a").text
    for address in (f"{site}/index.html", f"{site}/versions/{day}.2/index.html"):
        visit(chromium, address)
        links = [one.get_attribute("href") for one in chromium.find_elements(By.CSS_SELECTOR, "#changelist a")]
        assert links[1:] == [f"{site}/versions/{name}/index.html" for name in (day, f"{day}.2")] + [f"{site}/feed.xml"]
    find(chromium, "#changelist a").click()
    assert not find(chromium, "#changes").is_displayed()
    assert chromium.get_log("browser") == []
