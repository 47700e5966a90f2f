"""The data set `folder`: classes, splits and boxes of a user's own images."""

import os
from pathlib import Path

import pytest
from torchvision.datasets.folder import IMG_EXTENSIONS

from cnnsens_bench.datasets import load
from cnnsens_bench.datasets.folder import ENDINGS
from cnnsens_bench.utils.errors import UserError

HEADER = "path,x,y,w,h\n"


def tree(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def test_the_endings_are_torchvisions() -> None:
    assert IMG_EXTENSIONS == ENDINGS


def test_what_counts_as_an_image(tmp_path: Path) -> None:
    root = tree(
        tmp_path, "cat/1.jpg", "cat/2.WebP", "cat/deep/er/3.TIFF", "cat/a.jpg/4.png", "cat/.5.jpg", "cat/.h/6.jpg",
        "cat/7.txt", "8.jpg", ".dog/9.jpg", "empty/notes.txt",
    )  # fmt: skip
    samples = load("folder", root, None, {})
    assert samples.classes == ("cat",)
    assert samples.table["image_id"].tolist() == ["cat/1.jpg", "cat/2.WebP", "cat/a.jpg/4.png", "cat/deep/er/3.TIFF"]


@pytest.mark.parametrize("paths", [[], ["1.jpg"], ["cat/notes.txt"], ["train/1.jpg", "test/2.jpg"]])
def test_no_class_at_all(tmp_path: Path, paths: list[str]) -> None:
    with pytest.raises(UserError, match="has no class folders with images: expected one sub-folder"):
        load("folder", tree(tmp_path, *paths), None, {})


def test_classes_of_one_split_only(tmp_path: Path) -> None:
    samples = load("folder", tree(tmp_path, "train/cat/1.jpg", "val/emu/2.jpg", "test/dog/3.jpg"), None, {})
    assert samples.classes == ("cat", "dog", "emu")
    assert samples.table.set_index("image_id")["split"].to_dict() == {
        "train/cat/1.jpg": "train", "val/emu/2.jpg": "val", "test/dog/3.jpg": "test"
    }  # fmt: skip
    assert sorted(samples.table["label"]) == [0, 1, 2]


def test_the_split_is_the_same_on_every_machine(tmp_path: Path) -> None:
    """The splits are known answers: another hash would mix the training and test images of earlier checkpoints."""
    table = load("folder", tree(tmp_path, *(f"cat/{i}.jpg" for i in range(8))), None, {}).table
    assert table["split"].tolist() == ["test", "test", "train", "test", "train", "test", "train", "train"]


def test_a_larger_fraction_only_adds_test_images(tmp_path: Path) -> None:
    root = tree(tmp_path, *(f"{c}/{i}.jpg" for c in "ab" for i in range(200)))
    tests = [
        set(load("folder", root, None, {"test_fraction": share}).split("test")["image_id"]) for share in (0.1, 0.3, 0.6)
    ]
    assert tests[0] < tests[1] < tests[2]
    assert len(tests[1]) / 400 == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan"), "0.3", None])
def test_impossible_fractions(tmp_path: Path, fraction: object) -> None:
    with pytest.raises(UserError, match=r"test_fraction is .* must be a number between 0 and 1"):
        load("folder", tree(tmp_path, "cat/1.jpg"), None, {"test_fraction": fraction})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cat/1.jpg,1,1,1,1\ncat/2.jpg,1,one,1,1\n", "line 3: x, y, w and h must be numbers"),
        ("cat/1.jpg,,1,1,1\n", "line 2: x, y, w and h must be numbers"),
        ("cat/1.jpg,1\n", "line 2: x, y, w and h must be numbers"),
        ("cat/1.jpg,1,1,nan,1\n", "line 2: x, y, w and h must be numbers"),
        ("cat/1.jpg,1,1,1,inf\n", "line 2: x, y, w and h must be numbers"),
        ("cat/1.jpg,1,1,1,1,1\n", "line 2 has more cells than the header"),
        ("\n\ncat/9.jpg,1,1,1,1\n", "line 4: there is no image 'cat/9.jpg'"),
        ("cat/1.jpg,1,1,1,1\ncat/1.jpg,1,1,1,1\n", "lists 'cat/1.jpg' twice .*line 3"),
        ("../../secret,1,1,1,1\n", r"line 2 names '\.\./\.\./secret', which lies outside"),
        ("/etc/passwd,1,1,1,1\n", "line 2 names '/etc/passwd', which lies outside"),
        ("cat/out/x.jpg,1,1,1,1\n", "line 2 names 'cat/out/x.jpg', which lies outside"),
        ("cat/\0.jpg,1,1,1,1\n", r"(line 2 names .* no path|cannot be read)"),
    ],
)
def test_damaged_boxes(tmp_path: Path, text: str, sentence: str) -> None:
    root = tree(tmp_path / "root", "cat/1.jpg", "cat/2.jpg")
    (root / "cat" / "out").symlink_to(tmp_path)
    (root / "boxes.csv").write_text(HEADER + text)
    with pytest.raises(UserError, match=rf"boxes\.csv.* ?{sentence}") as caught:
        load("folder", root, None, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column", ["path", "x", "y", "w", "h"])
def test_an_absent_column_is_named(tmp_path: Path, column: str) -> None:
    root = tree(tmp_path, "cat/1.jpg")
    (root / "boxes.csv").write_text(
        ",".join("other" if name == column else name for name in ["path", "x", "y", "w", "h"])
    )
    with pytest.raises(UserError, match=f"lacks the column '{column}': its header must be path,x,y,w,h"):
        load("folder", root, None, {})


def test_unusual_but_right_boxes(tmp_path: Path) -> None:
    """The file has a byte order mark, further columns, quotes, and a class that pandas would read as NaN."""
    root = tree(tmp_path, "NA/a,b.jpg", "cat/2.jpg")
    text = 'note,h,w,y,x,path\nhi,4,3,2,1.25,"NA/a,b.jpg"\n\n'
    (root / "boxes.csv").write_text(text, encoding="utf-8-sig")
    table = load("folder", root, None, {}).table.set_index("image_id")
    assert table.loc["NA/a,b.jpg", ["box_x", "box_y", "box_w", "box_h"]].tolist() == [1.25, 2, 3, 4]
    assert table.loc["cat/2.jpg", ["box_x", "box_y", "box_w", "box_h"]].isna().all()


def test_a_header_alone_gives_no_boxes(tmp_path: Path) -> None:
    root = tree(tmp_path, "cat/1.jpg")
    (root / "boxes.csv").write_text(HEADER)
    assert load("folder", root, None, {}).table["box_x"].isna().all()


def test_boxes_that_are_named_but_absent(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mine\.csv cannot be read"):
        load("folder", tree(tmp_path, "cat/1.jpg"), None, {"boxes": str(tmp_path / "mine.csv")})


def test_a_class_folder_that_is_a_link_outside_is_refused(tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere", "1.jpg")
    root = tree(tmp_path / "root", "cat/1.jpg")
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"names 'dog/1\.jpg', which lies outside"):
        load("folder", root, None, {})


def test_a_name_that_cannot_be_stored(tmp_path: Path) -> None:
    root = tree(tmp_path, "cat/1.jpg")
    try:
        (root / "cat" / os.fsdecode(b"\xe9.jpg")).touch()
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    with pytest.raises(UserError, match="name is not UTF-8"):
        load("folder", root, None, {})
