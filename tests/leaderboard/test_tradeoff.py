"""The scatter of two measures: its families, arrows and front, and how a reader moves through it."""

import re
from typing import Any

import pandas as pd
import pytest
from selenium.webdriver.common.keys import Keys

from leaderboard.tradeoff import family, undefended
from tests.leaderboard.browsing import NEEDS_CHROMIUM, embedded, find, press, screen, visit

HIGHER = {"accuracy": True, "mean_degraded_accuracy": True, "mean_label_change": False, "parameters": False}


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (("resnet18", "ResNet50", "wide_resnet50_2", "resnet18.a1_in1k"), "resnet"),
        (("efficientnet_lite0", "tf_efficientnet_lite0", "efficientnet_b0", "efficientnetv2_s"), "efficientnet"),
        (("mobilenetv3_large_100", "mobilenet_v2"), "mobilenet"),
        (("vit_b_16", "vit_base_patch16_224"), "vit"),
        (("vgg19", "vgg11_bn"), "vgg"),
        (("b",), "b"),
        (("4bit",), "4bit"),
        ((None, ""), None),
    ],
)
def test_families(names: tuple[str | None, ...], wanted: str | None) -> None:
    assert {family(name) for name in names} == {wanted}


def test_the_network_without_its_defense() -> None:
    rows = [
        ("a", "none", "w1"), ("a", "blur", "w1"), ("a", "none", "w2"), ("a", "dropout", "w3"),
        ("b", "none", "w4"), ("b", "dropout", "w5"), ("c", "blur", "w6"),
    ]  # fmt: skip
    members = pd.DataFrame(rows, columns=["model", "defense", "weights"])
    # The same weights come first; a has two networks that its trained defense may belong to; c has none.
    assert undefended(members) == {1: 0, 5: 4}


def drawn(browser: Any) -> dict[str, str]:
    """Return the colour of each point, by its entrant: that of a ring's line, where it is not filled."""
    return browser.execute_script(
        "const colour = mark => mark.getAttribute(mark.getAttribute('fill') === 'var(--bg)' ? 'stroke' : 'fill');"
        "const marks = [...document.querySelectorAll('[data-point]')];"
        "return Object.fromEntries(marks.map(mark => [mark.dataset.point, colour(mark)]))"
    )


def front_of(board: dict, x: str, y: str) -> list[str]:
    """Return the entrants that no other beats in one measure without losing in the other, by the value of x."""
    sign = [1 if HIGHER[name] else -1 for name in (x, y)]
    every = [one for one in board["entrants"] if one["comparable"]]
    values = {one["id"]: [s * one["stats"][name][0] for s, name in zip(sign, (x, y), strict=True)] for one in every}
    best = [
        key
        for key, (across, up) in values.items()
        if not any(a >= across and u >= up and (a, u) != (across, up) for a, u in values.values())
    ]
    by_place: dict[tuple[float, ...], str] = {}
    for key in sorted(best):  # of equal ones the first is on the front
        by_place.setdefault(tuple(values[key]), key)
    return sorted(by_place.values(), key=lambda key: next(o for o in every if o["id"] == key)["stats"][x][0])


@NEEDS_CHROMIUM
@pytest.mark.parametrize("axes", [("accuracy", "mean_degraded_accuracy"), ("parameters", "mean_label_change")])
def test_points_front_and_arrows(browser: Any, site: str, axes: tuple[str, str]) -> None:
    board = embedded(browser)["boards"][0]
    visit(browser, f"{site}#x={axes[0]}&y={axes[1]}")
    assert set(drawn(browser)) == {one["id"] for one in board["entrants"]}
    links = browser.execute_script(
        "return [...document.querySelectorAll('#front a')].map(link => link.hash.slice('#entrant='.length))"
    )
    assert links == front_of(board, *axes)
    arrows = browser.execute_script(
        "return [...document.querySelectorAll('[data-arrow]')].map(arrow => arrow.dataset.arrow)"
    )
    assert set(arrows) == {one["id"] for one in board["entrants"] if one["defense"] != "none"}
    for one in board["entrants"]:
        if one["defense"] != "none":
            source = next(other for other in board["entrants"] if other["id"] == one["undefended"])
            assert (source["model"], source["defense"]) == (one["model"], "none")
    intervals = browser.execute_script("return document.querySelectorAll('#scatter .interval').length")
    both = sum(one["stats"][name][1] is not None for one in board["entrants"] for name in axes)
    assert 0 < intervals <= both


@NEEDS_CHROMIUM
def test_axes_and_families_are_in_the_link(browser: Any) -> None:
    browser.execute_script("const s = document.getElementById('axis-x'); s.value = 'images_per_second';"
                           "s.dispatchEvent(new Event('change'))")  # fmt: skip
    press(browser, "[data-family='b']")
    press(browser, "[data-family='c']")
    gray = {key for key, fill in drawn(browser).items() if fill == "var(--soft)"}
    board = embedded(browser)["boards"][0]
    assert gray == {one["id"] for one in board["entrants"] if one["family"] in "bc"}
    address, scatter = browser.current_url, find(browser, "#scatter").get_attribute("innerHTML")
    assert "x=images_per_second" in address
    visit(browser, address)
    assert find(browser, "#scatter").get_attribute("innerHTML") == scatter
    press(browser, "#families-none")
    assert not re.search(r"var\(--c\d\)", find(browser, "#scatter").get_attribute("innerHTML"))
    visit(browser, browser.current_url.partition("#")[0] + "#x=nonsense&y=%00&families=%25%2C%FF")
    assert drawn(browser)


@NEEDS_CHROMIUM
def test_keys_go_through_the_points(browser: Any) -> None:
    browser.execute_script("document.getElementById('tradeplot').focus()")
    seen = []
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT):
        browser.switch_to.active_element.send_keys(key)
        seen.append(find(browser, "#tradepoint a").get_attribute("href").partition("entrant=")[2])
    across = {one["id"]: one["stats"]["accuracy"][0] for one in embedded(browser)["boards"][0]["entrants"]}
    assert seen[0] == seen[2] != seen[1]
    assert across[seen[0]] == min(across.values())
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert find(browser, f"#entrant-{seen[0]}").get_attribute("open")


@NEEDS_CHROMIUM
def test_a_pointer_names_the_nearest_point(browser: Any) -> None:
    screen(browser, 1600, 1400)
    browser.execute_script("document.getElementById('h-tradeoff').scrollIntoView()")
    one = browser.execute_script(
        "const mark = document.querySelector('[data-point]'), box = mark.getBoundingClientRect();"
        "document.getElementById('tradeplot').dispatchEvent(new PointerEvent('pointermove', {clientX: box.x + 4,"
        " clientY: box.y + 4})); return mark.dataset.point"
    )
    assert one in find(browser, "#tradepoint a").get_attribute("href")


@NEEDS_CHROMIUM
def test_an_empty_scatter_says_so(browser: Any) -> None:
    find(browser, "#q").send_keys("nothing like it")
    assert "No entrant has both measures" in find(browser, "#scatter").text
