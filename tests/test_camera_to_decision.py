"""The way from photographs to a decision, command by command as its page has it."""

import json
import shlex
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from cnnsens_bench import cli
from cnnsens_bench.datasets import load
from cnnsens_bench.results import open_results
from tests.test_docs import blocks

PAGE = "docs/howto/camera-to-decision.md"
SIGMA = 8.0


def take_photographs(folder: Path) -> None:
    """Write twenty drawn birds as a camera of known noise would have stored them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, uri in enumerate(load("plumage", None, None, {}).split("test")["uri"].head(20)):
        pixels = np.asarray(Image.open(uri).convert("RGB").resize((64, 64), Image.Resampling.BICUBIC), float)
        noisy = np.clip(np.rint(pixels + rng.normal(0, SIGMA, pixels.shape)), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{number:02}.png")


@pytest.mark.slow
def test_the_page_is_walked_from_photographs_to_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    take_photographs(tmp_path / "photos")
    commands = [shlex.split(line)[1:] for block in blocks(PAGE, "bash") for line in block.splitlines()]
    assert [words[0] for words in commands] == [
        "camera",
        "run",
        *["leaderboard", "figures", "figures"],
        *["leaderboard"] * 2,
    ]
    for words in commands:
        expected = (0, 1) if "--fail-below" in words else (0,)
        assert cli.main(words) in expected, words

    camera = json.loads(Path("doorbell.json").read_text("utf-8"))
    noise = camera["measurements"]["noise_red"]
    assert noise["value"] == pytest.approx(SIGMA, rel=0.15) or noise["low"] <= SIGMA <= noise["high"]
    with open_results("runs/doorbell") as results:
        mixed = results.accuracy["degradation"].str.startswith("gaussian_rgb(")
        assert set(results.accuracy.loc[mixed, "model"]) == {"timm/test_resnet", "timm/test_vit"}
    for figure in ("curves.png", "refusing.png"):
        assert Image.open(figure).size[0] > 300
    assert ElementTree.parse("gate.xml").getroot().iter("testcase")
    assert "timm/test_resnet" in next(Path("card").glob("*.md")).read_text("utf-8")
