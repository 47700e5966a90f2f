"""The page in headless Chromium, which several files of tests open."""

import json
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from leaderboard.__main__ import main
from tests.conftest import CHROMEDRIVER, CHROMIUM
from tests.leaderboard.browsing import scheme, screen, visit
from tests.leaderboard.made import HOSTILE, MODELS, sweep, timings, write

ARGUMENTS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build a page of two data sets, one of which has hostile names; give its address."""
    folder = tmp_path_factory.mktemp("site")
    ours = sweep(
        "r1", "d", range(20), 0, models=(*MODELS, "timm/d")
    )  # more entrants than the hostile board, so that it is the first
    rows = pd.concat([ours, sweep("r2", "e", range(8), 1, models=HOSTILE, defenses=["none"])], ignore_index=True)
    speed = timings(rows[rows["run_id"] == "r1"])
    path = write(
        folder, rows, {"r1": "p", "r2": "q"}, speed=speed, config={"seed": 0, "trials": 3, "defenses": list(HOSTILE)}
    )
    assert main(["build", "--db", str(path), "--out", str(folder / "site")]) == 0
    return (folder / "site" / "index.html").as_uri()


@pytest.fixture(scope="package")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    driver.get("about:blank")
    driver.get_log("performance")  # drops the requests of the browser's own first page
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium: Any, site: str) -> Iterator[Any]:
    """Open the page, wide and light; check at the end that it logged nothing and asked nothing of a network."""
    screen(chromium, 1600)
    scheme(chromium, "light")
    visit(chromium, site)
    chromium.execute_script("localStorage.clear()")
    visit(chromium, site)
    yield chromium
    assert chromium.get_log("browser") == []
    for entry in chromium.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            assert message["params"]["request"]["url"].startswith(("file:", "data:"))
