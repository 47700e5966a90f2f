"""What the page says of two entrants equals what the command `compare` says, and needs no other origin."""

import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from cnnsens_bench.measures import accuracy_gain
from leaderboard.__main__ import main
from leaderboard.compare import comparisons, holm
from leaderboard.outcomes import codes, pack, script_files
from leaderboard.read import read
from tests.leaderboard.browsing import NEEDS_CHROMIUM, embedded, find, press, screen, visit
from tests.leaderboard.made import HOSTILE, sweep, write

FIELDS = ("difference", "low", "high", "first", "second", "images_for_first", "images_for_second", "p", "p_holm",
          "n_images", "n_trials")  # fmt: skip


def test_codes_are_the_smallest_that_hold_every_count() -> None:
    rng = np.random.default_rng(0)
    for trials, width in ((1, np.uint8), (21, np.uint8), (22, np.uint16), (400, np.uint32)):
        n = np.full((50, 3), float(trials))
        k = rng.integers(0, trials + 1, n.shape)
        k[0] = trials
        found = codes(k / n, n)
        assert found.dtype == width
        assert found.tolist() == (trials * (trials + 1) // 2 + k).T.tolist()
    assert codes(np.full((2, 2), np.nan), np.full((2, 2), np.nan)).tolist() == [[0, 0], [0, 0]]


def test_script_files_hold_names_of_any_kind() -> None:
    images = pd.DataFrame({"image_id": ["</script>", "a\u2028b", '\u202e"\\'], "class_name": ["x", None, np.nan]})
    tables = {name: np.ones((3, 1)) for name in ("hit", "changed", "trials")}
    files = dict(script_files("0123abcd", "k", images, {"fedc0123": pack(tables)}))
    assert list(files) == ["0123abcd.js", "0123abcd-fedc0123.js"]
    content = json.loads(re.fullmatch(r'receive\("0123abcd", (.*)\);\n', files["0123abcd.js"])[1])
    assert content["image_id"] == images["image_id"].tolist()
    assert content["class_name"] == ["x", None, None]
    assert all(text.isascii() for text in files.values())


def compared(browser: Any) -> dict[str, Any]:
    """Return the page's comparison, when it is there."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda one: "Loading" not in find(one, "#pairstatus").text)
    return browser.execute_script(
        "return compared && {rows: compared.rows.map(row => ({...row, ...row.condition})), left: compared.left}"
    )


@NEEDS_CHROMIUM
@pytest.mark.parametrize("measure", ["accuracy", "change"])
def test_the_page_compares_as_the_command_does(browser: Any, site: str, measure: str) -> None:
    """For accuracy against the command; for the label change against its formulas, from the store's own view."""
    board = embedded(browser)["boards"][0]
    store = Path(unquote(urlsplit(site).path)).parents[1] / "results.duckdb"
    ids = {(one["model"], one["defense"]): one["id"] for one in board["entrants"]}
    first, second = ("torchvision/alexnet", "none"), ("timm/c", "median_filter(size=3)")
    visit(browser, f"{site}#a={ids[first]}&b={ids[second]}&measure={measure}")
    found = compared(browser)
    results = read([store])
    if measure == "accuracy":
        [wanted] = comparisons(results, first[0], ":".join(second)).values()
        table = [vars(one) for one in wanted]
    else:
        table = changes(results, first, second)
    assert [(row["degradation"], row["level"]) for row in found["rows"]] == [
        (w["degradation"], w["level"]) for w in table
    ]
    for row, want in zip(found["rows"], table, strict=True):
        for name in FIELDS:
            assert row[name] == pytest.approx(want[name], rel=1e-9, abs=1e-12), name
    assert found["left"] == ["Left out, for only A was measured under it: pepper p=0.04."]


def changes(results: Any, first: tuple[str, str], second: tuple[str, str]) -> list[dict[str, Any]]:
    """Compare the label changes of two entrants by the formulas of `compare`."""
    entrants = results.entrants.set_index(["name", "defense"])["entrant"]
    own, other = (results.query("shares", entrant=int(entrants[key])) for key in (first, second))
    pairs = own.merge(other, on=["condition", "image", "trials"], suffixes=("", "_b")).dropna(
        subset=["changed", "changed_b"]
    )
    conditions = results.query("conditions", board=0)
    table = []
    for condition, rows in pairs.groupby("condition"):
        gain = accuracy_gain(rows["image"], rows["changed"], rows["changed_b"])
        net = np.rint((rows["changed"] - rows["changed_b"]) * rows["trials"])
        wins, losses = int((net > 0).sum()), int((net < 0).sum())
        table.append(
            {"degradation": conditions["degradation"][condition], "level": conditions["level"][condition],
             "difference": gain.value, "low": gain.low, "high": gain.high, "first": rows["changed"].mean(),
             "second": rows["changed_b"].mean(), "images_for_first": wins, "images_for_second": losses,
             "p": binomtest(wins, wins + losses).pvalue if wins + losses else 1, "n_images": len(rows),
             "n_trials": rows["trials"].max()}
        )  # fmt: skip
    return [row | {"p_holm": p} for row, p in zip(table, holm([row["p"] for row in table]), strict=True)]


@NEEDS_CHROMIUM
def test_the_sign_test_is_exact(browser: Any) -> None:
    counts = [(0, 0), (0, 1), (5, 5), (3, 9), (0, 40), (480, 520), (20_000, 21_000), (24_900, 25_100), (100, 3000)]
    found = browser.execute_script("return arguments[0].map(([wins, losses]) => signTest(wins, losses))", counts)
    wanted = [binomtest(wins, wins + losses).pvalue if wins + losses else 1 for wins, losses in counts]
    assert found == pytest.approx(wanted, rel=1e-9)


@NEEDS_CHROMIUM
def test_images_that_only_one_gets_right_and_the_link(browser: Any, site: str) -> None:
    board = embedded(browser)["boards"][0]
    store = Path(unquote(urlsplit(site).path)).parents[1] / "results.duckdb"
    ids = [next(one["id"] for one in board["entrants"] if (one["model"], one["defense"]) == (model, "none"))
           for model in ("torchvision/alexnet", "timm/b")]  # fmt: skip
    for key, one in zip("ab", ids, strict=True):
        browser.execute_script(
            "const s = document.getElementById(`pair-${arguments[0]}`); s.value = arguments[1];"
            "s.dispatchEvent(new Event('change'))", key, one,
        )  # fmt: skip
    compared(browser)
    press(browser, "[data-condition='gaussian_rgb:8']")
    assert browser.execute_script("return document.activeElement.dataset.condition") == "gaussian_rgb:8"
    results = read([store])
    names = results.entrants.set_index(["name", "defense"])["entrant"]
    pairs = results.query("pairs", first=int(names["torchvision/alexnet", "none"]), second=int(names["timm/b", "none"]))
    conditions = results.query("conditions", board=0)
    images = results.query("images", board=0, dataset="d")["image_id"]
    [number] = conditions.index[(conditions["degradation"] == "gaussian_rgb") & (conditions["level"] == 8)]
    own = pairs[pairs["condition"] == number]
    listed = browser.execute_script(
        "return [...document.querySelectorAll('#pairimages > div')].map(one =>"
        " [...one.querySelectorAll('li > bdi')].map(id => id.textContent))"
    )
    for side, rows in zip(
        listed, (own[own["hit"] > own["reference_hit"]], own[own["hit"] < own["reference_hit"]]), strict=True
    ):
        assert set(side) == set(images[rows["image"]])
    address, text = browser.current_url, find(browser, "#pairresult").text
    assert "at=gaussian_rgb" in address
    visit(browser, address)
    compared(browser)
    assert find(browser, "#pairresult").text == text
    press(browser, "#pair-swap")
    assert [row["difference"] for row in compared(browser)["rows"]] == pytest.approx(
        [-row["difference"] for row in _of(browser, address)]
    )
    screen(browser, 360)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360


def _of(browser: Any, address: str) -> list[dict[str, Any]]:
    visit(browser, address)
    return compared(browser)["rows"]


@NEEDS_CHROMIUM
def test_what_cannot_be_compared_is_said(chromium: Any, tmp_path: Path) -> None:
    rows = pd.concat(
        [
            sweep(
                "r", "d", range(10, 18), 0, (HOSTILE[0],), ("none",), {("gaussian_rgb", 4.0): 2, ("pepper", 0.04): 1}
            ),
            sweep("r", "d", range(10, 18), 1, ("timm/b",), ("none",), {("gaussian_rgb", 4.0): 3, ("pepper", 0.04): 1}),
            sweep("r", "d", range(30, 34), 1, ("timm/c",), ("none",), {("gaussian_rgb", 4.0): 1}),
        ]
    )
    site = tmp_path / "site"
    assert main(["build", "--db", str(write(tmp_path, rows, {"r": "p"})), "--out", str(site)]) == 0
    visit(chromium, (site / "index.html").as_uri())
    a, b, c = (next(o["id"] for o in embedded(chromium)["boards"][0]["entrants"] if o["model"] == model)
               for model in (HOSTILE[0], "timm/b", "timm/c"))  # fmt: skip

    def status(first: str, second: str) -> str:
        visit(chromium, f"{(site / 'index.html').as_uri()}#a={first}&b={second}")
        compared(chromium)
        return find(chromium, "#pairstatus").text

    status(a, b)
    assert "for A has 2 and B 3 trials of an image: gaussian_rgb σ=4 (8 images)." in find(chromium, "#pairleft").text
    assert "compared with itself" in status(a, a)
    assert "nothing to pair" in status(a, c)
    assert status(a, "gone") == ""
    name = f"{embedded(chromium)['boards'][0]['id']}-{b}"
    (site / "data" / f"{name}.js").write_text(f'receive("{name}", {{"key": "of another build"}})')
    assert "belongs to another build" in status(a, b)
    assert chromium.get_log("browser") == []
    shutil.rmtree(site / "data")
    assert "is not beside this page: copy the folder data" in status(a, b)
    chromium.get_log("browser")  # the browser itself tells of the missing file


@NEEDS_CHROMIUM
def test_a_network_on_two_boards_has_its_outcomes_on_each(chromium: Any, tmp_path: Path) -> None:
    """The same network and data set under two protocols are two boards."""
    rows = pd.concat([sweep(run, "d", range(10, 16), seed, conditions={}) for run, seed in (("r", 0), ("q", 5))])
    path, site = write(tmp_path, rows, {"r": "p", "q": "pq"}), tmp_path / "site"
    assert main(["build", "--db", str(path), "--out", str(site)]) == 0
    visit(chromium, (site / "index.html").as_uri())
    for board in embedded(chromium)["boards"]:
        a, b = board["entrants"][0], board["entrants"][3]
        visit(chromium, f"{(site / 'index.html').as_uri()}#board={board['id']}&a={a['id']}&b={b['id']}")
        [row] = compared(chromium)["rows"]
        assert [row["first"], row["second"]] == pytest.approx([one["accuracy"][0][0] for one in (a, b)], abs=2e-6)
    assert chromium.get_log("browser") == []


def test_files_of_an_earlier_build_are_removed_and_others_stay(tmp_path: Path) -> None:
    data = tmp_path / "site" / "data"
    for name, models in (("a", ("timm/b", "timm/c")), ("b", ("timm/b",))):
        path = write(tmp_path / name, sweep("r", "d", range(4), 0, models, ("none",)), {"r": "p"})
        assert main(["build", "--db", str(path), "--out", str(tmp_path / "site")]) == 0
        if name == "a":
            before = {file.name for file in data.glob("*.js")}
            (data / "notes.txt").write_text("mine")
    after = {file.name for file in data.glob("*.js")}
    assert after < before
    assert (len(before), len(after)) == (3, 2)
    assert (data / "notes.txt").read_text() == "mine"
