"""The same photographs in folders, tar shards, Parquet files and arrays, on a disk and a server: equal predictions."""

from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pytest
import ray
import s3fs
import torch
from upath import UPath

from cnnsens_bench.datasets import Samples, datasets, load
from cnnsens_bench.datasets.base import dataset
from cnnsens_bench.run import main
from cnnsens_bench.store import Store
from cnnsens_bench.utils.storage import StoragePath, names_below
from tests.conftest import TINY, tiny_checkpoint
from tests.datasets import forms
from tests.s3 import served
from tests.test_run import ROWS

FORMS = ("numbered_folder", "webdataset", "parquet", "npy")
"""The names of data sets."""


@pytest.fixture(scope="module", autouse=True)
def _numbered_folder() -> Iterator[None]:
    """Register `folder` with numbers for ids, since names without endings are no ids of a folder's images."""

    @dataset("numbered_folder", folder=None, source="it is made for tests")
    def numbered(root: StoragePath | None, *, name: str = "folder") -> Samples:
        samples = load("folder", root, None, {"name": name})
        ids = samples.table["image_id"].str.extract(r"(\d+)\.png$")[0]
        order = ids.astype(int).sort_values().index
        return samples.with_table(samples.table.assign(image_id=ids, split="test").loc[order].reset_index(drop=True))

    yield
    datasets.pop("numbered_folder")


def store_all(top: Path, samples: list[forms.Sample], shards: int) -> Path:
    """Write samples in all forms, numbered through; shards lie without folders of classes."""
    numbered = [(name, str(i), content) for i, (name, _, content) in enumerate(samples)]
    forms.as_folder(top / "numbered_folder", numbered)
    forms.as_arrays(top / "npy", numbered)
    classes = sorted({name for name, _, _ in samples})
    forms.as_parquet(top / "parquet", numbered, shards, paths=[key for _, key, _ in numbered])
    per_shard = -(-len(samples) // shards)
    for start in range(0, len(samples), per_shard):
        members = []
        for name, key, content in numbered[start : start + per_shard]:
            members += [(f"{key}.png", content), (f"{key}.cls", str(classes.index(name)).encode())]
        forms.tar(top / "webdataset" / f"shard-{start // per_shard:06d}.tar", members)
    (top / "webdataset" / "classnames.txt").write_text("\n".join(classes))
    return top


@pytest.fixture(scope="module")
def stored(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = store_all(tmp_path_factory.mktemp("forms"), forms.samples_below(pictures, 48), 3)
    torch.save(tiny_checkpoint().state_dict, top / "w.pt")
    return top


@pytest.fixture(scope="module")
def server(stored: Path) -> Iterator[None]:
    """The forms in s3://bench."""
    with served():
        bucket = UPath("s3://bench")
        for name in names_below(stored):
            bucket.fs.pipe_file((bucket / name).path, (stored / name).read_bytes())
        yield


def words(form: str, top: str, weights: Path, output: Path, *more: str) -> list[str]:
    return [
        f"dataset={form}", f"dataset.root={top}/{form}", "dataset.options.name=photos", f"output={output}",
        f"cache={output.parent / 'cache'}", "tracking=off", f"models=[{{name: {TINY}, weights: {weights}}}]",
        "view=published", "fine_tune=never", "degradations=[{name: gaussian_rgb, levels: [8, 32]},flip_lr]", "trials=1",
        "figures=[]", "cluster.threads=1", *more,
    ]  # fmt: skip


def rows(output: Path) -> pd.DataFrame:
    return Store(output).query(ROWS)


@pytest.fixture(scope="module")
def expected(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    output = tmp_path_factory.mktemp("expected") / "out"
    assert main(words("numbered_folder", str(stored), stored / "w.pt", output)) == 0
    found = rows(output)
    assert found["image_id"].nunique() == 42
    assert found["confidence"].nunique() > 120
    return found


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNSENS_CACHE", str(tmp_path / "indexes"))


@pytest.mark.parametrize("form", FORMS[1:])
def test_equal_predictions_on_a_disk(form: str, stored: Path, expected: pd.DataFrame, tmp_path: Path) -> None:
    assert main(words(form, str(stored), stored / "w.pt", tmp_path / "out")) == 0
    pd.testing.assert_frame_equal(rows(tmp_path / "out"), expected, check_exact=True)


@pytest.fixture(scope="module")
def failures(server: None) -> Iterator[list[int]]:
    """Let the server fail at one of 20 requests for content, and list those."""
    failed: list[int] = []
    calls = [0]
    s3 = fsspec.get_filesystem_class("s3")
    cat_file = s3fs.S3FileSystem._cat_file

    async def failing(self: s3fs.S3FileSystem, *arguments: object, **options: object) -> bytes:
        calls[0] += 1
        if calls[0] % 20 == 3:
            failed.append(calls[0])
            raise TimeoutError("the server is slow")
        return bytes(await cat_file(self, *arguments, **options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "_cat_file", failing)
        patch.setattr("cnnsens_bench.utils.reading.WAITS", (0.0,) * 8)
        s3.clear_instance_cache()  # its instances keep the methods that they were made with
        yield failed
    s3.clear_instance_cache()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["webdataset", *(pytest.param(f, marks=pytest.mark.slow) for f in FORMS[::2]), "npy"])
def test_equal_predictions_on_a_server_that_fails_now_and_then(
    form: str, failures: list[int], stored: Path, expected: pd.DataFrame, tmp_path: Path
) -> None:
    before = len(failures)
    assert main(words(form, "s3://bench", stored / "w.pt", tmp_path / "out")) == 0
    pd.testing.assert_frame_equal(rows(tmp_path / "out"), expected, check_exact=True)
    uris = Store(tmp_path / "out").query("SELECT uri FROM images")["uri"]
    assert uris.str.startswith(f"s3://bench/{form}/").all()
    assert len(failures) > before or form != "numbered_folder"


def damaged(name: str, change: Callable[[bytes], bytes], stored: Path, top: Path) -> Path:
    """Copy the shards, one of them changed."""
    for file in (stored / "webdataset").iterdir():
        content = file.read_bytes()
        (top / "webdataset").mkdir(exist_ok=True, parents=True)
        (top / "webdataset" / file.name).write_bytes(change(content) if file.name == name else content)
    return top


def test_damaged_shards_are_rows_of_failures(stored: Path, expected: pd.DataFrame, tmp_path: Path) -> None:
    """A member that is no image, and a shard that ends early; the other images have the rows that they always have."""

    def change(content: bytes) -> bytes:
        first = content.index(b"\x89PNG")
        last = content.rindex(b"\x89PNG")
        return content[:first] + b"no image" + content[first + 8 : last + 600]

    top = damaged("shard-000001.tar", change, stored, tmp_path)
    # The last image's label follows it, and is lost with the end of the shard, so that the image is left out.
    assert main(words("webdataset", str(top), stored / "w.pt", tmp_path / "out")) == 1
    failures = Store(tmp_path / "out").query("FROM failures")
    assert failures["image_id"].tolist() == ["14"]
    assert "not an image that Pillow can read" in failures["error"][0]
    kept = ~expected["image_id"].isin(["14", "27"])
    pd.testing.assert_frame_equal(rows(tmp_path / "out"), expected[kept].reset_index(drop=True), check_exact=True)


def test_a_replaced_shard_is_not_mixed(stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    top = damaged("", bytes, stored, tmp_path)
    assert main(words("webdataset", str(top), stored / "w.pt", tmp_path / "out", "limit=5")) == 0
    shard = top / "webdataset" / "shard-000000.tar"
    other = [("x", str(i), content) for i, (_, _, content) in enumerate(reversed(forms.samples_below(
        stored / "numbered_folder", 48, 14)))]  # fmt: skip
    forms.tar(shard, [m for _, key, content in other for m in ((f"{key}.png", content), (f"{key}.cls", b"0"))])
    assert main(words("webdataset", str(top), stored / "w.pt", tmp_path / "out", "limit=5")) == 2
    assert "with other images or classes: give this run an output=<folder> of its own" in capsys.readouterr().err


@pytest.mark.slow
def test_a_thousand_photographs_over_ray(tmp_path: Path, data_root: Path) -> None:
    """In one process and over Ray, on a disk and on the server: equal rows in all forms."""
    photographs = sorted((data_root / "CUB_200_2011" / "images").glob("*/*.jpg"))[:1000]
    classes = sorted({path.parent.name for path in photographs})
    samples = []
    for path in photographs:
        resized = forms.resized(path, 64)
        samples.append((f"class_{classes.index(path.parent.name) % 3}", path.stem, resized))
    top = store_all(tmp_path / "forms", samples, 7)
    torch.save(tiny_checkpoint().state_dict, top / "w.pt")
    first = None
    ray.shutdown()
    with served():
        bucket = UPath("s3://bench")
        for name in names_below(top):
            bucket.fs.pipe_file((bucket / name).path, (top / name).read_bytes())
        for engine in ("local", "ray"):
            for root in (str(top), "s3://bench"):
                for form in FORMS:
                    output = tmp_path / f"{engine}-{root[:2].strip('/')}-{form}"
                    more = (f"cluster.engine={engine}", *(["cluster.workers=1"] if engine == "ray" else []))
                    assert main(words(form, root, top / "w.pt", output, *more)) == 0
                    found = rows(output)
                    first = found if first is None else first
                    pd.testing.assert_frame_equal(found, first, check_exact=True)
    ray.shutdown()
