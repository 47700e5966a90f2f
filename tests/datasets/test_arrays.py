"""Data sets in arrays: CIFAR, its corrupted forms, and one's own `.npy` files."""

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets

from cnnsens_bench import images
from cnnsens_bench.datasets import load
from cnnsens_bench.datasets.cifar_c import HUNDRED
from cnnsens_bench.utils.errors import UserError

NAMES = ["airplane", "automobile"]


def batch(seed: int, count: int = 4) -> tuple[np.ndarray, list[int]]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8), [i % 2 for i in range(count)]


def old_pickle(content: dict[str, object]) -> bytes:
    """Return a dictionary of lists and an array as Python 2 pickles it, with texts of bytes; protocol 2."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    def value(one: object) -> bytes:
        if isinstance(one, np.ndarray):
            shape = b"".join(b"J" + struct.pack("<i", side) for side in one.shape)
            kind = (
                b"cnumpy\ndtype\n"
                + text(b"u1")
                + b"K\x00K\x01\x87R(K\x03"
                + text(b"|")
                + b"NNNJ\xff\xff\xff\xffJ\xff\xff"
            )
            kind += b"\xff\xffK\x00tb"
            made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
            return made + b"(K\x01(" + shape + b"t" + kind + b"\x89" + text(one.tobytes()) + b"tb"
        if isinstance(one, list):
            return b"](" + b"".join(value(each) for each in one) + b"e"
        return text(one.encode()) if isinstance(one, str) else b"J" + struct.pack("<i", one)  # type: ignore[arg-type]

    return b"\x80\x02}(" + b"".join(text(key.encode()) + value(one) for key, one in content.items()) + b"u."


def cifar(top: Path, name: str, form: str) -> Path:
    """Write a small CIFAR in a folder of its official name, and return the folder."""
    ten = name == "cifar10"
    official = {("cifar10", "py"): "cifar-10-batches-py", ("cifar10", "bin"): "cifar-10-batches-bin",
                ("cifar100", "py"): "cifar-100-python", ("cifar100", "bin"): "cifar-100-binary"}  # fmt: skip
    folder = top / official[name, form]
    folder.mkdir(parents=True)
    files = ["test_batch", *(f"data_batch_{i}" for i in range(1, 6))] if ten else ["test", "train"]
    for seed, file in enumerate(files):
        pixels, labels = batch(seed)
        if form == "bin":
            before = [[label] if ten else [9, label] for label in labels]
            content = b"".join(bytes(b) + one.tobytes() for b, one in zip(before, pixels, strict=True))
            (folder / f"{file}.bin").write_bytes(content)
        else:
            key = "labels" if ten else "fine_labels"
            (folder / file).write_bytes(old_pickle({"batch_label": "x", key: labels, "data": pixels}))
    if form == "bin":
        (folder / ("batches.meta.txt" if ten else "fine_label_names.txt")).write_text("\n".join(NAMES) + "\n\n")
    else:
        names = {"label_names" if ten else "fine_label_names": NAMES}
        (folder / ("batches.meta" if ten else "meta")).write_bytes(old_pickle(names))
    return folder


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_in_both_forms(name: str, tmp_path: Path) -> None:
    pickled, binary = cifar(tmp_path / "a", name, "py"), cifar(tmp_path / "b", name, "bin")
    found = load(name, pickled, None, {})
    for root, data_root in [(binary, None), (None, tmp_path / "a"), (None, tmp_path / "b"), (tmp_path / "b", None)]:
        assert load(name, root, data_root, {}).fingerprint() == found.fingerprint()
    assert (found.classes, found.has_split) == (tuple(NAMES), True)
    assert found.table["split"].value_counts().to_dict() == {"train": 20 if name == "cifar10" else 4, "test": 4}
    assert found.table["image_id"][[0, 4]].tolist() == ["test/00000", "train/00000"]
    pixels, labels = batch(0)
    for samples in (found, load(name, binary, None, {})):
        assert samples.table["label"][:4].tolist() == labels
        for uri, flat in zip(samples.table["uri"][:4], pixels, strict=True):
            assert np.array_equal(images.decode(uri).pixels, flat.reshape(3, 32, 32).transpose(1, 2, 0))


def test_the_pixels_are_those_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cifar(tmp_path, "cifar10", "py")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    theirs = torchvision.datasets.CIFAR10(tmp_path, train=False)
    ours = load("cifar10", folder, None, {"download": False}).table
    for i in range(4):
        image, label = theirs[i]
        assert np.array_equal(images.decode(ours["uri"][i]).pixels, np.asarray(image))
        assert ours["label"][i] == label


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/cnnsens-evil",)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        (
            "test_batch",
            pickle.dumps({"data": Evil(), "labels": [0]}),
            "it names posix.system, which no pickle of array",
        ),
        ("test_batch", b"", "the file is empty"),
        ("test_batch", b"\x80\x02}", r"test_batch cannot be read \(.*\): unpack it again"),
        ("test_batch", pickle.dumps([1]), "it has no 'data'"),
        ("test_batch", pickle.dumps({"data": batch(0)[0][:, :9], "labels": [0] * 4}), "no array of 32×32 images"),
        (
            "test_batch",
            pickle.dumps({"data": batch(0)[0], "labels": [0]}),
            "no array of 32×32 images, one for each lab",
        ),
        (
            "test_batch",
            pickle.dumps({"data": batch(0)[0], "labels": [9] * 4}),
            "has labels beyond the 2 classes of batches.meta",
        ),
        (
            "test_batch",
            pickle.dumps({"data": np.asfortranarray(batch(0)[0]), "labels": [0] * 4}, 3),
            "its pixels do not lie in it as they",
        ),
        ("batches.meta", pickle.dumps({}), "it has no 'label_names'"),
    ],
)
def test_damaged_and_hostile_pickles(file: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    folder = cifar(tmp_path, "cifar10", "py")
    (folder / file).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        load("cifar10", folder, None, {})
    assert not Path("/tmp/cnnsens-evil").exists()


def test_cifar_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"cifar-10-batches-py does not exist; get cifar-10-python\.tar\.gz or cifar-10-b"
    ):
        load("cifar10", None, tmp_path, {})
    folder = cifar(tmp_path, "cifar10", "bin")
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(UserError, match=r"data_batch_3\.bin does not exist: unpack the archive of cifar10 again"):
        load("cifar10", folder, None, {})
    (folder / "data_batch_3.bin").write_bytes(b"x" * 3072)
    with pytest.raises(UserError, match="3072 bytes are no multiple of 3073"):
        load("cifar10", folder, None, {})


def test_downloads_are_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torchvision.datasets, "CIFAR100", lambda root, download: cifar(Path(root), "cifar100", "py") if download else 0
    )
    assert len(load("cifar100", None, tmp_path, {"download": True}).table) == 8


def corrupted(folder: Path, classes: int, each: int = 20) -> np.ndarray:
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5 * each, 32, 32, 3), np.uint8)
    np.save(folder / "fog.npy", pixels)
    np.save(folder / "labels.npy", np.tile(np.arange(each) % classes, 5))
    return pixels


@pytest.mark.parametrize(
    ("name", "folder", "count"), [("cifar10_c", "CIFAR-10-C", 10), ("cifar100_c", "CIFAR-100-C", 15)]
)
def test_a_severity_of_five(name: str, folder: str, count: int, tmp_path: Path) -> None:
    pixels = corrupted(tmp_path / folder, count)
    samples = load(name, None, tmp_path, {"corruption": "fog", "severity": 3})
    assert (samples.name, len(samples.classes)) == (f"{name}-fog-3", count)
    assert samples.table["image_id"].tolist() == [f"test/{i:05d}" for i in range(20)]
    assert samples.table["label"].tolist() == [i % count for i in range(20)]
    assert np.array_equal(images.decode(samples.table["uri"][7]).pixels, pixels[47])


def test_class_names_are_those_of_cifar() -> None:
    assert len(set(HUNDRED.split())) == 100
    assert sorted(HUNDRED.split()) == HUNDRED.split()


def test_corrupted_arrays_that_do_not_fit(tmp_path: Path) -> None:
    folder = tmp_path / "CIFAR-10-C"
    corrupted(folder, 10)
    options = {"corruption": "fog", "severity": 1}
    with pytest.raises(UserError, match="corruption is 'frog': did you mean 'fog'"):
        load("cifar10_c", folder, None, {**options, "corruption": "frog"})
    np.save(folder / "labels.npy", np.full(100, 11))
    with pytest.raises(UserError, match=r"labels\.npy has labels beyond 0 to 9"):
        load("cifar10_c", folder, None, options)
    np.save(folder / "labels.npy", np.zeros(7, int))
    with pytest.raises(UserError, match=r"has 100 images and labels\.npy int64 of the shape \(7,\): expected"):
        load("cifar10_c", folder, None, options)
    (folder / "labels.npy").unlink()
    with pytest.raises(UserError, match=r"labels\.npy cannot be read \(it does not exist\)"):
        load("cifar10_c", folder, None, options)


def test_arrays_of_ones_own(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 7, 3), np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    np.save(tmp_path / "labels.npy", np.array(["cat", "dog", "cat", "dog"]))
    samples = load("npy", tmp_path, None, {"name": "pets"})
    assert (samples.name, samples.classes) == ("pets", ("cat", "dog"))
    assert samples.table["image_id"].tolist() == ["0", "1", "2", "3"]
    assert all(
        np.array_equal(images.decode(u).pixels, one) for u, one in zip(samples.table["uri"], pixels, strict=True)
    )
    for labels, sentence in [
        (np.array([0, 1, 0]), r"labels\.npy holds int64 of the shape \(3,\): it must be 4 whole numbers or names"),
        (np.array([0.5, 1, 0, 1]), r"holds float64 of the shape \(4,\)"),
        (np.array([0, 1, 0, -1]), "image '3' has the label -1: it must be 0, 1, 2, …"),
        (np.array([0, None, 0, 1]), r"labels\.npy cannot be read \(.*allow_pickle"),
    ]:
        np.save(tmp_path / "labels.npy", labels)
        with pytest.raises(UserError, match=sentence):
            load("npy", tmp_path, None, {})
    np.save(tmp_path / "labels.npy", np.array(["cat", "dog", "cat", "dog"]))
    np.save(tmp_path / "images.npy", 255 - pixels)
    assert load("npy", tmp_path, None, {}).fingerprint() != samples.fingerprint()
    np.save(tmp_path / "images.npy", pixels.astype(np.float32))
    with pytest.raises(
        UserError, match=r"holds <f4 of the shape \(4, 6, 7, 3\): images must be uint8 of \(N, H, W, 3\)"
    ):
        load("npy", tmp_path, None, {})
    with pytest.raises(UserError, match=r"absent\.npy does not exist"):
        load("npy", tmp_path, None, {"images": "absent.npy"})
