"""All data sets: official layouts, hostile lists, and real data."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from cnnsens_bench.datasets import datasets, load
from cnnsens_bench.datasets.base import path_below
from cnnsens_bench.utils.errors import UserError


def cub(root: Path, **changes: str) -> Path:
    files = {
        "images.txt": "1 001.Albatross/a.jpg\n2 003.Ani/b.jpg\n3 003.Ani/c d.jpg\n",
        "classes.txt": "1 001.Albatross\n2 002.Absent\n3 003.Ani\n",
        "image_class_labels.txt": "1 1\n2 3\n3 3\n4 2\n",
        "train_test_split.txt": "1 1\n2 0\n3 1\n4 0\n",
        "bounding_boxes.txt": "1 60.0 27.0 325.0 304.0\n2 1 2 3.5 4\n3 0 0 1 1\n",
    }
    (root / "images").mkdir(parents=True)
    for name, text in (files | {f"{key}.txt": value for key, value in changes.items()}).items():
        (root / name).write_text(text)
    return root


def pets(root: Path, trainval: str = "Bengal_1 6 1 1\n", xml: str | None = None) -> Path:
    (root / "annotations" / "xmls").mkdir(parents=True)
    (root / "annotations" / "trainval.txt").write_text("#Image CLASS-ID SPECIES BREED ID\n" + trainval)
    (root / "annotations" / "test.txt").write_text("american_bulldog_12 2 1 1\n")
    if xml is not None:
        (root / "annotations" / "xmls" / "Bengal_1.xml").write_text(xml)
    return root


CORNERS = "<xmin>333</xmin><ymin>72</ymin><xmax>425</xmax><ymax>158</ymax>"
BOX = f"<annotation><object><bndbox>{CORNERS}</bndbox></object></annotation>"


def test_cub_in_its_official_layout(tmp_path: Path) -> None:
    samples = load("cub200", cub(tmp_path / "CUB"), None, {})
    table = samples.table.set_index("image_id")
    assert samples.classes == ("001.Albatross", "003.Ani")  # a class without images does not count
    assert table["label"].to_dict() == {"1": 0, "2": 1, "3": 1}
    assert table["split"].to_dict() == {"1": "train", "2": "test", "3": "train"}
    assert table.loc["2", ["box_x", "box_y", "box_w", "box_h"]].tolist() == [1, 2, 3.5, 4]
    assert table.loc["3", "uri"].endswith("images/003.Ani/c d.jpg")


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("bounding_boxes", "1 2 3\n", "bounding_boxes.txt, line 1: expected an id and box_x"),
        ("bounding_boxes", "1 1 1 1 1\n2 x 1 1 1\n", "bounding_boxes.txt, line 2"),
        ("bounding_boxes", "1 1 1 1 1\n", "bounding_boxes.txt lacks image '2'"),
        ("images", "1 a.jpg\n1 b.jpg\n", "images.txt lists id '1' twice"),
        ("images", "1 ../../secret.jpg\n", "names '../../secret.jpg', which lies outside"),
        ("images", "1 /etc/passwd\n", "names '/etc/passwd'"),
        ("images", "", "has no images"),
        ("image_class_labels", "1 1\n2 9\n3 3\n", "class 9 is not in classes.txt"),
    ],
)
def test_damaged_cub_lists(tmp_path: Path, file: str, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load("cub200", cub(tmp_path / "CUB", **{file: text}), None, {})


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    root = cub(tmp_path / "CUB")
    (root / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"classes\.txt cannot be read"):
        load("cub200", root, None, {})


def test_pets_in_their_official_layout(tmp_path: Path) -> None:
    samples = load("oxford_pets", pets(tmp_path / "pets", xml=BOX), None, {})
    assert samples.classes == ("american_bulldog", "Bengal")
    table = samples.table.set_index("image_id")
    assert table["label"].to_dict() == {"Bengal_1": 1, "american_bulldog_12": 0}
    # Corners count from 1 and lie inside: 333 to 425 are 93 columns, the first of which is column 332.
    assert table.loc["Bengal_1", ["box_x", "box_y", "box_w", "box_h"]].tolist() == [332, 71, 93, 87]
    assert np.isnan(table.loc["american_bulldog_12", "box_x"])
    assert samples.mask_range == (1, 1)


@pytest.mark.parametrize(
    ("xml", "sentence"),
    [
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotation/>', "declares entities"),
        ("<annotation>", "no readable bndbox"),
        ("<annotation/>", "no readable bndbox"),
        (BOX.replace("333", "x"), "no readable bndbox"),
    ],
)
def test_hostile_annotations(tmp_path: Path, xml: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load("oxford_pets", pets(tmp_path / "pets", xml=xml), None, {})


def test_a_damaged_pets_list(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trainval\.txt, line 2"):
        load("oxford_pets", pets(tmp_path / "pets", trainval="Bengal_1\n"), None, {})


def test_flowers_in_torchvisions_layout(tmp_path: Path) -> None:
    root = tmp_path / "flowers-102"
    root.mkdir()
    savemat(root / "imagelabels.mat", {"labels": [[5, 9, 5, 9]]})
    savemat(root / "setid.mat", {"trnid": [[1]], "valid": [[2]], "tstid": [[4, 3]]})
    samples = load("flowers102", None, tmp_path, {})
    table = samples.table.set_index("image_id")
    assert table["split"].to_dict() == {
        "image_00001": "train", "image_00002": "val", "image_00003": "test", "image_00004": "test"
    }  # fmt: skip
    assert table["label"].tolist() == [0, 1, 0, 1]
    savemat(root / "setid.mat", {"trnid": [[1]], "valid": [[2]], "tstid": [[44]]})
    with pytest.raises(UserError, match="beyond those"):
        load("flowers102", root, None, {})
    (root / "setid.mat").write_bytes(b"x")
    with pytest.raises(UserError, match="cannot be read"):
        load("flowers102", root, None, {})


def tree(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    return root


def test_a_folder_of_classes(tmp_path: Path) -> None:
    names = [f"{c}/{i}.jpg" for c in ("cat", "dog") for i in range(60)]
    root = tree(tmp_path / "a", *names, "cat/deep/x.PNG", "cat/notes.txt", ".hidden/y.jpg")
    samples = load("folder", root, None, {})
    assert samples.classes == ("cat", "dog")
    assert len(samples.table) == 121
    before = samples.table.set_index("image_id")["split"]
    assert 0.15 < (before == "test").mean() < 0.45
    after = load("folder", tree(root, "cat/new1.jpg", "bird/new2.jpg"), None, {}).table.set_index("image_id")["split"]
    assert (after[before.index] == before).all()


@pytest.mark.parametrize("other", ["test", "val", "valid"])
def test_a_folder_with_splits(tmp_path: Path, other: str) -> None:
    samples = load("folder", tree(tmp_path / "a", "train/cat/1.jpg", f"{other}/cat/2.jpg"), None, {})
    assert samples.table["split"].tolist() == ["train", "test"]


@pytest.mark.parametrize(
    ("csv", "sentence"),
    [
        ("path,x,y,w\n", "lacks the column 'h'"),
        ("path,x,y,w,h\n../b.jpg,1,1,1,1\n", "line 2 names '../b.jpg'"),
        ("path,x,y,w,h\ncat/1.jpg,1,1,1,1\ncat/9.jpg,1,1,1,1\n", "line 3: there is no image 'cat/9.jpg'"),
        ("path,x,y,w,h\ncat/1.jpg,1,one,1,1\n", "line 2: x, y, w and h must be numbers"),
        ("path,x,y,w,h\ncat/1.jpg,1,1,1,1\ncat/1.jpg,1,1,1,1\n", "twice"),
        ("", "cannot be read"),
    ],
)
def test_damaged_boxes(tmp_path: Path, csv: str, sentence: str) -> None:
    root = tree(tmp_path / "a", "cat/1.jpg", "cat/2.jpg")
    (root / "boxes.csv").write_text(csv)
    with pytest.raises(UserError, match=sentence):
        load("folder", root, None, {})


def test_boxes_of_a_folder(tmp_path: Path) -> None:
    root = tree(tmp_path / "a", "cat/1.jpg", "cat/2.jpg")
    (root / "mine.csv").write_text("path,x,y,w,h\ncat/2.jpg,1,2,3,4\n")
    table = load("folder", root, None, {"boxes": str(root / "mine.csv")}).table.set_index("image_id")
    assert table.loc["cat/2.jpg", ["box_x", "box_y", "box_w", "box_h"]].tolist() == [1, 2, 3, 4]
    assert np.isnan(table.loc["cat/1.jpg", "box_x"])


@given(parts=st.lists(st.sampled_from(["..", ".", "a", "/", "etc", "~"]), min_size=1, max_size=8))
def test_no_path_leads_outside(parts: list[str]) -> None:
    root = Path("/srv/data")
    try:
        path = path_below(root, "/".join(parts), "list.txt")
    except UserError:
        return
    assert path.resolve().is_relative_to(root)


@pytest.mark.parametrize("name", [n for n in datasets if n != "plumage"])
def test_an_absent_folder_names_the_way_out(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.root=") as caught:
        load(name, None, None, {})
    assert datasets[name].source in str(caught.value)
    with pytest.raises(UserError, match="does not exist"):
        load(name, tmp_path / "nowhere", None, {})


@pytest.mark.parametrize("name", datasets)
def test_unknown_options_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="has no option 'colour'"):
        load(name, None, None, {"colour": 1})


@pytest.mark.parametrize("name", ["oxford_pets", "flowers102"])
def test_a_download_that_fails_names_the_source(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.OxfordIIITPet.__init__", refuse)
    monkeypatch.setattr("torchvision.datasets.Flowers102.__init__", refuse)
    with pytest.raises(UserError, match=r"cannot be downloaded \(no network\).*robots\.ox\.ac\.uk"):
        load(name, None, tmp_path, {"download": True})


def test_an_unknown_data_set_lists_the_near_ones() -> None:
    with pytest.raises(UserError, match="did you mean 'cub200'"):
        load("cub", None, None, {})


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    one, two = (load("cub200", cub(tmp_path / name / "CUB"), None, {}) for name in "ab")
    assert one.fingerprint() == two.fingerprint()
    moved = one.with_table(one.table.assign(box_x=one.table["box_x"] + 1))
    assert moved.fingerprint() != one.fingerprint()


def test_the_real_birds(data_root: Path) -> None:
    samples = load("cub200", None, data_root, {})
    assert samples.table["split"].value_counts().to_dict() == {"train": 300, "test": 243}
    assert len(samples.classes) == 10
    assert samples.table["uri"].map(lambda uri: Path(uri).is_file()).all()


def test_the_real_pets(data_root: Path) -> None:
    samples = load("oxford_pets", None, data_root, {})
    assert samples.classes == ("Abyssinian", "american_bulldog", "Bengal")
    assert len(samples.table) == 598
    assert samples.table["box_x"].notna().sum() == 296
