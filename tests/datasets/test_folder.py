"""The data set `folder`: classes, splits and boxes of a user's own images."""

import os
from pathlib import Path

import pytest

from cnnsens_bench.datasets import listing, load
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.image_formats import HEIC_ENDINGS, photograph_endings

HEADER = "path,x,y,w,h\n"


def tree(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def test_what_counts_as_an_image(tmp_path: Path) -> None:
    root = tree(
        tmp_path, "cat/1.jpg", "cat/2.WebP", "cat/deep/er/3.TIFF", "cat/a.jpg/4.png", "cat/.5.jpg", "cat/.h/6.jpg",
        "cat/7.txt", "8.jpg", ".dog/9.jpg", "empty/notes.txt",
    )  # fmt: skip
    samples = load("folder", root, None, {})
    assert samples.classes == ("cat",)
    assert samples.table["image_id"].tolist() == ["cat/1.jpg", "cat/2.WebP", "cat/a.jpg/4.png", "cat/deep/er/3.TIFF"]
    assert samples.notes == (
        "left out: 2 files that are not read as images (.txt), 1 image in no class folder (8.jpg), "
        "1 class folder without images (empty), 3 hidden files or folders (.5.jpg, .dog, .h)",
    )


def test_a_clean_folder_has_no_note(tmp_path: Path) -> None:
    root = tree(tmp_path, "cat/1.jpg", "dog/2.png", "boxes.csv", "mine.csv")
    (root / "mine.csv").write_text(HEADER)
    assert load("folder", root, None, {"boxes": str(root / "mine.csv")}).notes == ()


@pytest.mark.parametrize("only", ["train", "val", "valid", "test"])
def test_one_split_alone_is_no_split(tmp_path: Path, only: str) -> None:
    """Its images are proposed for splits by the hash of their paths, as those of class folders are."""
    root = tree(tmp_path, *(f"{only}/{c}/{i}.jpg" for c in ("cat", "dog") for i in range(40)), "notes/a.txt")
    (root / "boxes.csv").write_text(f"{HEADER}{only}/cat/1.jpg,1,2,3,4\n")
    samples = load("folder", root, None, {})
    assert (samples.classes, samples.has_split, len(samples.table)) == (("cat", "dog"), False, 80)
    assert samples.table["image_id"][0] == f"{only}/cat/0.jpg"
    assert 0.1 < (samples.table["split"] == "test").mean() < 0.5
    assert samples.table["box_w"].notna().sum() == 1


def test_two_splits_without_training_images(tmp_path: Path) -> None:
    samples = load("folder", tree(tmp_path, "val/cat/1.jpg", "test/cat/2.jpg"), None, {})
    assert samples.has_split
    assert samples.table["split"].tolist() == ["val", "test"]


def test_a_class_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    samples = load("folder", tree(tmp_path, "bus/1.jpg", "train/a/2.jpg", "tram/3.jpg"), None, {})
    assert (samples.classes, samples.has_split) == (("bus", "train", "tram"), False)
    assert samples.table["image_id"].tolist() == ["bus/1.jpg", "train/a/2.jpg", "tram/3.jpg"]


def test_folders_beside_the_splits_are_told(tmp_path: Path) -> None:
    samples = load("folder", tree(tmp_path, "train/a/1.jpg", "test/a/2.jpg", "test/3.jpg", "more/b/4.jpg"), None, {})
    assert (samples.classes, len(samples.table)) == (("a",), 2)
    assert samples.notes == ("left out: 1 image in no class folder (test/3.jpg), 1 folder beside the splits (more)",)


def test_classes_that_are_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    samples = load("folder", tree(tmp_path, *(f"{i}/a.jpg" for i in range(12))), None, {})
    assert samples.classes == tuple(map(str, range(12)))
    assert samples.table.groupby("class_name")["label"].first().to_dict() == {str(i): i for i in range(12)}
    assert load("folder", tree(tmp_path, "x/a.jpg"), None, {}).classes[:3] == ("0", "1", "10")


def test_a_name_of_ones_own(tmp_path: Path) -> None:
    root = tree(tmp_path, "cat/1.jpg")
    assert load("folder", root, None, {}).name == "folder"
    assert load("folder", root, None, {"name": "my birds"}).name == "my birds"
    assert load("folder", root, None, {"name": 2024}).name == "2024"
    for name in ("", "a/b", "a\nb", None, "x" * 65, ["a"]):
        with pytest.raises(UserError, match=r"name is .*: it must be a text of at most 64 characters, without /"):
            load("folder", root, None, {"name": name})


@pytest.mark.parametrize("paths", [[], ["1.jpg"], ["cat/notes.txt"], ["train/1.jpg", "test/2.jpg"], ["val/1.jpg"]])
def test_no_class_at_all(tmp_path: Path, paths: list[str]) -> None:
    with pytest.raises(UserError, match="has no class folders with images: expected one sub-folder") as caught:
        load("folder", tree(tmp_path, *paths), None, {})
    assert ("left out: " in str(caught.value)) == bool(paths)


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


def test_links_are_followed(tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere", "1.jpg", "deep/2.jpg")
    root = tree(tmp_path / "root", "cat/1.jpg", "cat/own/2.jpg")
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "3.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    (root / "cat" / "linked").symlink_to(tmp_path / "elsewhere" / "deep")
    (root / "boxes.csv").write_text(HEADER + "dog/1.jpg,1,2,3,4\n")
    samples = load("folder", root, None, {})
    assert samples.table["image_id"].tolist() == [
        "cat/1.jpg", "cat/3.jpg", "cat/linked/2.jpg", "cat/own/2.jpg", "dog/1.jpg", "dog/deep/2.jpg"
    ]  # fmt: skip
    assert samples.table["uri"][4] == str(root / "dog" / "1.jpg")
    assert samples.table["box_w"].notna().sum() == 1
    assert samples.notes == ()


def test_links_in_circles_end(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", "cat/1.jpg", "cat/own/2.jpg", "dog/3.jpg")
    (root / "cat" / "again").symlink_to(root / "cat")
    (root / "cat" / "all").symlink_to(root)
    (root / "cat" / "above").symlink_to(tmp_path)
    (root / "cat" / "own" / "down").symlink_to(root / "dog")
    (root / "dog" / "back").symlink_to(root / "cat")
    (root / "dog" / "itself").symlink_to(root / "dog" / "itself")
    (root / "all").symlink_to(root)
    samples = load("folder", root, None, {})
    assert samples.table["image_id"].tolist() == [
        "cat/1.jpg", "cat/own/2.jpg", "cat/own/down/3.jpg", "dog/3.jpg", "dog/back/1.jpg", "dog/back/own/2.jpg"
    ]  # fmt: skip
    [note] = samples.notes
    assert "2 links that lead nowhere (cat/own/down/itself, dog/itself)" in note
    assert "without images" not in note
    assert "links to folders that are listed already (all, cat/again, cat/all, …)" in note


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    """An image is one that cannot be read, which a run counts among its failures; anything else is left out."""
    root = tree(tmp_path, "cat/1.jpg")
    (root / "cat" / "2.jpg").symlink_to(root / "gone.jpg")
    (root / "dog").symlink_to(root / "gone")
    samples = load("folder", root, None, {})
    assert samples.table["image_id"].tolist() == ["cat/1.jpg", "cat/2.jpg"]
    assert samples.notes == ("left out: 1 link that leads nowhere (dog)",)


def test_heic_without_its_package_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, "cat/1.jpg", "cat/2.HEIC", "cat/3.heif")
    assert load("folder", root, None, {}).table["image_id"].tolist() == ["cat/1.jpg", "cat/2.HEIC", "cat/3.heif"]
    monkeypatch.setattr(listing, "photograph_endings", lambda: photograph_endings() - HEIC_ENDINGS)
    samples = load("folder", root, None, {})
    assert len(samples.table) == 1
    assert samples.notes == ("left out: 2 images that need the package pillow-heif (.heic, .heif)",)


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("needs a user other than root")
    root = tree(tmp_path, "cat/1.jpg", "dog/2.jpg")
    (root / "dog").chmod(0)
    try:
        assert "1 folder that cannot be read (dog)" in load("folder", root, None, {}).notes[0]
    finally:
        (root / "dog").chmod(0o700)


def test_a_name_that_cannot_be_stored(tmp_path: Path) -> None:
    root = tree(tmp_path, "cat/1.jpg")
    try:
        (root / "cat" / os.fsdecode(b"\xe9.jpg")).touch()
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    with pytest.raises(UserError, match="name is not UTF-8"):
        load("folder", root, None, {})
