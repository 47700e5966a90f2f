"""The page takes up a gallery of images, shows it to every reader, and says in one sentence what is absent."""

import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import axe_core_python
import pandas as pd
import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from cnnsens_bench.images import thumbnail
from cnnsens_bench.utils.errors import UserError
from leaderboard.__main__ import main
from leaderboard.gallery import BEGIN, END, SCRIPT, take_up_gallery
from tests.leaderboard.browsing import NEEDS_CHROMIUM, embedded, find, scheme, screen, visit
from tests.leaderboard.made import HOSTILE, sweep, write

PICTURE = f"{'0' * 15}a.jpg"
LOADED = "return [...document.querySelectorAll('.shots img')].map(one => one.complete && one.naturalWidth)"
AXE = resources.files(axe_core_python).joinpath("axe.min.js").read_text("utf-8")


def entrant(model: str, weights: str | None, text: str = "auk", **more: Any) -> dict[str, Any]:
    """Return what a gallery has of an entrant; all names are `text`."""
    cell = {"degradation": "pepper", "level": 0.04, "text": "p=0.04", "trial": 1, "after": f"{text} 2", "right": False}
    image = {"image_id": text, "class_name": text, "before": text, "right": True, "share": 0.25, "cells": 8}
    degraded = {"changes": 2, "picture": PICTURE, "degraded": [cell | {"picture": PICTURE}, cell | {"picture": None}]}
    row = {"class_name": text, "share": 0.5, "images": 3}
    least = image | {"share": 0.0, "changes": 0, "picture": PICTURE, "degraded": []}
    becomes = {"before": text, "after": f"{text} 2", "cells": 2, "images": 1, "share": 1.0}
    return {
        "protocol": "p", "dataset": "d", "model": model, "defense": "none", "weights": weights,
        "most": [image | degraded], "least": [least], "least_classes": [row], "most_classes": [], "becomes": [becomes],
    } | more  # fmt: skip


def write_gallery(folder: Path, given: list[dict[str, Any]], **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    known = {"format": "cnnsens_bench pictures", "format_version": 1, "created": "today", "side": 96, "entrants": given}
    (folder / SCRIPT).write_text(f"{BEGIN}{json.dumps(known | more)}{END}\n")
    pixels = (255 * pd.DataFrame(range(64 * 64 * 3)).to_numpy() / 64**2 / 3).reshape(64, 64, 3).astype("uint8")
    (folder / PICTURE).write_bytes(thumbnail(pixels, 64))
    return folder


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"format": "other"}, "is not what cnnsens-bench pictures writes (format: Input should be"),
        ({"format_version": 2}, "(format_version: Input should be 1)"),
        ({"entrants": [{}]}, "(entrants.0.protocol: Field required)"),
        ({"entrants": [entrant("timm/b", None, least=[{"share": 2}])]}, "least.0"),
    ],
)
def test_a_gallery_that_is_none_is_refused(tmp_path: Path, more: dict[str, Any], sentence: str) -> None:
    folder = write_gallery(tmp_path / "pictures", [], **more)
    with pytest.raises(UserError) as raised:
        take_up_gallery(None, tmp_path)
    assert sentence in str(raised.value)
    assert str(folder / SCRIPT) in str(raised.value)


def test_pictures_cannot_lie_elsewhere_or_be_absent(tmp_path: Path) -> None:
    assert take_up_gallery(None, tmp_path) is None
    with pytest.raises(UserError, match="has no gallery: cnnsens-bench pictures --out"):
        take_up_gallery(tmp_path / "nowhere", tmp_path)
    folder = write_gallery(tmp_path / "made", [entrant("timm/b", None)])
    text = (folder / SCRIPT).read_text()
    (folder / SCRIPT).write_text(text.replace(PICTURE, "../../secret.jpg"))
    with pytest.raises(UserError, match="picture: String should match pattern"):
        take_up_gallery(folder, tmp_path)
    for damaged in (f"{text}alert(1)", f"alert(1);{text}", text[:100], f"{BEGIN}{{}});alert(1{END}"):
        (folder / SCRIPT).write_text(damaged)
        with pytest.raises(UserError, match="is not what cnnsens-bench pictures writes"):
            take_up_gallery(folder, tmp_path)
    (folder / SCRIPT).write_text(text)
    assert take_up_gallery(folder, tmp_path / "site") == "pictures"
    assert (tmp_path / "site" / "pictures" / PICTURE).read_bytes() == (folder / PICTURE).read_bytes()
    assert take_up_gallery(None, tmp_path / "site") == "pictures"
    (folder / PICTURE).unlink()
    with pytest.raises(UserError, match=f"lacks 1 of its pictures, such as {PICTURE}"):
        take_up_gallery(folder, tmp_path / "other")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a page with a gallery of two entrants of three, of which one has a hostile name; give its folder."""
    folder = tmp_path_factory.mktemp("shown")
    models = ("timm/b", HOSTILE[0], "timm/c")
    rows = sweep("r1", "d", range(12), 0, models, ["none"])
    path = write(folder, rows, {"r1": "p"})
    gallery = write_gallery(
        folder / "made", [entrant("timm/b", "wtimm/bnone"), entrant(HOSTILE[0], f"w{HOSTILE[0]}none", HOSTILE[0])]
    )
    assert main(["build", "--db", str(path), "--out", str(folder / "site"), "--pictures", str(gallery)]) == 0
    return folder / "site"


def open_gallery(browser: Any, address: str) -> None:
    visit(browser, address)
    assert browser.execute_script("return gallery") is None  # it is loaded when the reader comes near
    browser.execute_script("document.getElementById('section-pictures').scrollIntoView()")
    WebDriverWait(browser, 20).until(lambda one: find(one, "#gallerystatus").text)


@NEEDS_CHROMIUM
@pytest.mark.parametrize(("width", "colours"), [(1600, "light"), (360, "dark")])
def test_the_page_shows_it(chromium: Any, shown: Path, width: int, colours: str) -> None:
    screen(chromium, width)
    scheme(chromium, colours)
    open_gallery(chromium, (shown / "index.html").as_uri())
    ids = {one["model"]: one["id"] for one in embedded(chromium)["boards"][0]["entrants"]}
    assert find(chromium, "#gallerystatus").text == "The gallery lacks 1 entrant of this board."
    select = find(chromium, "#gallery-entrant")
    assert len(chromium.find_elements("css selector", "#gallery-entrant option")) == 2
    other = next(name for name in ("timm/b", HOSTILE[0]) if ids[name] != select.get_attribute("value"))
    select.send_keys(Keys.ARROW_DOWN)  # by keyboard alone
    assert ids[other] == select.get_attribute("value")
    assert f"images={ids[other]}" in chromium.current_url
    for name in ("timm/b", HOSTILE[0]):
        visit(chromium, "about:blank")
        open_gallery(chromium, f"{(shown / 'index.html').as_uri()}#images={ids[name]}")
        text = "auk" if name == "timm/b" else name
        assert find(chromium, "#gallery-entrant").get_attribute("value") == ids[name]
        frames = [one.text for one in chromium.find_elements("css selector", "#gallerymost figcaption")]
        assert [frame.replace("\n", "") for frame in frames] == [
            f"undegraded{text}right",
            *[f"pepper p=0.04{text} 2wrong"] * 2,
        ]
        WebDriverWait(chromium, 20).until(lambda one: one.execute_script(LOADED) == [64] * 3)
        alts = [one.get_attribute("alt") for one in chromium.find_elements("css selector", ".shots img")]
        assert alts == [f"{text}, undegraded", f"{text}, pepper p=0.04", f"{text}, undegraded"]
        assert "none of 8 labels changed" in find(chromium, "#galleryleast").text
        assert chromium.execute_script("return TABLES.transitions()") == [
            {
                "model": name,
                "defense": "none",
                "before": text,
                "after": f"{text} 2",
                "cells": 2,
                "images": 1,
                "share": 1,
            }
        ]
        assert chromium.execute_script("return TABLES.classes().length") == 1
    assert chromium.execute_script("return window.hacked") is None
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
    chromium.execute_script(AXE)
    check = "axe.run('#section-pictures', {resultTypes: ['violations']}).then(arguments[arguments.length - 1]);"
    found = chromium.execute_async_script(check)
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []
    assert chromium.get_log("browser") == []


@NEEDS_CHROMIUM
def test_what_is_absent_is_one_sentence(chromium: Any, shown: Path, site: str, tmp_path: Path) -> None:
    screen(chromium, 1600)
    shown = Path(shutil.copytree(shown, tmp_path / "copy"))
    (shown / "pictures" / PICTURE).unlink()
    open_gallery(chromium, (shown / "index.html").as_uri())
    WebDriverWait(chromium, 20).until(lambda one: "not beside this page" in find(one, "#gallerymost").text)
    (shown / "pictures" / SCRIPT).unlink()
    open_gallery(chromium, (shown / "index.html").as_uri())
    sentence = "The file pictures/gallery.js is not beside this page: copy the folder pictures too."
    WebDriverWait(chromium, 20).until(lambda one: find(one, "#gallerystatus").text == sentence)
    assert not find(chromium, "#galleryresult").is_displayed()
    visit(chromium, site)  # a page without a gallery has no such section
    assert not find(chromium, "#section-pictures").is_displayed()
    log = chromium.get_log("browser")
    assert log
    assert all("ERR_FILE_NOT_FOUND" in entry["message"] for entry in log)
