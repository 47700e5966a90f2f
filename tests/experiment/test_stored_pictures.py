"""Runs over pre-made pictures: the pairs with undegraded images, faults of single pictures, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cnnsens_bench import images
from cnnsens_bench.config.compose import compose
from cnnsens_bench.experiment.prepare import prepare
from cnnsens_bench.experiment.stored_pictures import settle_pictures
from cnnsens_bench.figures.catalogue import FIGURES
from cnnsens_bench.images import PublishedView
from cnnsens_bench.images.memory import decoded_in_memory
from cnnsens_bench.run import main
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.storage import storage_path
from tests.conftest import TINY, tiny_checkpoint
from tests.s3 import served

SIZE = 48
KEYS = ["image_id", "degradation", "level", "trial"]
ROWS = "SELECT * EXCLUDE (run_id) FROM predictions ORDER BY image_id, degradation, level, trial"
SEVERITIES = {"fog": (1, 2, 3, 4, 5), "snow": (2, 4)}


@pytest.fixture(scope="module")
def stored_root(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 48 pixels (fog) and of other sizes (snow), for each image of `pictures`; JPEG beside PNG."""
    root = tmp_path_factory.mktemp("stored")
    for name, severities in SEVERITIES.items():
        for severity in severities:
            for file in pictures.rglob("*.png"):
                image = Image.open(file)
                image = image.resize((SIZE, SIZE)) if name == "fog" else image.rotate(90, expand=True)
                pixels = np.asarray(image).astype(float) * (1 - severity / 8) + 255 * severity / 8
                target = root / name / str(severity) / file.relative_to(pictures).with_suffix(".JPEG")
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(target, quality=85)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save(tiny_checkpoint().state_dict, path)
    return path


def words(pictures: Path, stored: Path, weights: Path, output: Path, *others: str) -> list[str]:
    shared = [f"dataset.root={pictures}", f"stored_root={stored}", f"output={output}", f"cache={output}-cache"]
    network = f"models=[{{name: {TINY}, weights: {weights}, input_size: {SIZE}}}]"
    return [
        "dataset=folder",
        *shared,
        network,
        "tracking=off",
        "fine_tune=never",
        "view=published",
        "trials=2",
        *others,
    ]


def copied(stored: Path, target: Path) -> Path:
    shutil.copytree(stored, target)
    return target


def test_rows_equal_a_plain_loop_over_the_files(
    pictures: Path, stored_root: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture of the input's size is used as it is; another one is seen as its network sees images."""
    degradations = "degradations=[stored:*,{name: 'stored:fog(2) + pepper', levels: [0.3]},flip_lr]"
    # Rounding and storing again are for what is degraded here, not for what has been stored.
    given = words(pictures, stored_root, weights, tmp_path / "out", degradations, "quantize=true", "stored_quality=30")
    assert main([*given, "limit=6"]) == 0
    assert f"2 corruptions in {stored_root}: fog, snow (severities 2, 4)" in capsys.readouterr().out
    rows = Store(tmp_path / "out").query(ROWS)
    assert rows["image_id"].nunique() == 6
    counts = rows.groupby(["degradation", "level"]).size()
    assert counts.to_dict() == {
        ("flip_lr", 0.0): 6,
        ("none", 0.0): 6,
        ("stored:fog(2) + pepper", 0.3): 12,
        **{(f"stored:{name}", float(level)): 6 for name, levels in SEVERITIES.items() for level in levels},
    }
    classifier = tiny_checkpoint(input_size=SIZE).classifier()
    view = prepare(compose(given)).models[0].preprocessing("published").view
    assert isinstance(view, PublishedView)
    for row in rows[rows["degradation"].isin(["stored:fog", "stored:snow"])].itertuples():
        path = stored_root / row.degradation.partition(":")[2] / str(int(row.level)) / row.image_id
        pixels = np.asarray(Image.open(path.with_suffix(".JPEG")))
        if row.degradation == "stored:snow":
            pixels = images.render(images.decode(str(path.with_suffix(".JPEG"))), SIZE, view=view)
        with torch.inference_mode():
            own = classifier(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float())[0].softmax(0)
        assert row.prediction == own.argmax()
        assert row.confidence == pytest.approx(own.max().item(), abs=1e-4)
    figure = FIGURES["stored"](Store(tmp_path / "out"), tmp_path / "stored.png")
    assert [axis.get_title() for axis in figure.axes] == ["fog", "snow"]


def test_the_box_squashes_them_and_batches_do_not_matter(
    pictures: Path, stored_root: Path, weights: Path, tmp_path: Path
) -> None:
    tables = []
    for batch in (32, 3):
        given = words(pictures, stored_root, weights, tmp_path / f"{batch}", "view=box", f"batch_size={batch}")
        assert main([*given, "degradations=[stored:snow]", "limit=7"]) == 0
        tables.append(Store(tmp_path / f"{batch}").query(ROWS))
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    classifier = tiny_checkpoint(input_size=SIZE).classifier()
    row = tables[0][tables[0]["level"] == 4].iloc[0]
    path = (stored_root / "snow" / "4" / row["image_id"]).with_suffix(".JPEG")
    pixels = torch.from_numpy(images.render(images.decode(str(path)), SIZE).copy()).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        assert row["confidence"] == pytest.approx(classifier(pixels)[0].softmax(0).max().item(), abs=1e-4)


def test_a_fault_of_a_picture_is_a_row_and_the_others_go_on(
    pictures: Path, stored_root: Path, weights: Path, tmp_path: Path
) -> None:
    broken = copied(stored_root, tmp_path / "stored")
    (broken / "fog" / "3" / "class_0" / "01.JPEG").write_bytes(b"no picture")
    (broken / "snow" / "4" / "class_1" / "02.JPEG").unlink()
    for path in broken.glob("*/*/class_2/03.JPEG"):
        path.unlink()
    given = words(pictures, broken, weights, tmp_path / "out", "degradations=[stored:*]")
    assert main(given) == 1
    store = Store(tmp_path / "out")
    failures = store.query("SELECT image_id, stage, error FROM failures ORDER BY image_id")
    assert failures["image_id"].tolist() == ["class_0/01.png", "class_1/02.png", "class_2/03.png"]
    assert set(failures["stage"]) == {"decode"}
    damaged, absent, never = failures["error"]
    assert damaged.startswith("stored:fog at severity 3: ")
    assert "class_0/01.JPEG: not an image" in damaged
    assert absent.startswith("stored:snow at severity 4: ")
    assert absent.endswith("class_1/02.png: no such picture")
    assert "has no pre-made picture of it" in never
    assert len(store.query(ROWS)) == 42 * 8 - 1 - 1 - 7
    for path in stored_root.rglob("*.JPEG"):  # mended: the same command computes what is missing
        shutil.copy(path, broken / path.relative_to(stored_root))
    assert main(given) == 0
    assert len(store.query(ROWS)) == 42 * 8
    assert store.query("FROM failures").empty


@pytest.mark.slow
def test_pictures_on_an_object_store_give_the_same_rows(
    pictures: Path, stored_root: Path, weights: Path, tmp_path: Path
) -> None:
    asked, tables = ["degradations=[{name: stored:*, levels: [2, 4]}]", "limit=4"], []
    with served() as server:
        assert server.url
        root = storage_path("s3://bench/pictures")
        for severity in ("2", "4"):
            for path in stored_root.glob(f"*/{severity}/*/*.JPEG"):
                root.fs.pipe_file((root / path.relative_to(stored_root).as_posix()).path, path.read_bytes())
        for name, folder in (("local", str(stored_root)), ("s3", str(root))):
            assert main(words(pictures, Path("unused"), weights, tmp_path / name, *asked, f"stored_root={folder}")) == 0
            tables.append(Store(tmp_path / name).query(ROWS))
    assert len(tables[0]) == 4 * 5
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_arrays_as_cifar_10_c_has_them(weights: Path, tmp_path: Path) -> None:
    """Clean images in an array, and 5·N rows of each corruption: the row of severity s and image i is (s − 1)·N + i."""
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (12, 32, 32, 3), np.uint8)
    corrupted = rng.integers(0, 256, (60, 32, 32, 3), np.uint8)
    (tmp_path / "clean").mkdir()
    (tmp_path / "root" / "CIFAR-10-C").mkdir(parents=True)
    np.save(tmp_path / "clean" / "images.npy", clean)
    np.save(tmp_path / "clean" / "labels.npy", np.arange(12) % 3)
    np.save(tmp_path / "root" / "CIFAR-10-C" / "fog.npy", corrupted)
    np.save(tmp_path / "root" / "CIFAR-10-C" / "labels.npy", np.tile(np.arange(12) % 3, 5))
    given = words(tmp_path / "clean", tmp_path / "root" / "CIFAR-10-C", weights, tmp_path / "out", "view=box")
    names = "dataset.options.classes=[class_0,class_1,class_2]"
    assert main([*given[1:], "dataset=npy", names, "degradations=[stored:*]"]) == 0
    rows = Store(tmp_path / "out").query(ROWS)
    assert len(rows) == 12 * 6
    classifier = tiny_checkpoint(input_size=SIZE).classifier()
    for row in rows[rows["degradation"] == "stored:fog"].sample(12, random_state=0).itertuples():
        pixels = corrupted[12 * (int(row.level) - 1) + int(row.image_id)]
        seen = images.render(decoded_in_memory(pixels), SIZE)
        with torch.inference_mode():
            own = classifier(torch.from_numpy(seen.copy()).permute(2, 0, 1)[None].float())[0].softmax(0)
        assert row.confidence == pytest.approx(own.max().item(), abs=1e-4)
    found = settle_pictures(compose(["dataset=cifar10", f"data_root={tmp_path / 'root'}", "degradations=[stored:*]"]))
    assert found.stored
    assert found.stored.names == ["fog"]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("stored:snov", "has no corruption 'snov': did you mean 'snow'?"),
        ("{name: stored:snow, levels: [1, 2]}", "has no severity 1 of 'snow': it has 2, 4"),
        ("'stored:snow(3) + pepper'", "has no severity 3 of 'snow'"),
        ("stored:x*", "no name matches 'stored:x*'"),
        ("{name: stored:snow, otherwise: [pepper]}", "otherwise of 'stored:snow' is ['pepper']"),
    ],
)
def test_what_is_not_there_is_one_sentence(
    pictures: Path, stored_root: Path, weights: Path, tmp_path: Path, entry: str, sentence: str
) -> None:
    with pytest.raises(UserError) as error:
        prepare(compose(words(pictures, stored_root, weights, tmp_path, f"degradations=[{entry}]")))
    assert sentence in str(error.value)


def test_pictures_of_other_images_are_refused(pictures: Path, stored_root: Path, weights: Path, tmp_path: Path) -> None:
    asked = "degradations=[stored:*]"
    for path in pictures.rglob("*.png"):
        (tmp_path / "other" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "other" / path.parent.name / f"another_{path.name}")
    for root, sentence in (
        (tmp_path / "other", "has no pictures of the images of 'folder'"),
        (stored_root / "fog" / "1", "which gives accuracy only"),
    ):
        with pytest.raises(UserError) as error:
            prepare(compose(words(root, stored_root, weights, tmp_path, asked)))
        assert sentence in str(error.value)
    for given, sentence in (
        ([f"stored_root={pictures}"], f"stored_root: {pictures} has no pre-made pictures: expected <corruption>/"),
        (
            ["stored_root=null"],
            "'stored:*' needs pre-made pictures: name them with stored_root=<folder>, or imagenet-c",
        ),
    ):
        with pytest.raises(UserError) as error:
            prepare(compose(words(pictures, stored_root, weights, tmp_path, asked, *given)))
        assert sentence in str(error.value)


def test_otherwise_is_taken_where_there_are_none(
    pictures: Path, stored_root: Path, weights: Path, tmp_path: Path
) -> None:
    """The config that is recorded, and hashed, names what is computed; where pictures lie changes no hash."""
    asked = "degradations=[{name: stored:fog, otherwise: common:fog, levels: [1, 5]},flip_lr]"
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "imagenet-c").symlink_to(stored_root)
    with_pictures = [
        prepare(compose(words(pictures, stored_root, weights, tmp_path, asked))),
        prepare(compose(words(pictures, stored_root, weights, tmp_path, asked, "stored_root=null",
                              f"data_root={tmp_path / 'root'}"))),
    ]  # fmt: skip
    for study in with_pictures:
        assert study.config.degradations == [{"name": "stored:fog", "levels": [1, 5]}, "flip_lr"]
        assert [condition.degradation for condition in study.conditions] == ["stored:fog", "flip_lr"]
    without = prepare(compose(words(pictures, stored_root, weights, tmp_path, asked, "stored_root=null")))
    assert without.stored is None
    assert without.config.degradations == [{"name": "common:fog", "levels": [1, 5]}, "flip_lr"]
    [note] = without.notes
    assert note.startswith("common:fog is computed, as there are no pre-made pictures")
    plainly = "degradations=[{name: common:fog, levels: [1, 5]},flip_lr]"
    plain = prepare(compose(words(pictures, stored_root, weights, tmp_path, plainly)))
    assert plain.settings.run_id == without.settings.run_id
    assert len({study.settings.run_id for study in (*with_pictures, without)}) == 2
    assert len({study.protocol for study in (*with_pictures, without, plain)}) == 1


def test_a_data_set_of_pictures_alone_gives_accuracy_only() -> None:
    [note] = settle_pictures(compose(["dataset=imagenet_c", "degradations=[]"])).notes
    assert "there is accuracy only" in note
    assert "dataset=imagenet with degradations=[stored:*]" in note


def test_estimates_count_them(
    pictures: Path, stored_root: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words(pictures, stored_root, weights, tmp_path / "out", "degradations=[stored:*]", "limit=4")
    assert main([*given, "estimate=true"]) == 0
    assert "32 evaluations" in capsys.readouterr().out


def test_absent_undegraded_images_are_one_sentence_with_a_way_out(stored_root: Path, tmp_path: Path) -> None:
    given = ["suite=imagenet_c", f"stored_root={stored_root}", f"dataset.root={tmp_path / 'absent'}"]
    with pytest.raises(
        UserError, match=r"absent does not exist; .*accuracy only, of one corruption.* degradations=\[\]"
    ):
        prepare(compose(given))
    (tmp_path / "absent" / "val" / "no_wnid").mkdir(parents=True)
    with pytest.raises(UserError) as error:  # what is wrong with images that are there is said alone
        prepare(compose(given))
    assert "accuracy only" not in str(error.value)
