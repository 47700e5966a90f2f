"""Pre-made sets on disk: what is found, where the picture of an image lies, and what is damaged."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnsens_bench.images.stored import StoredReader, find_stored
from cnnsens_bench.utils.errors import ImageError, UserError
from cnnsens_bench.utils.storage import storage_path


def picture(path: Path, value: int = 100, size: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(path)


def test_corruptions_lie_in_the_folder_or_in_groups(tmp_path: Path) -> None:
    for name in ("fog/1", "fog/3", "noise/gaussian_noise/2", "noise/shot_noise/5", "labels/x", ".trash/1", "not-one/1"):
        picture(tmp_path / name / "n01440764" / "a.png")
    np.save(tmp_path / "snow.npy", np.zeros((20, 4, 4, 3), np.uint8))
    np.save(tmp_path / "labels.npy", np.zeros(20, np.uint8))
    stored = find_stored(tmp_path)
    assert stored
    assert {one.name: (one.path, one.severities, one.rows) for one in stored.corruptions} == {
        "fog": ("fog", (1, 3), 0),
        "gaussian_noise": ("noise/gaussian_noise", (2,), 0),
        "shot_noise": ("noise/shot_noise", (5,), 0),
        "snow": ("snow.npy", (1, 2, 3, 4, 5), 4),
    }
    assert "fog (severities 1, 3)" in stored.describe()
    assert hash(pickle.loads(pickle.dumps(stored))) == hash(stored)  # noqa: S301


def test_a_folder_without_any_is_none(tmp_path: Path) -> None:
    picture(tmp_path / "n01440764" / "a.png")
    assert find_stored(tmp_path) is None
    assert find_stored(tmp_path / "absent") is None
    assert find_stored(tmp_path / "n01440764" / "a.png") is None


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((21, 4, 4, 3), np.uint8), "fog.npy has 21 rows: expected are the images at severities 1 to 5"),
        (np.zeros((20, 4, 4, 3), np.float32), "holds <f4 of the shape (20, 4, 4, 3): images must be uint8"),
        (None, "is no array that numpy.save has written"),
    ],
)
def test_an_array_of_another_kind_is_one_sentence(tmp_path: Path, array: np.ndarray | None, sentence: str) -> None:
    if array is None:
        (tmp_path / "fog.npy").write_bytes(b"no array at all")
    else:
        np.save(tmp_path / "fog.npy", array)
    with pytest.raises(UserError) as error:
        find_stored(tmp_path)
    assert sentence in str(error.value)


@pytest.mark.parametrize("kind", ["path", "URI"])
@pytest.mark.parametrize(
    ("image_id", "class_name", "file"),
    [
        ("n01440764/a.png", "n01440764", "n01440764/a.png"),
        ("n01440764/a.png", "n01440764", "n01440764/a.JPEG"),  # stored in another format
        ("val/n01440764/a.JPEG", "n01440764", "n01440764/a.jpg"),  # below the folder of a split
        ("a", "n01440764", "n01440764/a.JPEG"),  # the key of a shard, or a flat list
        ("deep/er/a.png", "er", "deep/er/a.jpeg"),
        ("n01440764/a.png", None, "n01440764/a.JPEG"),
    ],
)
def test_a_picture_is_named_like_its_image(
    tmp_path: Path, kind: str, image_id: str, class_name: str | None, file: str
) -> None:
    picture(tmp_path / "fog" / "2" / file, 7)
    root = tmp_path if kind == "path" else storage_path(f"memory://{tmp_path.name}")
    if kind == "URI":
        for found in tmp_path.rglob("*.*"):
            root.fs.pipe_file((root / found.relative_to(tmp_path).as_posix()).path, found.read_bytes())
    stored = find_stored(root)
    assert stored
    reader = StoredReader(stored)
    row = {"image_id": image_id, "uri": "elsewhere", "class_name": class_name}
    for _ in range(2):  # the second time the likeliest name is known
        found = reader.read(row, "fog", 2)
        assert found is not None
        assert abs(int(found.pixels.mean()) - 7) < 2
    assert reader.read({**row, "image_id": "n01440764/other.png"}, "fog", 2) is None


def test_a_damaged_picture_is_not_an_absent_one(tmp_path: Path) -> None:
    picture(tmp_path / "fog" / "1" / "c" / "a.jpg")
    (tmp_path / "fog" / "1" / "c" / "b.jpg").write_bytes(b"no picture")
    stored = find_stored(tmp_path)
    assert stored
    reader = StoredReader(stored)
    with pytest.raises(ImageError, match=r"b\.jpg: not an image"):
        reader.read({"image_id": "c/b.png", "uri": "", "class_name": "c"}, "fog", 1)
    assert reader.read({"image_id": "c/c.png", "uri": "", "class_name": "c"}, "fog", 1) is None


def test_rows_of_an_array_go_severity_by_severity(tmp_path: Path) -> None:
    np.save(tmp_path / "fog.npy", np.zeros((50, 4, 4, 3), np.uint8))
    stored = find_stored(tmp_path)
    assert stored
    reader = StoredReader(stored)
    for row, number in (
        ({"image_id": "7", "uri": "x"}, 7),
        ({"image_id": "test/0003.png", "uri": "x"}, 3),
        ({"image_id": "airplane", "uri": "/d/test.npy#9"}, 9),
    ):
        assert reader.uris(row, "fog", 3) == [f"{tmp_path}/fog.npy#{20 + number}"]
    assert reader.uris({"image_id": "10", "uri": "x"}, "fog", 1) == []
    assert reader.read({"image_id": "frog", "uri": "frog.png"}, "fog", 1) is None
