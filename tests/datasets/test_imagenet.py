"""The data set `imagenet`: the layouts that its validation images lie in, and what is refused."""

from pathlib import Path

import pytest

from cnnsens_bench.datasets import load
from cnnsens_bench.utils.errors import UserError
from tests.datasets.test_folder import tree

IMAGES = ("n01440764/a.JPEG", "n01443537/b.JPEG", "n01443537/c.JPEG")


@pytest.mark.parametrize("above", ["", "val/", "Data/CLS-LOC/val/", "ILSVRC/Data/CLS-LOC/val/"])
def test_layouts(above: str, tmp_path: Path) -> None:
    root = tree(
        tmp_path / "imagenet", *(above + name for name in IMAGES), *([f"{above}../train/n9/x.JPEG"] if above else [])
    )
    for samples in (load("imagenet", root, None, {}), load("imagenet", None, tmp_path, {})):
        assert (samples.name, samples.classes) == ("imagenet", ("n01440764", "n01443537"))
        assert samples.table["image_id"].tolist() == list(IMAGES)
        assert set(samples.table["split"]) == {"test"}
    assert load("imagenet", root, None, {"name": "imagenet-a"}).name == "imagenet-a"


@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        (["val/ILSVRC2012_val_1.JPEG"], r"val has no class folders .* 1 image in no class folder \(ILSVRC"),
        (["val/n01440764/a.JPEG", "val/tench/b.JPEG"], "'tench', which is no WordNet id: expected val/<wnid>"),
        (["train/n01440764/a.JPEG"], "has a folder 'train', which is no WordNet id"),
        (["val/n01440764/readme.txt"], r"no class folders with images: expected val/<wnid>/<image>.*\(.txt\)"),
    ],
)  # fmt: skip
def test_what_is_refused(paths: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        load("imagenet", tree(tmp_path, *paths), None, {})


def test_a_data_root_without_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the folder .*/imagenet does not exist; get the validation images from https"):
        load("imagenet", None, tmp_path, {})
