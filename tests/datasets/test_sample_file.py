"""Sample tables that are too large for the memory: the same rows, fingerprints and refusals as those in memory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cnnsens_bench.datasets import Samples, load, make_samples, parquet, sample_file, sample_table
from cnnsens_bench.datasets import samples as room
from cnnsens_bench.datasets.sample_table import FileTable, MemoryTable
from cnnsens_bench.datasets.samples import cached_samples
from cnnsens_bench.utils.errors import UserError
from tests.datasets.forms import as_parquet, as_shards

CLASSES = ["auk", "bee", "cat"]


def rows(count: int = 500, boxes: bool = False) -> pd.DataFrame:
    """Return rows of three classes and three splits, some with a mask."""
    numbers = np.arange(count)
    ids = pd.Series([f"{CLASSES[i % 3]}/{i}.jpg" for i in numbers])
    table = pd.DataFrame({"image_id": ids, "uri": "/data/" + ids, "label": numbers % 3})
    table["split"] = np.array(["train", "test", "val", "test"])[numbers // 7 % 4]
    table["mask_uri"] = np.where(numbers > count // 2, table["uri"] + ".png", None)
    return table.assign(box_x=1.0, box_y=2.0, box_w=np.where(numbers % 5, 9.0, np.nan), box_h=4.0) if boxes else table


@pytest.fixture(params=[60, 10_000], ids=["many frames", "one frame"])
def in_file(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make every table of more than 100 rows lie in a file."""
    monkeypatch.setenv("CNNSENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(room, "IN_MEMORY", 100)
    for module in (room, sample_table, sample_file):
        monkeypatch.setattr(module, "FRAME_ROWS", request.param)


def both(make: Callable[..., Samples], monkeypatch: pytest.MonkeyPatch) -> tuple[Samples, Samples]:
    """Return samples in a file, and the same in memory."""
    filed = make()
    with monkeypatch.context() as patch:
        patch.setattr(room, "IN_MEMORY", 1_000_000)
        whole = make()
    assert isinstance(filed.rows, FileTable)
    assert isinstance(whole.rows, MemoryTable)
    return filed, whole


@pytest.mark.usefixtures("in_file")
@pytest.mark.parametrize("boxes", [False, True])
@pytest.mark.parametrize("given", ["one table", "tables"])
def test_a_table_in_a_file_is_the_table_in_memory(boxes: bool, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = rows(boxes=boxes)

    def make() -> Samples:
        some = table if given == "one table" else (table.iloc[i : i + 37] for i in range(0, len(table), 37))
        return make_samples("some", CLASSES, some, has_split=False, content="abc")

    filed, whole = both(make, monkeypatch)
    pd.testing.assert_frame_equal(filed.table, whole.table)
    assert filed.fingerprint() == whole.fingerprint()
    assert filed.all_test().fingerprint() == whole.all_test().fingerprint() != whole.fingerprint()
    assert (len(filed.rows), filed.rows.has_boxes) == (len(whole.rows), whole.rows.has_boxes) == (500, boxes)
    pd.testing.assert_series_equal(filed.rows.counts, whole.rows.counts, check_names=False)
    for splits in (("test",), ("train", "val"), ()):
        pd.testing.assert_frame_equal(filed.split(*splits), whole.split(*splits))
        assert len(filed.select(*splits)) == len(whole.split(*splits))
    assert len(filed.all_test().select("test")) == 500
    assert set(filed.all_test().split("test")["split"]) == {"test"}


@pytest.mark.usefixtures("in_file")
@pytest.mark.parametrize("limit", [1, 40, 130, 1000])
def test_a_limit_takes_the_same_images(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    filed, whole = both(lambda: make_samples("some", CLASSES, rows()), monkeypatch)
    chosen = [samples.select("test").limited(limit) for samples in (filed, whole)]
    pd.testing.assert_frame_equal(chosen[0].load(), chosen[1].load())
    assert len(chosen[0]) == len(chosen[0].load()) == min(limit, len(whole.split("test")))
    positions = np.linspace(0, len(chosen[0]) - 1, 7).astype(int)
    expected = chosen[1].load().iloc[np.unique(positions)].reset_index(drop=True)
    pd.testing.assert_frame_equal(chosen[0].at(positions), expected)


@pytest.mark.usefixtures("in_file")
def test_the_digests_of_a_file_are_taken_while_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = make_samples("some", CLASSES, rows(), has_split=False)
    monkeypatch.setattr(sample_table, "digest_of", lambda *_: pytest.fail("the rows are read again"))
    assert samples.fingerprint() != samples.all_test().fingerprint()


@pytest.mark.usefixtures("in_file")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image_id": "auk/9.jpg"}, "lists image 'auk/9.jpg' twice"),
        ({"label": 7}, "has a label outside its 3 classes"),
        ({"split": "dev"}, "is in no split"),
    ],
)
def test_a_wrong_row_far_down_is_one_sentence(change: dict, sentence: str, tmp_path: Path) -> None:
    table = rows()
    for column, value in change.items():
        table.loc[420, column] = value
    with pytest.raises(UserError, match=sentence):
        make_samples("some", CLASSES, table)
    assert not list((tmp_path / "cache" / "samples").iterdir())


@pytest.mark.usefixtures("in_file")
def test_a_class_without_images_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"class 'dog' \(label 3\) has no images"):
        make_samples("some", [*CLASSES, "dog"], rows())


def test_no_rows_at_all_are_one_sentence() -> None:
    for nothing in (pd.DataFrame(), rows(0), iter(())):
        with pytest.raises(UserError, match="has no images"):
            make_samples("some", CLASSES, nothing)


@pytest.mark.usefixtures("in_file")
def test_what_was_built_is_found_again(tmp_path: Path) -> None:
    built = []

    def build() -> Samples:
        built.append(1)
        return make_samples("some", CLASSES, rows(), notes=("3 left out",), content="abc", has_split=False)

    first, again, other = (cached_samples(version, build) for version in ("v1", "v1", "v2"))
    assert len(built) == 2
    pd.testing.assert_frame_equal(first.table, again.table)
    assert again.fingerprint() == first.fingerprint() == other.fingerprint()
    assert (again.name, again.classes, again.notes, again.has_split) == ("some", tuple(CLASSES), ("3 left out",), False)
    cached_samples(None, build)
    assert len(built) == 3
    for damaged in (tmp_path / "cache" / "samples").glob("*.parquet"):
        damaged.write_bytes(b"damaged")
    pd.testing.assert_frame_equal(cached_samples("v1", build).table, first.table)
    assert len(built) == 4


@pytest.mark.usefixtures("in_file")
def test_the_same_rows_at_another_path_are_another_file() -> None:
    here, there = (make_samples("some", CLASSES, rows().assign(uri=uri + rows()["image_id"])) for uri in ("/a/", "/b/"))
    assert here.fingerprint() == there.fingerprint()
    assert here.table["uri"].str.startswith("/a/").all()
    assert there.table["uri"].str.startswith("/b/").all()


@pytest.mark.usefixtures("in_file")
def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CNNSENS_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"the cache folder .* cannot be written .*CNNSENS_CACHE"):
        make_samples("some", CLASSES, rows())


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
@pytest.mark.parametrize("ids", [None, "shard", "row"])
def test_shards_are_read_one_after_the_other(
    form: str, ids: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither their indexes nor their rows are ever all in memory, and the second time they are not read at all."""
    if ids == ("row" if form == "webdataset" else "shard"):
        return
    monkeypatch.setenv("CNNSENS_CACHE", str(tmp_path / "cache"))
    samples = [(CLASSES[i % 3], f"{i:03d}", b"\x89PNG" + bytes([i])) for i in range(90)]
    write = {"webdataset": as_shards, "parquet": as_parquet}[form]
    root, options = write(tmp_path / "set", samples, 7), {"ids": ids} if ids else {}
    whole = load(form, root, None, options)
    monkeypatch.setattr(room, "IN_MEMORY", 20)
    monkeypatch.setattr(parquet, "IN_MEMORY", 20)
    monkeypatch.setattr(room, "FRAME_ROWS", 16)
    filed = load(form, root, None, options)
    assert isinstance(filed.rows, FileTable)
    pd.testing.assert_frame_equal(filed.table, whole.table)
    assert (filed.fingerprint(), filed.notes, filed.classes) == (whole.fingerprint(), whole.notes, whole.classes)
    monkeypatch.setattr(room, "write_table", lambda *_: pytest.fail("it is built again"))
    pd.testing.assert_frame_equal(load(form, root, None, options).table, whole.table)


def test_a_shard_that_is_replaced_builds_the_table_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNSENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(room, "IN_MEMORY", 20)
    samples = [(CLASSES[i % 3], f"{i:03d}", b"\x89PNG" + bytes([i])) for i in range(90)]
    root = as_shards(tmp_path / "set", samples, 7)
    before = load("webdataset", root, None, {})
    as_shards(root, [*samples[:-1], (*samples[-1][:2], b"\x89PNG other")], 7)
    after = load("webdataset", root, None, {})
    assert before.fingerprint() != after.fingerprint()
