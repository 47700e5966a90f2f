"""`suite=imagenet_c` on pictures that the package `imagecorruptions` made, and on corruptions made on the fly."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo

from cnnsens_bench import images, open_results
from cnnsens_bench.config.compose import compose
from cnnsens_bench.experiment.stored_pictures import settle_pictures
from cnnsens_bench.models.base import preprocessing_of
from cnnsens_bench.models.loading import load_network
from cnnsens_bench.run import main
from leaderboard.__main__ import main as leaderboard
from leaderboard.page import data
from leaderboard.read import read
from tests.benchmarks.scripts import load_script

LITE = "timm/tf_efficientnet_lite0"
"""A network whose published weights are in an installed package."""
CORRUPTIONS = ("brightness", "gaussian_noise")
BOTH = "degradations=[stored:*,common:brightness,common:gaussian_noise]"


@pytest.fixture(scope="module")
def root(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `imagenet`, four photographs in the folders of what is seen in them, and their `imagenet-c`."""
    root = tmp_path_factory.mktemp("data")
    files = sorted(data_root.glob("oxford-iiit-pet/images/*.jpg"))
    files = files[:: len(files) // 4][:4]
    view = preprocessing_of(LITE, None, "published").view
    classifier, wnids = load_network(LITE).classifier.eval(), ImageNetInfo("imagenet-1k").label_names()
    published = load_script("published_corruptions").imagecorruptions()
    for file in files:
        seen = images.render(images.decode(str(file)), 224, view=view)
        with torch.inference_mode():
            label = int(classifier(torch.from_numpy(seen.copy()).permute(2, 0, 1)[None].float()).argmax())
        (root / "imagenet" / "val" / wnids[label]).mkdir(parents=True, exist_ok=True)
        (root / "imagenet" / "val" / wnids[label] / file.name).write_bytes(file.read_bytes())
        for name in CORRUPTIONS:
            for severity in range(1, 6):
                np.random.seed(severity)  # the package draws from it
                pixels = np.clip(getattr(published, name)(Image.fromarray(seen), severity), 0, 255)
                target = root / "imagenet-c" / name / str(severity) / wnids[label] / f"{file.stem}.JPEG"
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.uint8(pixels)).save(target, quality=85, optimize=True)
    return root


@pytest.mark.slow
def test_both_sets_of_rows_the_page_and_the_figure(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = [f"data_root={root}", f"output={output}", f"cache={tmp_path / 'cache'}", "tracking=off"]
    words += ["suite=imagenet_c", "stored_quality=85", "batch_size=4", "cluster.threads=1"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert (
        f"stored: shows pre-made pictures, 2 corruptions in {root / 'imagenet-c'}: brightness, gaussian_noise" in said
    )
    found = open_results(output).predictions
    assert set(found["degradation"]) == {"none", "stored:brightness", "stored:gaussian_noise"}
    assert main([*words, BOTH, "figures=[stored]"]) == 0
    said = capsys.readouterr().out
    assert "resuming: 44 of 84 evaluations are in the store" in said
    assert "brightness (stored)" in said
    assert (output / "figures" / "stored.png").is_file()
    results = open_results(output)
    rows = results.predictions
    assert rows.groupby(["degradation"]).size().to_dict() == {
        "none": 4,
        **{f"{kind}:{name}": 20 for kind in ("stored", "common") for name in CORRUPTIONS},
    }
    # Brightness draws nothing: the pictures were made of the network's own view, and both are stored as JPEG once.
    keys, value = ["image_id", "level"], "true_probability"
    by_kind = {kind: rows[rows["degradation"] == f"{kind}:brightness"].set_index(keys)[value] for kind in
               ("stored", "common")}  # fmt: skip
    pd.testing.assert_series_equal(by_kind["stored"], by_kind["common"], atol=0.1, check_like=True)
    assert results.label_change["degradation"].isin([f"stored:{name}" for name in CORRUPTIONS]).sum() == 10
    assert results.mce("published:alexnet")["degradations"].tolist() == [2]
    assert leaderboard(["build", "--db", str(output / "results.duckdb"), "--out", str(tmp_path / "site")]) == 0
    [board] = data(read([output / "results.duckdb"]), "published:alexnet")["boards"]
    assert [name for name in board["degradations"] if name.startswith("stored:")] == [
        f"stored:{name}" for name in CORRUPTIONS
    ]
    assert board["entrants"][0]["relative_of"]["mce"] == 2


def test_without_the_folder_it_computes_them(root: Path) -> None:
    """The run, its hash and its conditions are those of `degradations=[common:*]`."""
    alone = compose(["suite=imagenet_c", f"dataset.root={root / 'imagenet'}"])
    settled = settle_pictures(alone)
    assert settled.stored is None
    assert settled.config == dataclasses.replace(alone, degradations=["common:*"])
    assert settled.config.run_id == compose(["suite=imagenet_c", "degradations=['common:*']"]).run_id
    [note] = settled.notes
    assert note == (
        "common:* is computed, as there are no pre-made pictures (stored_root=<folder>, or imagenet-c below "
        "data_root=<folder>)"
    )
