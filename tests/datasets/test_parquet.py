"""The data set `parquet`: what Hugging Face stores, other columns, and what is refused."""

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from cnnsens_bench import images
from cnnsens_bench.datasets import load, parquet
from cnnsens_bench.utils.errors import UserError
from tests.datasets.forms import as_parquet, samples_below
from tests.datasets.test_webdataset import png


@pytest.fixture
def bucket() -> Iterator[UPath]:
    found = UPath("memory://parquet")
    yield found
    if found.exists():
        found.fs.rm(found.path, recursive=True)


def test_files_as_hugging_face_stores_them(pictures: Path, tmp_path: Path, bucket: UPath) -> None:
    samples = samples_below(pictures, 16)
    folder = as_parquet(tmp_path / "d", samples, 3)
    found = load("parquet", folder, None, {})
    assert (found.name, found.classes, found.notes) == ("parquet", ("class_0", "class_1", "class_2"), ())
    assert found.table["image_id"].tolist() == [f"{name}/{key}" for name, key, _ in samples]
    assert found.table["class_name"].tolist() == [name for name, _, _ in samples]
    assert set(found.table["split"]) == {"test"}
    assert not found.has_split
    for path in folder.iterdir():
        bucket.fs.pipe_file((bucket / path.name).path, path.read_bytes())
    there = load("parquet", bucket, None, {"files": "test-0000{0..2}-of-00003.parquet"})
    assert there.fingerprint() == found.fingerprint()
    for one, other in zip(found.table["uri"], there.table["uri"], strict=True):
        assert np.array_equal(images.decode(one).pixels, images.decode(other).pixels)


def test_other_columns(tmp_path: Path) -> None:
    table = pa.table({
        "jpg": [png(1), png(2), png(3)], "species": pa.array(["cat", "dog", None]).dictionary_encode(), "n": [7, 8, 9],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "x.parquet")
    options = {"image": "jpg", "label": "species"}
    samples = load("parquet", tmp_path / "x.parquet", None, options)
    assert samples.table[["image_id", "class_name"]].to_numpy().tolist() == [["0", "cat"], ["1", "dog"]]
    assert [int(images.decode(uri).pixels[0, 0, 0]) for uri in samples.table["uri"]] == [1, 2]
    assert samples.notes == (
        "image ids are the numbers of rows, since not every image has a path of its own",
        "left out: 1 image without a label (2)",
    )
    numbered = load("parquet", tmp_path / "x.parquet", None, {**options, "ids": "n"})
    assert (numbered.table["image_id"].tolist(), numbered.notes[1:]) == (["7", "8"], ())


def test_splits_and_rows_of_several_files(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        paths = [{"bytes": png(), "path": "same.png"}] * 2
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(
            pa.table({"image": paths, "label": [0, 1]}), tmp_path / "data" / f"{split}-00000-of-00001.parquet"
        )
    samples = load("parquet", tmp_path, None, {"classes": ["cat", "dog", "emu"]})
    assert (samples.has_split, samples.classes) == (True, ("cat", "dog"))
    assert samples.table["split"].tolist() == ["train", "train", "test", "test"]
    assert samples.table["image_id"][3] == "validation-00000-of-00001/1"


@pytest.mark.parametrize(
    ("columns", "options", "sentence"),
    [
        ({"img": [b"x"], "label": [0]}, {}, r"has no column 'image' \(it has img, label\): set dataset.options.image"),
        ({"image": [b"x"], "y": [0]}, {}, r"has no column 'label' \(it has image, y\): set dataset.options.label"),
        ({"image": [3], "label": [0]}, {}, "the column 'image' of .* holds int64: it must be bytes, or a struct"),
        ({"image": [b"x"], "label": [[0]]}, {}, "the column 'label' of .* holds list.*: labels are whole numbers or"),
        ({"image": [b"x"], "label": [0.5]}, {}, "the column 'label' of .* holds double"),
        ({"image": [b"x"], "label": [-1]}, {}, "no image of .* has a label: name another column or split"),
        (
            {"image": [b"x"], "label": [5]},
            {"classes": ["a"]},
            "image '0' has the label 5: it must be one of the 1 clas",
        ),
        ({"image": [b"x"], "label": [0]}, {"ids": "path"}, "the images have no path: take dataset.options.ids=row"),
        ({"image": [b"x"] * 2, "label": [0, 1], "i": [1, 1]}, {"ids": "i"}, "i is the same for several images: take"),
        ({"image": [b"x"], "label": [0]}, {"ids": "i"}, "has no column 'i' .*: set dataset.options.ids"),
        ({"image": [b"x"], "label": [0]}, {"files": "y.parquet"}, "the file .*/y.parquet does not exist: mend"),
        ({"image": [b"x"], "label": [0]}, {"files": "*.parquet"}, r"\*.parquet does not exist"),
    ],
)
def test_what_is_refused(columns: dict[str, list], options: dict, sentence: str, tmp_path: Path) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=sentence):
        load("parquet", tmp_path, None, options)


@pytest.mark.parametrize("content", [b"", b"no Parquet", b"PAR1" + b"x" * 50 + b"PAR1"])
def test_damaged_files(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.parquet cannot be read .*: get it again"):
        load("parquet", tmp_path, None, {})


def test_another_file_is_another_data_set(tmp_path: Path) -> None:
    prints = []
    for value in (b"x", b"longer"):
        pq.write_table(pa.table({"image": [value, value], "label": [0, 1]}), tmp_path / "x.parquet")
        prints.append(load("parquet", tmp_path, None, {}).fingerprint())
    assert prints[0] != prints[1]


def test_large_row_groups_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "LARGE_GROUP", 1 << 20)
    content = np.random.default_rng(0).bytes(1 << 20)
    pq.write_table(pa.table({"image": [content] * 2 + [content[1:]], "label": [0, 1, 0]}), tmp_path / "x.parquet")
    assert (
        "row groups of 2 MB are slow to read: write them with row_group_size=100"
        in load("parquet", tmp_path, None, {"ids": "row"}).notes
    )


def test_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its package is asked to prepare Parquet files once; what it cannot do is one sentence."""
    monkeypatch.setenv("CNNSENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"hf=a/b needs the package datasets .*dataset.root=hf://datasets/a/b"):
        load("parquet", None, None, {"hf": "a/b"})
    prepared = []

    class Builder:
        name, dataset_name, hash = "imagefolder", "b", "123"
        info = types.SimpleNamespace(splits={"train": 1, "test": 1})

        def download_and_prepare(self, folder: str, file_format: str) -> None:
            prepared.append(file_format)
            Path(folder).mkdir(parents=True)
            for split in self.info.splits:
                table = pa.table({"image": [png(), png()], "label": [0, 1]})
                pq.write_table(table, f"{folder}/b-{split}.parquet")

    hub = types.ModuleType("datasets")
    hub.load_dataset_builder = lambda name, config: Builder()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", hub)
    for _ in range(2):
        samples = load("parquet", None, None, {"hf": "a/b"})
        assert samples.table["split"].tolist() == ["test", "test", "train", "train"]
    assert prepared == ["parquet"]

    def unreachable(name: str, config: str | None) -> None:
        raise ConnectionError("Couldn't reach the hub")

    hub.load_dataset_builder = unreachable  # type: ignore[attr-defined]
    with pytest.raises(
        UserError, match=r"hf=a/b cannot be prepared \(ConnectionError: Couldn't reach the hub\): check"
    ):
        load("parquet", None, None, {"hf": "a/b"})
