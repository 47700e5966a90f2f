"""Images inside tar shards, Parquet files and arrays are those of files of their own, read one by one or together."""

import errno
import http.server
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from cnnsens_bench import images
from cnnsens_bench.datasets import load
from cnnsens_bench.datasets.tar_index import TarReader
from cnnsens_bench.images import archives, parquet_rows
from cnnsens_bench.utils import reading
from cnnsens_bench.utils.errors import ImageError, StorageError, UserError
from tests.datasets import forms

WHOLE = (float("inf"), 0.0)
BOX = dict.fromkeys(("box_x", "box_y", "box_w", "box_h"), float("nan"))


@pytest.fixture(scope="module")
def samples(pictures: Path) -> list[forms.Sample]:
    return forms.samples_below(pictures, 40)


@pytest.fixture(scope="module")
def expected(samples: list[forms.Sample], tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    folder = forms.as_folder(tmp_path_factory.mktemp("folder"), samples)
    return [images.decode(str(folder / name / f"{key}.png")).pixels for name, key, _ in samples]


@pytest.fixture
def bucket() -> Iterator[UPath]:
    found = UPath("memory://archives")
    archives.forget_files()
    yield found
    archives.forget_files()
    if found.exists():
        found.fs.rm(found.path, recursive=True)


def uris_of(form: str, samples: list[forms.Sample], top: Path) -> list[str]:
    """Store the samples in a form, and return their URIs."""
    if form == "tar":
        folder = forms.as_shards(top, samples, 2)
        shards = [folder / f"shard-{i:06d}.tar" for i in range(2)]
        found = [(shard, member) for shard in shards for member in TarReader(str(shard)).members()]
        return [f"{shard}#{one.offset}+{one.size}" for shard, one in found if one.name.endswith(".png")]
    if form == "npy":
        file = forms.as_arrays(top, samples) / "images.npy"
        return [f"{file}#{i}" for i in range(len(samples))]
    if form == "planes":
        pixels = np.load(forms.as_arrays(top, samples) / "images.npy").transpose(0, 3, 1, 2)
        (top / "batch.bin").write_bytes(b"head" + pixels.tobytes())
        return [f"{top / 'batch.bin'}#{4 + i * 4800}+4800,3x40x40" for i in range(len(samples))]
    if form == "raw column":
        pq.write_table(pa.table({"jpg": [content for _, _, content in samples]}), top / "x.parquet", row_group_size=9)
        return [f"{top / 'x.parquet'}#jpg:{i}" for i in range(len(samples))]
    file = forms.as_parquet(top, samples, 1) / "test-00000-of-00001.parquet"
    return [f"{file}#{i}" for i in range(len(samples))]


FORMS = ("tar", "npy", "planes", "parquet", "raw column")


def mirrored(uris: list[str], top: Path, bucket: UPath) -> list[str]:
    for file in {uri.partition("#")[0] for uri in uris}:
        bucket.fs.pipe_file((bucket / Path(file).name).path, Path(file).read_bytes())
    return [uri.replace(str(top), str(bucket)) for uri in uris]


def together(uris: list[str]) -> list[object]:
    rows = [{"uri": uri, **BOX} for uri in uris]
    readers = images.read_ahead(uris)
    found = [images.decode_row(row, WHOLE, read) for row, read in zip(rows, readers, strict=True)]
    return [one if isinstance(one, str) else one.pixels for one in found]


@pytest.mark.parametrize("kept_on", ["disk", "uri"])
@pytest.mark.parametrize("form", FORMS)
def test_pixels_are_those_of_files(
    form: str,
    kept_on: str,
    samples: list[forms.Sample],
    expected: list[np.ndarray],
    tmp_path: Path,
    bucket: UPath,
) -> None:
    uris = uris_of(form, samples, tmp_path)
    if kept_on == "uri":
        uris = mirrored(uris, tmp_path, bucket)
    order = np.random.default_rng(0).permutation(len(uris))
    shuffled = [uris[i] for i in order]
    for i, uri, pixels in zip(order, shuffled, together(shuffled), strict=True):
        assert np.array_equal(images.decode(uri).pixels, expected[i])
        assert np.array_equal(pixels, expected[i])


def test_large_row_groups_are_read_as_a_stream(
    samples: list[forms.Sample], expected: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uris = uris_of("raw column", samples, tmp_path)
    monkeypatch.setattr(parquet_rows, "LARGEST_GROUP", 1)
    monkeypatch.setattr(parquet_rows, "STREAM_ROWS", 4)
    rows = parquet_rows.ParquetRows(uris[0].partition("#")[0])
    for i in [0, 1, 7, 8, 30, 31, 2, 41]:
        assert rows.read("jpg", [i]) == [samples[i][2]]
        assert len(rows._values) <= 4
    assert all(np.array_equal(one, pixels) for one, pixels in zip(together(uris), expected, strict=True))


def test_neighbours_are_read_in_one_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.tar"
    file.write_bytes(bytes(range(256)) * 4096)
    requests = []

    def read(uri: str, start: int, end: int) -> bytes:
        requests.append((start, end))
        return reading.read_range(uri, start, end)

    monkeypatch.setattr(archives, "read_range", read)
    places = [(10, 100), (500_000, 50), (60_000, 300), (110, 7)]
    readers = images.read_ahead([f"{file}#{offset}+{size}" for offset, size in places])
    content = file.read_bytes()
    assert [reader() for reader in readers] == [content[offset : offset + size] for offset, size in places]
    assert sorted(requests) == [(10, 60_300), (500_000, 500_050)]
    monkeypatch.setattr(archives, "MOST_PER_REQUEST", 1000)
    requests.clear()
    assert images.read_ahead([f"{file}#{i * 600}+600" for i in range(3)])[2]() == content[1200:1800]
    images.stop_reading()
    assert len(requests) == 3


def test_small_objects_are_read_at_the_same_time(bucket: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(64):
        bucket.fs.pipe_file((bucket / f"{i}.png").path, b"%d" % i)
    cat_file = fsspec.get_filesystem_class("memory").cat_file

    def slow(self: object, *arguments: object, **options: object) -> bytes:
        time.sleep(0.05)
        return bytes(cat_file(self, *arguments, **options))

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", slow)
    begun = time.monotonic()
    found = [reader() for reader in images.read_ahead([str(bucket / f"{i}.png") for i in range(64)])]
    assert found == [b"%d" % i for i in range(64)]
    assert time.monotonic() - begun < 64 * 0.05 / 4


def test_a_file_whose_name_looks_like_an_address(tmp_path: Path, samples: list[forms.Sample]) -> None:
    path = tmp_path / "odd.tar#10+20"
    path.write_bytes(samples[0][2])
    assert images.decode(str(path)).width == 40
    assert archives.address_of(str(path)) is None


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("a.tar#600+999999", "the file ends .* bytes before the image does: it is truncated, or was replaced"),
        ("a.tar#99999999+9", "the file ends 9 bytes before the image does"),
        ("a.tar#512+40", "not an image that Pillow can read"),
        ("a.tar#512+0", "the member is empty"),
        ("b.tar#0+5", "b.tar#0.5: no such file"),
        ("images.npy#42", "the array has 42 images only"),
        ("labels.npy#0", r"holds <i8 of the shape \(42,\): images must be uint8 of \(N, H, W, 3\)"),
        ("a.parquet#42", "the file has 42 rows only"),
        ("a.parquet#nothing:0", "the column 'nothing' holds neither bytes nor a struct with bytes"),
        ("empty.parquet#0", "the row holds no image"),
        ("broken.parquet#3", "broken.parquet cannot be read as Parquet"),
        ("b.parquet#0", "b.parquet#0: no such file"),
        ("a.tar#0+100,3x5x5", r"100 bytes are no pixels of the shape \(3, 5, 5\)"),
    ],
)
@pytest.mark.parametrize("kept_on", ["disk", "uri"])
def test_what_is_no_image(
    address: str, sentence: str, kept_on: str, tmp_path: Path, bucket: UPath, samples: list[forms.Sample]
) -> None:
    """Whatever is wrong with one image, its neighbours in the same request are read."""
    forms.tar(tmp_path / "a.tar", [("1.png", b"x" * 5000)])
    forms.as_arrays(tmp_path, samples)
    pq.write_table(pa.table({"image": [content for _, _, content in samples]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": pa.array([None, b"x"], pa.binary())}), tmp_path / "empty.parquet")
    (tmp_path / "broken.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-100])
    top: Path | UPath = tmp_path
    if kept_on == "uri":
        for path in tmp_path.iterdir():
            bucket.fs.pipe_file((bucket / path.name).path, path.read_bytes())
        top = bucket
    with pytest.raises(ImageError, match=sentence):
        images.decode(f"{top}/{address}")
    bad, good = together([f"{top}/{address}", f"{top}/images.npy#3"])
    assert isinstance(bad, str)
    assert not isinstance(good, str)


def test_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again, and no image is blamed."""
    (tmp_path / "a.tar").write_bytes(b"x" * 2000)
    monkeypatch.setattr(reading, "WAITS", (0.0, 0.0))
    calls = []

    def failing(uri: str, start: int, end: int) -> bytes:
        calls.append(start)
        if len(calls) < 3:
            raise OSError(errno.ECONNRESET, "Connection reset by peer")
        return b"y" * (end - start)

    monkeypatch.setattr(reading, "_read_range", failing)
    assert archives.read_content(f"{tmp_path}/a.tar#0+9") == b"y" * 9

    def gone(uri: str, start: int, end: int) -> bytes:
        raise OSError(errno.ECONNRESET, "Connection reset by peer")

    monkeypatch.setattr(reading, "_read_range", gone)
    with pytest.raises(StorageError, match=r"a\.tar cannot be read now \(Connection reset by peer\)"):
        images.decode(f"{tmp_path}/a.tar#0+9")
    with pytest.raises(StorageError, match="cannot be read now"):
        images.read_ahead([f"{tmp_path}/a.tar#0+9"])[0]()


@pytest.fixture(params=[True, False], ids=["parts", "whole files"])
def web(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a web server of `tmp_path` that sends parts of files where it is asked for them, or does not."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def do_GET(self) -> None:
            asked = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if not (asked and request.param):
                super().do_GET()
                return
            content = Path(self.translate_path(self.path)).read_bytes()
            part = content[int(asked[1]) : int(asked[2]) + 1]
            self.send_response(206 if part else 416)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_web_server(
    web: str,
    request: pytest.FixtureRequest,
    samples: list[forms.Sample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CNNSENS_CACHE", str(tmp_path / "cache"))
    forms.as_shards(tmp_path, samples, 2)
    pattern = f"{web}/shard-{{000000..000001}}.tar"
    if "whole files" in request.node.name:
        with pytest.raises(UserError, match=r"the server of http.* sends whole files where parts are asked for: copy"):
            load("webdataset", None, None, {"shards": pattern})
        return
    found = load("webdataset", None, None, {"shards": pattern})
    assert found.fingerprint() == load("webdataset", tmp_path, None, {}).fingerprint()
    uris = found.table["uri"].tolist()
    assert [reader() for reader in images.read_ahead(uris)] == [content for _, _, content in samples]
    first = f"{web}/shard-000000.tar"
    with pytest.raises(ImageError, match="the file ends 9 bytes before the image does"):
        images.decode(f"{first}#99999999+9")
    with pytest.raises(UserError, match=r"the shard http.*/absent\.tar does not exist"):
        load("webdataset", None, None, {"shards": f"{web}/absent.tar"})


def test_a_replaced_file_is_opened_again(tmp_path: Path) -> None:
    for value in (1, 2):
        np.save(tmp_path / "x.npy", np.full((value, 4, 5 * value, 3), value, np.uint8))
        assert np.array_equal(images.decode(f"{tmp_path}/x.npy#0").pixels, np.full((4, 5 * value, 3), value))
