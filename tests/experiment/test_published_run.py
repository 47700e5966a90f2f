"""Whole runs of published views and published heads, against plain loops over the library's transform."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo, create_transform, resolve_data_config

from cnnsens_bench.config.compose import compose
from cnnsens_bench.experiment.prepare import prepare
from cnnsens_bench.models.loading import load_network
from cnnsens_bench.run import main
from cnnsens_bench.store import Store
from tests.conftest import TINY, tiny_checkpoint

LITE = "timm/tf_efficientnet_lite0"
"""A network whose published weights are in an installed package."""
UNDEGRADED = "SELECT image_id, label, prediction, true_rank, confidence FROM predictions WHERE degradation = 'none'"


def transform(model: str, size: int | None = None) -> object:
    config = timm.get_pretrained_cfg(model.partition("/")[2]).to_dict()
    given = {"input_size": (3, size, size)} if size else {}
    return create_transform(**resolve_data_config(given, pretrained_cfg=config, use_test_size=True))


def plain_logits(files: list[Path], size: int | None = None) -> torch.Tensor:
    """Return the logits of a loop over timm's transform and network, (images, 1000)."""
    network, of_timm = load_network(LITE).classifier.network.eval(), transform(LITE, size)
    with torch.inference_mode():
        return torch.cat([network(of_timm(Image.open(file).convert("RGB"))[None]) for file in files])


@pytest.fixture(scope="module")
def photographs(data_root: Path) -> list[Path]:
    """Photographs of birds and pets, 40 of them; a slow run takes more."""
    files = [*data_root.glob("CUB_200_2011/images/*/*.jpg"), *data_root.glob("oxford-iiit-pet/images/*.jpg")]
    return sorted(files)[::28]


@pytest.fixture(scope="module")
def logits(photographs: list[Path]) -> torch.Tensor:
    return plain_logits(photographs)


def by_class(root: Path, photographs: list[Path], names: list[str]) -> Path:
    """Copy photographs into one folder for each name."""
    for file, name in zip(photographs, names, strict=True):
        (root / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, root / name / file.name)
    return root


def run(root: Path, tmp_path: Path, *words: str) -> pd.DataFrame:
    output = tmp_path / "out"
    shared = [f"dataset.root={root}", f"output={output}", f"cache={tmp_path / 'cache'}", "tracking=off"]
    assert main([*shared, "degradations=[flip_lr]", "trials=1", f"models=[{LITE}]", *words]) == 0
    return Store(output).query(UNDEGRADED).set_index("image_id").sort_index()


def test_labels_equal_a_loop_over_the_librarys_transform(
    tmp_path: Path, photographs: list[Path], logits: torch.Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    """Photographs by WordNet id: a subset of the published head's classes."""
    wnids = ImageNetInfo("imagenet-1k").label_names()
    names = [wnids[i] for i in logits.argmax(1)]
    root = by_class(tmp_path / "photos", photographs, names)
    found = run(root, tmp_path, "dataset=folder")
    kept = sorted(set(names))
    assert 2 < len(kept) < 41
    assert f"{LITE} keeps {len(kept)} of its 1000 outputs, matched by WordNet id" in capsys.readouterr().out
    own = logits[:, [wnids.index(name) for name in kept]].softmax(1)
    for file, name, probabilities in zip(photographs, names, own, strict=True):
        row = found.loc[f"{name}/{file.name}"]
        assert kept[int(row["label"])] == kept[int(row["prediction"])] == name
        assert row["true_rank"] == 1
        assert row["confidence"] == pytest.approx(probabilities.max().item(), abs=2e-4)
    [row] = Store(tmp_path / "out").query("FROM models").to_dict("records")
    assert (row["outputs"], row["matched_by"], row["input_size"]) == (1000, "wnid", 224)
    assert row["view"] == "shorter side to 256 px, bicubic, then the central 224 px"


def test_wrong_labels_stay_wrong(tmp_path: Path, photographs: list[Path], logits: torch.Tensor) -> None:
    """Each photograph lies in the folder of its second best class: rank 2 where both classes are kept."""
    wnids = ImageNetInfo("imagenet-1k").label_names()
    second = logits.topk(2).indices[:, 1]
    root = by_class(tmp_path / "photos", photographs, [wnids[i] for i in second])
    found = run(root, tmp_path, "suite=published", "dataset=folder", "dataset.options.name=second")
    kept = sorted({wnids[i] for i in second})
    own = logits[:, [wnids.index(name) for name in kept]]
    for file, label, values in zip(photographs, second, own, strict=True):
        name = wnids[label]
        row = found.loc[f"{name}/{file.name}"]
        assert row["prediction"] == values.argmax()
        assert row["true_rank"] == 1 + int((values > values[kept.index(name)]).sum())


def test_another_input_size_keeps_the_share_that_is_cropped(
    tmp_path: Path, photographs: list[Path], logits: torch.Tensor
) -> None:
    wnids = ImageNetInfo("imagenet-1k").label_names()
    few = photographs[:12]
    root = by_class(tmp_path / "photos", few, [wnids[i] for i in logits[:12].argmax(1)])
    found = run(root, tmp_path, "dataset=folder", "input_size=160")
    kept = sorted(path.name for path in root.iterdir())
    own = plain_logits(few, 160)[:, [wnids.index(name) for name in kept]]
    at = {file.name: values for file, values in zip(few, own, strict=True)}
    for image_id, row in found.iterrows():
        assert row["prediction"] == at[str(image_id).partition("/")[2]].argmax()


@pytest.mark.slow
def test_a_thousand_photographs_in_numbered_folders_and_by_wnid(tmp_path: Path, data_root: Path) -> None:
    """All of ImageNet's classes have a folder, most of them with a copy of one photograph."""
    files = [*data_root.glob("CUB_200_2011/images/*/*.jpg"), *data_root.glob("oxford-iiit-pet/images/*.jpg")]
    files = sorted(files)[:1000]
    labels = plain_logits(files).argmax(1).tolist()
    wnids = ImageNetInfo("imagenet-1k").label_names()
    for kind, names in (("numbers", [str(i) for i in range(1000)]), ("wnids", wnids)):
        root = by_class(tmp_path / kind, files, [names[i] for i in labels])
        for name in names:
            if not (root / name).exists():
                (root / name).mkdir()
                shutil.copy(files[0], root / name / "filler.jpg")
        found = run(root, tmp_path / f"run_{kind}", "dataset=folder")
        of_files = found[~found.index.str.endswith("filler.jpg")]
        assert len(of_files) == 1000
        assert (of_files["label"] == of_files["prediction"]).sum() >= 999


def test_networks_of_several_views_share_one_run(pictures: Path, tmp_path: Path) -> None:
    """Two crops of one size, and another size; each network sees what its own library shows it."""
    entries, classifiers = [], {}
    for seed, (model, size) in enumerate({TINY: 160, "timm/test_efficientnet": 160, "timm/test_byobnet": 96}.items()):
        checkpoint = tiny_checkpoint(seed, input_size=size, model=model)
        torch.save(checkpoint.state_dict, path := tmp_path / f"{seed}.pt")
        entries.append(f"{{name: {model}, weights: {path}, input_size: {size}}}")
        classifiers[model] = (checkpoint.classifier(), transform(model, size))
    output = tmp_path / "out"
    words = ["dataset=folder", f"dataset.root={pictures}", f"output={output}", f"cache={tmp_path / 'cache'}"]
    words += ["tracking=off", "view=published", "fine_tune=never", "degradations=[{name: rotation, levels: [20]}]"]
    assert main([*words, "trials=1", f"models=[{','.join(entries)}]", "limit=12"]) == 0
    rows = Store(output).query("FROM predictions")
    assert len(rows) == 3 * 12 * 2
    for row in rows[rows["degradation"] == "none"].itertuples():
        classifier, of_library = classifiers[row.model]
        with torch.inference_mode():
            own = classifier.network(of_library(Image.open(pictures / row.image_id))[None])[0].softmax(0)
        assert row.prediction == own.argmax()
        assert row.confidence == pytest.approx(own.max().item(), abs=1e-3)


def test_an_image_that_no_rule_can_resize_is_a_failure(pictures: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    shutil.copytree(pictures, root)
    Image.fromarray(np.zeros((1, 30_000, 3), np.uint8)).save(root / "class_0" / "thin.png")
    output = tmp_path / "out"
    torch.save(tiny_checkpoint().state_dict, tmp_path / "w.pt")
    words = [f"dataset.root={root}", f"output={output}", f"cache={tmp_path / 'cache'}", "tracking=off", "trials=1"]
    words += [f"models=[{{name: {TINY}, weights: {tmp_path / 'w.pt'}}}]", "view=published", "fine_tune=never"]
    assert main(["dataset=folder", *words, "degradations=[flip_lr]"]) == 1
    [failure] = Store(output).query("FROM failures").to_dict("records")
    assert failure["image_id"] == "class_0/thin.png"
    assert "1×30000" in failure["error"] or "30000×1" in failure["error"]
    assert Store(output).query("SELECT count(DISTINCT image_id) AS n FROM predictions")["n"][0] == 42


def test_keys_at_their_old_values_change_no_hash() -> None:
    """The hashes are those that runs of the version before these keys had."""
    config = compose(["suite=quick"])
    assert config.run_id == "quick-efaabad68521"
    assert prepare(config).protocol == "8aa759e7c3188d65"
    for word in ("view=published", "stored_quality=85", "frost=photographs"):
        changed = compose(["suite=quick", word])
        assert changed.run_id != config.run_id
        assert prepare(changed).protocol != "8aa759e7c3188d65"


@pytest.mark.slow
def test_published_views_over_ray_equal_those_of_one_process(pictures: Path, tmp_path: Path) -> None:
    torch.save(tiny_checkpoint().state_dict, tmp_path / "w.pt")
    tables = []
    for engine in ("local", "ray"):
        output = tmp_path / engine
        words = [f"dataset.root={pictures}", f"output={output}", f"cache={tmp_path / 'cache'}", "tracking=off"]
        words += [f"models=[{{name: {TINY}, weights: {tmp_path / 'w.pt'}}}]", "view=published", "fine_tune=never"]
        words += [
            "degradations=[{name: translation, levels: [4]},gaussian_rgb]",
            "trials=2",
            f"cluster.engine={engine}",
        ]
        assert main(["dataset=folder", *words, "cluster.threads=1"]) == 0
        order = "ORDER BY image_id, degradation, level, trial"
        tables.append(Store(output).query(f"SELECT * EXCLUDE (run_id) FROM predictions {order}"))  # noqa: S608
    pd.testing.assert_frame_equal(*tables, check_exact=True)
