"""Data sets at a URI have the same tables as in a folder, and read nothing outside it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from upath import UPath

from cnnsens_bench import images
from cnnsens_bench.datasets import load
from cnnsens_bench.datasets.base import path_below
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import names_below, storage_path


@pytest.fixture
def bucket() -> Iterator[UPath]:
    found = UPath("memory://data-sets")
    yield found
    if found.exists():
        found.fs.rm(found.path, recursive=True)


def mirrored(folder: Path, bucket: UPath) -> UPath:
    for name in names_below(folder):
        bucket.fs.pipe_file((bucket / name).path, (folder / name).read_bytes())
    return bucket


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (20, 24, 3), np.uint8)
    Image.fromarray(pixels if path.suffix != ".png" else pixels[..., 0] // 128 + 1).save(path)


def cub(root: Path) -> None:
    names = ["a/1.jpg", "b/with space.jpg"]
    for name in names:
        picture(root / "images" / name)
    picture(root / "segmentations" / "a" / "1.png")
    lists = {
        "images": names, "image_class_labels": ["1", "2"], "train_test_split": ["1", "0"],
        "bounding_boxes": ["1 2 3 4", "2.5 3 4 5"], "classes": ["a", "b"],
    }  # fmt: skip
    for name, values in lists.items():
        (root / f"{name}.txt").write_text("".join(f"{i} {value}\n" for i, value in enumerate(values, 1)))


def pets(root: Path) -> None:
    for name in ("a_1", "b_1"):
        picture(root / "images" / f"{name}.jpg")
        picture(root / "annotations" / "trimaps" / f"{name}.png")
    (root / "annotations" / "trainval.txt").write_text("a_1 1 1 1\n")
    (root / "annotations" / "test.txt").write_text("b_1 2 1 1\n")
    (root / "annotations" / "xmls").mkdir()
    box = "<xmin>3</xmin><ymin>4</ymin><xmax>9</xmax><ymax>12</ymax>"
    xml = f"<annotation><object><bndbox>{box}</bndbox></object></annotation>"
    (root / "annotations" / "xmls" / "a_1.xml").write_text(xml)


def flowers(root: Path) -> None:
    for number in (1, 2):
        picture(root / "jpg" / f"image_{number:05d}.jpg")
    savemat(root / "imagelabels.mat", {"labels": [[1, 2]]})
    savemat(root / "setid.mat", {"trnid": [[1]], "valid": np.zeros((1, 0)), "tstid": [[2]]})


@pytest.mark.parametrize(("name", "make"), [("cub200", cub), ("oxford_pets", pets), ("flowers102", flowers)])
def test_the_same_table_as_in_a_folder(name: str, make: object, tmp_path: Path, bucket: UPath) -> None:
    make(tmp_path)  # type: ignore[operator]
    here, there = load(name, tmp_path, None, {}), load(name, mirrored(tmp_path, bucket), None, {})
    assert there.fingerprint() == here.fingerprint()
    for column in ("uri", "mask_uri"):
        expected = [uri and uri.replace(str(tmp_path), str(bucket)) for uri in here.table[column]]
        assert there.table[column].tolist() == expected
    for one, other in zip(here.table.to_dict("records"), there.table.to_dict("records"), strict=True):
        decoded = images.decode(other["uri"])
        assert np.array_equal(decoded.pixels, images.decode(one["uri"]).pixels)
        if one["mask_uri"]:
            masks = [images.decode_mask(row["mask_uri"], decoded, (1, 1)) for row in (one, other)]
            assert np.array_equal(*masks)


def test_folders_and_splits(pictures: Path, tmp_path: Path, bucket: UPath) -> None:
    shutil.copytree(pictures, tmp_path / "train", ignore=shutil.ignore_patterns("boxes.csv"))
    shutil.copytree(pictures, tmp_path / "val", ignore=shutil.ignore_patterns("boxes.csv"))
    picture(tmp_path / "train" / "class_0" / ".hidden" / "1.jpg")
    picture(tmp_path / "train" / "class_0" / "a[1] é" / "1.jpg")
    shutil.copy(pictures / "boxes.csv", tmp_path)
    boxes = (tmp_path / "boxes.csv").read_text().replace("class_", "val/class_")
    (tmp_path / "boxes.csv").write_text(boxes)
    there = load("folder", mirrored(tmp_path, bucket), None, {})
    assert there.fingerprint() == load("folder", tmp_path, None, {}).fingerprint()
    odd = there.table[there.table["image_id"].str.contains("é")]
    assert images.decode(odd["uri"].iloc[0]).width == 24  # its name is no pattern
    assert there.table["box_w"].notna().sum() == 42


def test_one_split_alone_and_what_is_left_out(tmp_path: Path, bucket: UPath) -> None:
    for name in (
        "val/cat/1.jpg",
        "val/dog/a/2.jpg",
        "val/cat/.h/3.jpg",
        "val/cat/.h/4.jpg",
        "val/5.jpg",
        "notes/6.txt",
    ):
        picture(tmp_path / name) if name.endswith("jpg") else (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "6.txt").touch()
    here, there = load("folder", tmp_path, None, {}), load("folder", mirrored(tmp_path, bucket), None, {})
    assert there.fingerprint() == here.fingerprint()
    assert (there.has_split, there.table["image_id"].tolist()) == (False, ["val/cat/1.jpg", "val/dog/a/2.jpg"])
    assert there.notes == here.notes == (
        "left out: 1 file that is not read as an image (.txt), 1 image in no class folder (val/5.jpg), "
        "1 class folder without images (notes), 1 hidden file or folder (.h)",
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "a/../../secret.jpg", "/etc/passwd", "a::file:///etc/passwd", "s3://b/x", "", ".", "a//b"]
)
def test_nothing_outside_is_read(name: str, bucket: UPath) -> None:
    with pytest.raises(UserError, match=r"images\.txt names '.*', which is no file below memory://"):
        path_below(bucket, name, "images.txt")


def test_a_list_that_climbs(tmp_path: Path, bucket: UPath) -> None:
    cub(tmp_path)
    (tmp_path / "images.txt").write_text("1 a/1.jpg\n2 ../../secret.jpg\n")
    with pytest.raises(UserError, match="which is no file below"):
        load("cub200", mirrored(tmp_path, bucket), None, {})


def test_what_is_not_there() -> None:
    with pytest.raises(UserError, match="the folder memory://nothing does not exist"):
        load("cub200", storage_path("memory://nothing"), None, {})
    with pytest.raises(UserError, match="a download needs data_root=<folder>"):
        load("flowers102", storage_path("memory://nothing/flowers-102"), None, {"download": True})
