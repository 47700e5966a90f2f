"""The data set `cub200` in its official layout: complete, in part, damaged and real."""

import math
from pathlib import Path

import pandas as pd
import pytest

from cnnsens_bench.datasets import load
from cnnsens_bench.utils.errors import UserError

LISTS = {
    "images": "1 001.Auk/a.jpg\n2 002.Ani/b.jpg\n",
    "classes": "1 001.Auk\n2 002.Ani\n3 003.Absent\n",
    "image_class_labels": "1 1\n2 2\n3 3\n",
    "train_test_split": "1 1\n2 0\n3 0\n",
    "bounding_boxes": "1 60.0 27.0 325.0 304.0\n2 0 0 1 1\n",
}


def lay_out(root: Path, **changes: str | bytes) -> Path:
    (root / "images").mkdir(parents=True)
    for name, text in (LISTS | changes).items():
        (root / f"{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def test_absent_images_are_left_to_the_decoder(tmp_path: Path) -> None:
    samples = load("cub200", lay_out(tmp_path / "CUB"), None, {})
    assert samples.classes == ("001.Auk", "002.Ani")
    assert samples.table["class_name"].tolist() == ["001.Auk", "002.Ani"]
    assert samples.table["image_id"].tolist() == ["1", "2"]
    assert not any(Path(uri).exists() for uri in samples.table["uri"])


def test_masks_where_there_are_some(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "CUB")
    mask = root / "segmentations" / "001.Auk" / "a.png"
    mask.parent.mkdir(parents=True)
    mask.touch()
    assert load("cub200", root, None, {}).table["mask_uri"].tolist() == [str(mask), None]


def test_a_mask_that_is_a_link_outside_is_refused(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "CUB")
    (tmp_path / "secret.png").touch()
    (root / "segmentations" / "001.Auk").mkdir(parents=True)
    (root / "segmentations" / "001.Auk" / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match="lies outside"):
        load("cub200", root, None, {})


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("train_test_split", "1 1\n2 2\n", r"train_test_split\.txt, line 2"),
        ("train_test_split", "1 1\n", r"train_test_split\.txt lacks image '2'"),
        ("bounding_boxes", "1 nan 1 1 1\n2 1 1 1 1\n", r"bounding_boxes\.txt, line 1"),
        ("bounding_boxes", "1 1 1 1 1\n2 1 1 inf 1\n", r"bounding_boxes\.txt, line 2"),
        ("bounding_boxes", "1 1 1 1 1 1\n2 1 1 1 1\n", r"bounding_boxes\.txt, line 1"),
        ("bounding_boxes", "1 1 1 1 1\n\n2 1 1 1 1\n2 1 1 1 1\n", r"bounding_boxes\.txt lists id '2' twice .*line 4"),
        ("images", "x a.jpg\n", r"images\.txt, line 1"),
        ("images", "1\n", r"images\.txt, line 1"),
        ("images", "1 .\n", r"images\.txt names '\.'"),
        ("images", "1 a\0.jpg\n", r"images\.txt names .*no path"),
        ("images", b"1 \xe9.jpg\n", r"images\.txt cannot be read \(UnicodeDecodeError\)"),
        ("image_class_labels", "1 1\n2 1_0\n", r"image_class_labels\.txt, line 2"),
        ("image_class_labels", "1 1\n2 9\n", r"image_class_labels\.txt, image '2': class 9 is not in classes\.txt"),
        ("image_class_labels", "1 1\n2 ²\n", r"image_class_labels\.txt, line 2"),
    ],
)
def test_damaged_lists(tmp_path: Path, file: str, text: str | bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        load("cub200", lay_out(tmp_path / "CUB", **{file: text}), None, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", LISTS)
def test_an_absent_list_is_named(tmp_path: Path, file: str) -> None:
    root = lay_out(tmp_path / "CUB")
    (root / f"{file}.txt").unlink()
    with pytest.raises(UserError, match=rf"{file}\.txt cannot be read \(FileNotFoundError\).*needs images\.txt"):
        load("cub200", root, None, {})


def test_names_too_long_for_the_disk_are_absent_images(tmp_path: Path) -> None:
    samples = load("cub200", lay_out(tmp_path / "CUB", images=f"1 {'x' * 5000}.jpg\n"), None, {})
    assert samples.table["mask_uri"].tolist() == [None]


def test_an_absent_folder_names_source_and_layout(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"caltech\.edu/datasets/cub_200_2011/.*images\.txt.*bounding_boxes\.txt"):
        load("cub200", None, tmp_path, {})


def test_the_real_lists(data_root: Path) -> None:
    """The table agrees with the official files, which are read in another way here."""
    folder = data_root / "CUB_200_2011"
    table = load("cub200", folder, None, {}).table.set_index("image_id")
    boxes = pd.read_csv(folder / "bounding_boxes.txt", sep=" ", header=None, index_col=0)
    assert len(table) == 543
    assert (table[["box_x", "box_y", "box_w", "box_h"]].to_numpy() == boxes.to_numpy()).all()
    assert (table["uri"].map(lambda uri: Path(uri).parent.name) == table["class_name"]).all()
    assert table["label"].is_monotonic_increasing
    assert table["mask_uri"].isna().all()
    assert not table["box_w"].map(math.isnan).any()
