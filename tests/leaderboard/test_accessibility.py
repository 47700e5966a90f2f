"""An accessibility checker (axe-core) finds nothing on the page, wide and narrow, dark and light."""

from importlib import resources
from typing import Any

import axe_core_python
import pytest

from tests.leaderboard.browsing import NEEDS_CHROMIUM, embedded, find, press, scheme, screen, visit

pytestmark = NEEDS_CHROMIUM
AXE = resources.files(axe_core_python).joinpath("axe.min.js").read_text("utf-8")
CHECK = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"]}).then(done);
"""


@pytest.mark.parametrize(("width", "colours"), [(1600, "light"), (360, "dark")])
def test_nothing_is_found(browser: Any, site: str, width: int, colours: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    screen(browser, width)
    scheme(browser, colours)
    a, b = (one["id"] for one in embedded(browser)["boards"][0]["entrants"][:2])
    visit(browser, f"{site}#more=1&a={a}&b={b}&entrant={a}")
    WebDriverWait(browser, 20).until(lambda one: "better" in find(one, "#pairstatus").text)
    press(browser, "[data-take='ranking.sql']")
    browser.set_script_timeout(60)
    browser.execute_script(AXE)
    found = browser.execute_async_script(CHECK)
    assert len(found["passes"]) > 30
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []
