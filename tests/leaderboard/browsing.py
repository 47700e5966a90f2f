"""What tests do with a page in headless Chromium."""

import json
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from tests.conftest import CHROMEDRIVER, CHROMIUM

NEEDS_CHROMIUM = pytest.mark.skipif(
    not CHROMIUM or not CHROMEDRIVER,
    reason="no chromium with chromedriver here: apt-get install chromium chromium-driver",
)


def visit(browser: Any, address: str) -> None:
    browser.get("about:blank")  # otherwise a change of the hash alone would not load the page
    browser.get(address)


def screen(browser: Any, width: int, height: int = 900) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def scheme(browser: Any, name: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": name}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def find(browser: Any, selector: str) -> Any:
    return browser.find_element(By.CSS_SELECTOR, selector)


def press(browser: Any, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def embedded(browser: Any) -> dict[str, Any]:
    """Return the page's data as its script reads it."""
    text = "return JSON.stringify(unfolded(JSON.parse(document.getElementById('data').textContent)))"
    return json.loads(browser.execute_script(text))


def shown(browser: Any) -> list[str]:
    return browser.execute_script("return [...document.querySelectorAll('#rows tr')].map(row => row.dataset.entrant)")
