"""The data set `flowers102`: its MATLAB lists, complete and damaged."""

from pathlib import Path
from typing import Any

import pytest
from scipy.io import savemat
from torchvision.datasets import Flowers102

from cnnsens_bench.datasets import load
from cnnsens_bench.datasets.flowers102 import NAMES
from cnnsens_bench.utils.errors import UserError

SETS: dict[str, Any] = {"trnid": [[3, 1]], "valid": [[2]], "tstid": [[4, 5]]}


def lay_out(root: Path, labels: Any = ([102, 1, 102, 77, 77],), **sets: Any) -> Path:
    root.mkdir(parents=True)
    savemat(root / "imagelabels.mat", {"labels": labels})
    savemat(root / "setid.mat", SETS | sets)
    return root


def test_the_official_names() -> None:
    assert len(NAMES) == len(set(NAMES)) == 102
    assert list(NAMES) == Flowers102.classes


def test_labels_count_the_classes_that_occur(tmp_path: Path) -> None:
    samples = load("flowers102", lay_out(tmp_path / "f"), None, {})
    assert samples.classes == ("pink primrose", "passion flower", "blackberry lily")
    table = samples.table
    assert table["image_id"].tolist() == [f"image_0000{i}" for i in range(1, 6)]
    assert table["label"].tolist() == [2, 0, 2, 1, 1]
    assert table["split"].tolist() == ["train", "val", "train", "test", "test"]
    assert table.loc[0, "uri"] == str(tmp_path / "f" / "jpg" / "image_00001.jpg")
    assert table["box_x"].isna().all()


def test_lists_of_one(tmp_path: Path) -> None:
    samples = load("flowers102", lay_out(tmp_path / "f", [[7]], trnid=[[1]], valid=[], tstid=[]), None, {})
    assert samples.table["split"].tolist() == ["train"]


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [
        ({"labels": [[1, 2, 3, 4, 103]]}, r"imagelabels\.mat has classes beyond 1 to 102"),
        ({"labels": [[1, 2, 3, 4, 0]]}, r"imagelabels\.mat has classes beyond 1 to 102"),
        ({"labels": [[1, 2.5, 3, 4, 5]]}, r"imagelabels\.mat .*labels is no list of whole numbers"),
        ({"labels": ["abcde"]}, r"imagelabels\.mat .*labels is no list of whole numbers"),
        ({"tstid": [[4, float("nan")]]}, r"setid\.mat .*tstid is no list of whole numbers"),
        ({"tstid": [[4, 0]]}, r"setid\.mat names images beyond"),
        ({"tstid": [[1, 4]]}, "lists image 'image_00001' twice"),
        ({"trnid": [], "valid": [], "tstid": []}, "has no images"),
    ],
)
def test_damaged_lists(tmp_path: Path, lists: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        load("flowers102", lay_out(tmp_path / "f", **lists), None, {})
    assert "\n" not in str(caught.value)


def test_an_absent_list_is_named(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "f")
    savemat(root / "setid.mat", {"trnid": [[1]]})
    with pytest.raises(UserError, match=r"setid\.mat cannot be read \(KeyError: 'valid'\)"):
        load("flowers102", root, None, {})
    (root / "imagelabels.mat").unlink()
    with pytest.raises(UserError, match=r"imagelabels\.mat cannot be read \(FileNotFoundError"):
        load("flowers102", root, None, {})


def test_a_list_that_was_cut_short(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "f")
    whole = (root / "setid.mat").read_bytes()
    for length in range(0, len(whole) - 8, 5):
        (root / "setid.mat").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"setid\.mat"):
            load("flowers102", root, None, {})
