"""The data set `webdataset`: which members are samples, how labels become classes, and what is refused or left out."""

import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from upath import UPath

from cnnsens_bench import images
from cnnsens_bench.datasets import load, shard_index
from cnnsens_bench.datasets.shards import expand_braces
from cnnsens_bench.datasets.tar_index import TarReader
from cnnsens_bench.utils.errors import UserError
from tests.datasets.forms import tar


def png(value: int = 0, side: int = 8) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(content, "PNG")
    return content.getvalue()


PAIR = [("a.png", png(1)), ("a.cls", b"0"), ("b.png", png(2)), ("b.cls", b"1\n")]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNSENS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bucket() -> Iterator[UPath]:
    found = UPath("memory://shards")
    yield found
    if found.exists():
        found.fs.rm(found.path, recursive=True)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_those_that_tarfile_finds(form: int, tmp_path: Path) -> None:
    names = ["a.jpg", "d/" + "long" * 20 + "/b.seg.png", "./é.cls"]
    if form != tarfile.USTAR_FORMAT:
        names.append("very/" * 40 + "x" * 300 + ".jpg")
    file = tar(tmp_path / "x.tar", [(name, os.urandom(700 * i)) for i, name in enumerate(names)], form)
    with tarfile.open(file, "a", format=form) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
        archive.addfile(link)
        last = tarfile.TarInfo("last.jpg")
        last.size = 3
        archive.addfile(last, io.BytesIO(b"abc"))
    reader = TarReader(str(file))
    found = [(one.name, one.offset, one.size) for one in reader.members()]
    with tarfile.open(file) as archive:
        assert found == [(one.name, one.offset_data, one.size) for one in archive if one.isreg()]
    assert (len(found), reader.damage) == (len(names) + 1, "")


def test_samples_of_a_folder_of_shards(tmp_path: Path) -> None:
    hidden = [(".DS_Store", b"x"), ("d/._c.png", b"x"), ("c.png", png(3)), ("readme", b"x"), ("a.npy", b"x")]
    tar(tmp_path / "s" / "0.tar", [*PAIR, *hidden, ("e.cls", b"1")])
    tar(
        tmp_path / "s" / "1.tar", [("./d/f.x.png", b"x"), ("./d/g.png", png(4)), ("./d/g.cls", b"1"), ("g.json", b"{}")]
    )
    tar(tmp_path / "s" / "2.tar", [])
    samples = load("webdataset", tmp_path / "s", None, {})
    assert samples.table["image_id"].tolist() == ["a", "b", "d/g"]
    assert samples.table["label"].tolist() == [0, 1, 1]
    assert (samples.name, samples.classes, set(samples.table["split"])) == ("webdataset", ("0", "1"), {"test"})
    assert [int(images.decode(uri).pixels[0, 0, 0]) for uri in samples.table["uri"]] == [1, 2, 4]
    assert samples.notes == (
        "left out: 3 files that are not read as images (.npy, .x.png, without ending), 2 hidden files or folders "
        "(.DS_Store, ._c.png), 1 shard without images (2.tar), 1 sample without an image (e), "
        "1 image without a label (c)",
    )  # fmt: skip


def test_patterns_lists_and_uris(tmp_path: Path, bucket: UPath) -> None:
    for i, (png_member, label) in enumerate(zip(PAIR[::2], PAIR[1::2], strict=True)):
        file = tar(tmp_path / f"x-{i:02d}.tar", [png_member, label])
        bucket.fs.pipe_file((bucket / file.name).path, file.read_bytes())
    (tmp_path / "names.txt").write_text("cat\ndog\n\n")
    options = {"classes": str(tmp_path / "names.txt")}
    here = load("webdataset", tmp_path, None, options)
    assert here.classes == ("cat", "dog")
    for root, shards in [
        (tmp_path / "x-{00..01}.tar", None),
        (bucket, None),
        (bucket, "x-{00..01}.tar"),
        (None, f"{bucket}/x-{{00..01}}.tar"),
        (None, [str(tmp_path / "x-00.tar"), f"{bucket}/x-01.tar"]),
        (UPath("memory://shards/x-{00,01}.tar"), None),
    ]:
        found = load("webdataset", root, None, {"shards": shards, **options})
        assert found.fingerprint() == here.fingerprint()
        assert [int(images.decode(uri).pixels[0, 0, 0]) for uri in found.table["uri"]] == [1, 2]


def test_classes_beside_the_shards(tmp_path: Path) -> None:
    tar(tmp_path / "test" / "0.tar", PAIR)
    (tmp_path / "classnames.txt").write_text("cat\ndog\nemu")
    samples = load("webdataset", tmp_path, None, {})
    assert samples.classes == ("cat", "dog")
    assert samples.notes == (f"classes are named by {tmp_path}/classnames.txt",)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train/0.tar", "test/0.tar"), ["train", "test"]),
        (("set-0.tar", "train-0.tar"), ["test", "test"]),
        (("train-000.tar", "validation-000.tar"), ["train", "test"]),
    ],
)
def test_splits(names: tuple[str, str], expected: list[str], tmp_path: Path) -> None:
    for name, members in zip(names, (PAIR[:2], PAIR[2:]), strict=True):
        tar(tmp_path / "s" / name, members)
    samples = load("webdataset", tmp_path / "s", None, {"shards": list(names)})
    assert samples.table["split"].tolist() == expected
    assert samples.has_split == (expected[0] == "train")


@pytest.mark.parametrize(
    ("label", "contents"),
    [
        ("txt", [b"cat", b"dog "]),
        ("json.species", [json.dumps({"species": name}).encode() for name in ("cat", "dog")]),
        ("json.a.b", [json.dumps({"a": {"b": name}}).encode() for name in ("cat", "dog")]),
    ],
)
def test_labels_of_other_members(label: str, contents: list[bytes], tmp_path: Path) -> None:
    ending = label.partition(".")[0]
    members = [(f"{key}.{end}", content) for key, c in zip("ab", contents, strict=True)
               for end, content in (("png", png()), (ending, c))]  # fmt: skip
    members += [("c.png", png()), (f"c.{ending}", b""), ("d.png", png()), (f"d.{ending}", b"\xff{")]
    tar(tmp_path / "0.tar", members)
    samples = load("webdataset", tmp_path, None, {"label": label})
    assert samples.table["class_name"].tolist() == ["cat", "dog"]
    assert samples.notes == ("left out: 2 images without a label (c, d)",)


def test_an_index_is_kept_until_the_shard_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tar(tmp_path / "0.tar", PAIR)
    reads = []
    members = TarReader.members

    def counted(self: TarReader) -> object:
        reads.append(self.uri)
        return members(self)

    monkeypatch.setattr(TarReader, "members", counted)
    first = load("webdataset", file, None, {})
    again = load("webdataset", file, None, {})
    assert (len(reads), again.fingerprint()) == (1, first.fingerprint())
    assert again.table.equals(first.table)
    [kept] = (tmp_path / "cache" / "shards").iterdir()
    kept.write_bytes(b"damaged")
    assert load("webdataset", file, None, {}).table.equals(first.table)
    tar(file, [("a.png", png(7, 9)), *PAIR[1:]])
    os.utime(file, ns=(1, 1))
    replaced = load("webdataset", file, None, {})
    assert len(reads) == 3
    assert replaced.table["image_id"].equals(first.table["image_id"])
    assert replaced.fingerprint() != first.fingerprint()
    assert images.decode(replaced.table["uri"][0]).width == 9


def test_an_index_of_a_uri_is_kept_by_its_etag(bucket: UPath, tmp_path: Path) -> None:
    facts = shard_index.TarReader
    content = tar(tmp_path / "0.tar", PAIR).read_bytes()
    bucket.fs.pipe_file((bucket / "0.tar").path, content)
    assert facts(str(bucket / "0.tar")).version
    assert facts(str(bucket / "0.tar")).size == len(content)


def test_a_truncated_shard(tmp_path: Path) -> None:
    file = tar(tmp_path / "0.tar", [*PAIR, ("c.cls", b"1"), ("c.png", os.urandom(3000))])
    content = file.read_bytes()
    position = content.index(b"c.png")
    file.write_bytes(content[: position + 1500])
    samples = load("webdataset", file, None, {})
    assert samples.table["image_id"].tolist() == ["a", "b", "c"]
    assert samples.notes == ("the ends of shards are missing (0.tar: it is truncated)",)
    with pytest.raises(images.ImageError, match="it is truncated"):
        images.decode(samples.table["uri"][2])
    file.write_bytes(content[:position] + b"\0x" + content[position + 2 :])
    assert load("webdataset", file, None, {}).notes == (
        "left out: 1 sample without an image (c)",
        f"the ends of shards are missing (0.tar: it is damaged at byte {position})",
    )
    file.write_bytes(content[:position])
    assert load("webdataset", file, None, {}).notes[1] == "the ends of shards are missing (0.tar: it has no end mark)"


@pytest.mark.parametrize(
    ("members", "options", "sentence"),
    [
        (
            [*PAIR, ("a.jpg", b"x")],
            {},
            r"two images of the key 'a' \(the second is a.jpg\): name one kind by .*image=jpg",
        ),
        ([*PAIR, ("a.png", b"x")], {"image": "png"}, "two images of the key 'a' .*: write the shard again"),
        ([*PAIR, ("a.cls", b"1")], {}, r"two labels of the key 'a' \(the second is a.cls\): write the shard again"),
        (
            [*PAIR[:3], ("b.cls", b"2")],
            {"classes": ["x", "y"]},
            "image 'b' has the label 2: it must be one of the 2 cl",
        ),
        ([*PAIR[:3], ("b.cls", b"-1")], {}, "image 'b' has the label -1: it must be 0, 1, 2, …"),
        ([*PAIR[:3], ("b.cls", b"1.5")], {}, "image 'b' has the label 1.5: it must be"),
        (
            [*PAIR[:3], ("b.cls", b"goldfih")],
            {"classes": ["0", "goldfish"]},
            "'goldfih', which is no class: did you mean",
        ),
        (PAIR, {"label": "txt"}, "no label .txt with any of its 2 images: expected <key>.jpg with <key>.cls, or"),
        (PAIR, {"label": "json"}, "label is 'json': it must be cls, txt or json.<field>"),
        (PAIR, {"ids": "path"}, "ids is 'path': it must be key or shard"),
        (PAIR, {"shards": "{0..1}.tar"}, "the shard .*/1.tar does not exist: mend the pattern"),
        (PAIR, {"shards": "{0.tar"}, "the shard .* does not exist"),
        (PAIR, {"shards": "{a}.tar"}, r"\{a\} is no pattern: write \{000000..000146\} or \{a,b\}"),
        (PAIR, {"shards": "{5..1}.tar"}, "stands for 0 files"),
        (PAIR, {"shards": 3}, "shards is 3: it must be a pattern, or a list of patterns"),
        (PAIR, {"shards": ["0.tar", "0.tar"]}, "two shards have the key 'a': dataset.options.ids=shard"),
        (PAIR, {"classes": "absent.txt"}, "the list of classes absent.txt does not exist"),
        (PAIR, {"classes": 5}, "classes must be a list of names"),
        ([], {}, r"0.tar has no images: expected .*\(left out: 1 shard without images \(0.tar\)\)"),
    ],
)
def test_what_is_refused(
    members: list[tuple[str, bytes]], options: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    tar(tmp_path / "0.tar", members)
    with pytest.raises(UserError, match=sentence):
        load("webdataset", tmp_path, None, options)


GZIPPED = gzip.compress(b"x", mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "0.tar",
            gzip.compress(b"x", mtime=0),
            "0.tar is compressed, so that no image in it can be read by itself: unpack it",
        ),
        ("0.tar", b"no tar at all" * 100, "0.tar is no tar file: leave it out, or get it again"),
        ("0.tar.gz", b"x", r"has no .tar files \(0.tar.gz is compressed: unpack it\)"),
        ("readme.txt", b"x", "has no .tar files; it is made of tar files that hold <key>.jpg and <key>.cls"),
    ],
)
def test_files_that_are_no_shards(name: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        load("webdataset", tmp_path, None, {})


def test_nothing_is_named() -> None:
    with pytest.raises(UserError, match=r"needs dataset\.root=<folder, file or pattern>: it is made of tar files"):
        load("webdataset", None, None, {})
    with pytest.raises(UserError, match="the folder /no/such does not exist; it is made of tar files"):
        load("webdataset", Path("/no/such"), None, {})


def test_keys_that_shards_share(tmp_path: Path) -> None:
    for i in range(2):
        tar(tmp_path / f"{i}.tar", PAIR)
    with pytest.raises(UserError, match="two shards have the key 'a'"):
        load("webdataset", tmp_path, None, {})
    samples = load("webdataset", tmp_path, None, {"ids": "shard"})
    assert samples.table["image_id"].tolist() == ["0/a", "0/b", "1/a", "1/b"]


def test_braces() -> None:
    assert expand_braces("a-{8..11}") == ["a-8", "a-9", "a-10", "a-11"]
    assert expand_braces("{a,b}{0..1}.tar") == ["a0.tar", "a1.tar", "b0.tar", "b1.tar"]
    with pytest.raises(UserError, match="stands for 1000000000 files"):
        expand_braces("{000000000..999999999}")
