"""ImageNet's validation images with a list of labels, and the data sets that were made from it."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from cnnsens_bench.datasets import load
from cnnsens_bench.datasets.imagenet_v2 import imagenet_wnids
from cnnsens_bench.utils.errors import UserError
from tests.datasets.forms import tar
from tests.datasets.test_folder import tree

WNIDS = ("n02119789", "n01440764", "n01443537", "n00001740")
"""By ILSVRC2012_ID, from 1; the last one is no class but a node above them."""
TRUTH = (2, 1, 2, 3)
FILES = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 5)]
IDS = ["n01440764/" + FILES[0], "n01440764/" + FILES[2], "n01443537/" + FILES[3], "n02119789/" + FILES[1]]


def kit(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    synsets = np.array([(i, wnid, "a, b", int(i == 4)) for i, wnid in enumerate(WNIDS, 1)], dtype=fields)
    savemat(folder / "meta.mat", {"synsets": synsets})
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{i}\n" for i in TRUTH))
    return folder


def kaggle(folder: Path) -> Path:
    lines = [
        f"{file[:-5]},{WNIDS[i - 1]} 1 2 3 4 {WNIDS[i - 1]} 5 6 7 8 " for file, i in zip(FILES, TRUTH, strict=True)
    ]
    path = folder / "LOC_val_solution.csv"
    path.write_text("\n".join(["ImageId,PredictionString", *lines]))
    return path


def kit_archive(folder: Path) -> None:
    files = [(f"ILSVRC2012_devkit_t12/data/{path.name}", path.read_bytes()) for path in kit(folder / "x").iterdir()]
    tar(folder / "ILSVRC2012_devkit_t12.tar.gz", files, mode="w:gz")


LISTS = {
    "in the folder": lambda top: kit(top),
    "unpacked": lambda top: kit(top / "ILSVRC2012_devkit_t12" / "data"),
    "packed": kit_archive,
    "Kaggle's": kaggle,
}


@pytest.mark.parametrize("lists", LISTS)
@pytest.mark.parametrize("images", ["val/", "ILSVRC/Data/CLS-LOC/val/", "", "archive"])
def test_images_that_lie_together(images: str, lists: str, tmp_path: Path) -> None:
    """They are the same data set as in folders."""
    sorted_images = tree(tmp_path / "sorted", *(f"val/{one}" for one in IDS))
    top = tmp_path / "imagenet"
    top.mkdir()
    if images == "archive":
        tar(top / "ILSVRC2012_img_val.tar", [(file, b"x") for file in FILES])
    else:
        tree(top, *(images + file for file in FILES))
    LISTS[lists](top)
    samples = load("imagenet", None, tmp_path, {})
    assert samples.table["image_id"].tolist() == IDS
    assert samples.fingerprint() == load("imagenet", sorted_images, None, {}).fingerprint()
    expected = r"ILSVRC2012_img_val.tar#\d+\+1" if images == "archive" else re.escape(images + FILES[0])
    assert re.search(expected + "$", samples.table["uri"][0])


def test_labels_are_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "val", *FILES[:2])
    for labels in (kit(tmp_path / "kit"), kaggle(tmp_path), tmp_path / "kit" / "meta.mat"):
        assert load("imagenet", root, None, {"labels": str(labels)}).table["image_id"].tolist() == [IDS[0], IDS[3]]


def test_lists_that_are_damaged(tmp_path: Path) -> None:
    root = tree(tmp_path, *(f"val/{file}" for file in FILES))
    with pytest.raises(UserError, match=r"absent is not there, or has no LOC_val_solution\.csv, or ILSVRC2012_valid"):
        load("imagenet", root, None, {"labels": "absent"})
    path = kaggle(root)
    path.write_text("ImageId,Prediction\n1,2\n")
    with pytest.raises(UserError, match=r"LOC_val_solution\.csv is no list of Kaggle's"):
        load("imagenet", root, None, {})
    path.unlink()
    kit(root)
    truth = root / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("1\n2\n")
    with pytest.raises(UserError, match=f"the list of labels has no image '{FILES[2]}'"):
        load("imagenet", root, None, {})
    truth.write_text("1\n4\n")
    with pytest.raises(UserError, match=r"meta\.mat cannot be read \(KeyError: 4\): get both again"):
        load("imagenet", root, None, {})
    (root / "meta.mat").unlink()
    with pytest.raises(UserError, match=r"meta\.mat does not exist: the labels need LOC_val_solution\.csv"):
        load("imagenet", root, None, {})
    truth.unlink()
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"x")
    with pytest.raises(UserError, match="is no development kit"):
        load("imagenet", root, None, {})


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("imagenet_a", "imagenet-a"),
        ("imagenet_r", "imagenet-r"),
        ("imagenet_sketch", "imagenet-sketch"),
        ("imagenet_sketch", "imagenet-sketch/sketch"),
    ],
)
def test_sets_by_wordnet_id(name: str, folder: str, tmp_path: Path) -> None:
    tree(tmp_path / folder, "n01443537/b.jpg", "n01440764/a.jpg", "README.txt")
    samples = load(name, None, tmp_path, {})
    assert (samples.name, samples.classes) == (name, ("n01440764", "n01443537"))
    assert samples.table["image_id"].tolist() == ["n01440764/a.jpg", "n01443537/b.jpg"]
    tree(tmp_path / folder, "cats/a.jpg")
    with pytest.raises(UserError, match="has a folder 'cats', which is no WordNet id"):
        load(name, None, tmp_path, {})
    with pytest.raises(UserError, match=r"/no does not exist; get .* and unpack it; expected in it: <wnid>/<image>"):
        load(name, Path("/no"), None, {})


@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize("variant", ["matched-frequency", "threshold0.7", "top-images"])
def test_numbered_folders(variant: str, above: bool, tmp_path: Path) -> None:
    folder = tree(tmp_path / f"imagenetv2-{variant}-format-val", "10/a.jpeg", "9/b.jpeg", "0/c.jpeg")
    options = {} if variant == "matched-frequency" else {"variant": variant}
    roots = [(tmp_path, None), (None, tmp_path)] if above else [(folder, None)]
    for root, data_root in roots:
        samples = load("imagenet_v2", root, data_root, options)
        assert samples.classes == ("n01440764", "n01518878", "n01530575")  # the 1st, 11th and 10th by label
        assert dict(zip(samples.table["image_id"], samples.table["class_name"], strict=True)) == {
            "0/c.jpeg": "n01440764", "9/b.jpeg": "n01518878", "10/a.jpeg": "n01530575",
        }  # fmt: skip
        assert samples.name == "imagenet_v2" + (f"-{variant}" if options else "")


def test_wordnet_ids_are_those_of_networks() -> None:
    from timm.data import ImageNetInfo

    assert imagenet_wnids() == list(ImageNetInfo().label_names())
    assert imagenet_wnids() == sorted(imagenet_wnids())


def test_numbers_that_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has a folder '1000': expected a folder for each class, 0 to 999"):
        load("imagenet_v2", tree(tmp_path, "1000/a.jpg", "1/a.jpg"), None, {})
    with pytest.raises(UserError, match=r"variant is 'best': it must be matched-frequency, threshold0\.7, top-images"):
        load("imagenet_v2", tmp_path, None, {"variant": "best"})
    with pytest.raises(UserError, match="imagenetv2-top-images-format-val does not exist"):
        load("imagenet_v2", None, tmp_path, {"variant": "top-images"})


def test_one_corruption_of_imagenet_c(tmp_path: Path) -> None:
    tree(tmp_path / "imagenet-c", *(f"{c}/{s}/{one}" for c in ("fog", "snow") for s in (1, 5) for one in IDS))
    clean = load("imagenet", tree(tmp_path / "clean", *IDS), None, {})
    samples = load("imagenet_c", None, tmp_path, {"corruption": "fog", "severity": 5})
    assert samples.name == "imagenet_c-fog-5"
    assert samples.table["image_id"].equals(clean.table["image_id"])
    assert samples.table["uri"][0].endswith(f"imagenet-c/fog/5/{IDS[0]}")
    for options, sentence in [
        ({}, r"dataset\.options\.corruption is not named: known are fog, snow"),
        ({"corruption": "fogg"}, r"corruption is 'fogg': did you mean 'fog'\?"),
        ({"corruption": "fog"}, r"dataset\.options\.severity is None: it must be 1 to 5"),
        ({"corruption": "fog", "severity": 6}, r"severity is 6"),
        ({"corruption": "fog", "severity": 2}, r"fog/2 does not exist; get blur\.tar"),
    ]:
        with pytest.raises(UserError, match=sentence):
            load("imagenet_c", None, tmp_path, options)


def test_the_archive_alone_needs_labels(tmp_path: Path) -> None:
    tar(tmp_path / "ILSVRC2012_img_val.tar", [(file, b"x") for file in FILES])
    with pytest.raises(UserError, match=r"or the images together \(in val/ or ILSVRC2012_img_val\.tar\) with LOC_val"):
        load("imagenet", tmp_path, None, {})
