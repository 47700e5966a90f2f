"""What all data sets share: checks of the table, paths that stay inside, options, downloads and light imports."""

import http.client
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnsens_bench.datasets import Samples, datasets, load, make_samples
from cnnsens_bench.datasets.base import DatasetSource, path_below
from cnnsens_bench.utils.errors import UserError

ROWS = pd.DataFrame({"image_id": ["a", "b"], "split": ["train", "test"], "uri": ["a.jpg", "b.jpg"], "label": [0, 1]})
PARTS = st.sampled_from(["..", ".", "/", "//", "~", "out", "loop", "a", "b.jpg", "\0", "…", "\\", "x" * 300])


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root that holds a link to the folder above it, and a link to itself."""
    root = tmp_path_factory.mktemp("above") / "root"
    (root / "a").mkdir(parents=True)
    (root / "out").symlink_to(root.parent)
    (root / "loop").symlink_to(root / "loop")
    return root


@settings(deadline=None)
@given(relative=st.lists(PARTS, max_size=6).map("/".join) | st.text(max_size=30))
def test_whatever_a_list_names_lies_below_the_root(hostile: Path, relative: str) -> None:
    try:
        path = path_below(hostile, relative, "list.txt")
    except UserError:
        return
    assert hostile.resolve() in path.resolve().parents


@pytest.mark.parametrize(
    "relative", ["../x", "/etc/passwd", "a/../../x", "out/x", "out", "", ".", "a/..", "loop", "a\0b"]
)
def test_hostile_paths(hostile: Path, relative: str) -> None:
    with pytest.raises(UserError, match=r"list\.txt names"):
        path_below(hostile, relative, "list.txt")


@pytest.mark.parametrize("relative", ["a/b.jpg", "a/../b.jpg", "out/root/b.jpg", "a b/ü.jpg", "~"])
def test_paths_that_stay_inside(hostile: Path, relative: str) -> None:
    assert path_below(hostile, relative, "list.txt") == hostile / relative


def test_a_root_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    assert path_below(tmp_path / "root", "b.jpg", "list.txt") == tmp_path / "root" / "b.jpg"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"split": ["train", None]}, "image 'b' is in no split"),
        ({"split": ["train", "dev"]}, "image 'b' is in no split"),
        ({"label": [0, 2]}, "image 'b' has a label outside its 2 classes"),
        ({"label": [1, 1]}, r"class 'x' \(label 0\) has no images: leave it out"),
        ({"label": [0.0, 0.5]}, "labels that are not whole numbers"),
        ({"label": [0.0, float("nan")]}, "image 'b' has a label outside its 2 classes"),
        ({"image_id": ["a", "a"]}, "lists image 'a' twice"),
    ],
)
def test_damaged_tables(change: dict[str, list[object]], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_samples("mine", ["x", "y"], ROWS.assign(**change, class_name="x"))


def test_an_unknown_option_lists_those_there_are() -> None:
    with pytest.raises(UserError, match=r"'folder' has no option 'box': its options are boxes, test_fraction, name$"):
        load("folder", None, None, {"box": 1})
    with pytest.raises(UserError, match=r"'cub200' has no option 'root': it has none$"):
        load("cub200", None, None, {"root": "x"})


def test_a_users_loader_may_take_any_option(monkeypatch: pytest.MonkeyPatch) -> None:
    def mine(root: Path | None, **options: object) -> Samples:
        return make_samples("mine", sorted(options), ROWS)

    monkeypatch.setitem(datasets.data, "mine", DatasetSource("mine", mine, None, "here"))
    assert load("mine", None, None, {"x": 1, "y": 2}).classes == ("x", "y")


@pytest.mark.parametrize("name", list(datasets))
def test_without_a_root(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every data set gives a table or raises one sentence. `plumage` draws into a small cache here."""
    monkeypatch.setenv("CNNSENS_CACHE", str(tmp_path))
    options = {"train_per_class": 1, "test_per_class": 1} if name == "plumage" else {}
    if name == "plumage":
        assert set(load(name, None, None, options).table["split"]) == {"train", "test"}
        return
    with pytest.raises(UserError, match=r"dataset\.root=") as caught:
        load(name, None, None, options)
    assert "\n" not in str(caught.value)


def test_the_root_wins_over_the_data_root(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"the folder {tmp_path / 'mine'} does not exist"):
        load("cub200", tmp_path / "mine", tmp_path, {})
    with pytest.raises(UserError, match=f"the folder {tmp_path / 'CUB_200_2011'} does not exist"):
        load("cub200", None, tmp_path, {})


@pytest.mark.parametrize(
    ("name", "torchvision_class", "layout"),
    [("oxford_pets", "OxfordIIITPet", r"trainval\.txt"), ("flowers102", "Flowers102", r"setid\.mat")],
)
@pytest.mark.parametrize("error", [OSError("no network"), RuntimeError("corrupted"), http.client.IncompleteRead(b"")])
def test_a_failed_download_names_source_and_layout(
    name: str, torchvision_class: str, layout: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(f"torchvision.datasets.{torchvision_class}.__init__", fail)
    with pytest.raises(UserError, match=f"cannot be downloaded.*https://www.robots.ox.ac.uk/.*expected in .*{layout}"):
        load(name, None, tmp_path, {"download": True})
    with pytest.raises(UserError, match="a download needs data_root="):
        load(name, None, None, {"download": True})


def test_the_import_is_light() -> None:
    """torch takes seconds to import, and only downloads and models need it."""
    code = "import sys, cnnsens_bench.datasets; sys.exit(bool({'torch', 'torchvision'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


@pytest.mark.parametrize("label", [3, -1, 1_000_000])
def test_a_label_that_is_no_class_is_a_sentence(label: int) -> None:
    rows = pd.DataFrame({"image_id": ["a", "b"], "split": "test", "uri": ["a.png", "b.png"], "label": [0, label]})
    with pytest.raises(UserError, match="image 'b' has a label outside its 2 classes"):
        make_samples("birds", ["wren", "finch"], rows)
