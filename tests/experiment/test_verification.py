"""Verification: which rows agree, differ or are not computed, and that a config of others is not obeyed."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from rich.console import Console

from cnnsens_bench import verify as command
from cnnsens_bench.config.schema import Config
from cnnsens_bench.experiment.recorded_config import given_keys, recorded_config, recorded_entry
from cnnsens_bench.experiment.verification import Verification, VerifyRequest, compare, verify
from cnnsens_bench.run import main as run
from cnnsens_bench.store.submission.transfer import Selection, export
from cnnsens_bench.utils.errors import UserError
from tests.conftest import TINY

CONDITIONS = (
    "degradations=[{name: gaussian_rgb, levels: [4, 64]},flip_lr,[{name: pepper, level: 0.1},flip_ud],"
    "{name: translation, levels: [2]}]"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def output(pictures: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run of one network with random weights."""
    folder = tmp_path_factory.mktemp("run")
    words = [
        "dataset=folder", f"dataset.root={pictures}", f"cache={cache}", f"output={folder}", "input_size=40", "limit=4",
        f"models=[{{name: {TINY}, weights: random}}]", "defenses=[none,gaussian_filter]", "training.epochs=0",
        "trials=2", CONDITIONS, "tracking=off", "budget=0.7",
    ]  # fmt: skip
    assert run(words) == 0
    return folder


def verified(results: Path, *given: str, **more: Any) -> tuple[Verification, str]:
    console = Console(file=io.StringIO(), width=200)
    found = verify(VerifyRequest(str(results), given=given, **{"sample": 1000} | more), console)
    assert isinstance(console.file, io.StringIO)
    return found, console.file.getvalue()


def test_a_tampered_row_of_a_submission_differs(
    output: Path, pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All rows of both entrants are computed again, in a submission whose config has no folder of its maker."""
    tampered = tmp_path / "tampered.duckdb"
    tampered.write_bytes((output / "results.duckdb").read_bytes())
    with duckdb.connect(str(tampered)) as connection:
        connection.execute(
            "UPDATE predictions SET prediction = (prediction + 1) % 3 WHERE rowid = "
            "(SELECT max(rowid) FROM predictions WHERE degradation = 'gaussian_rgb' AND defense <> 'none')"
        )
    submission = tmp_path / "submission"
    export(tampered, submission, Selection())
    words = [f"dataset.root={pictures}", f"cache={cache}"]
    report = tmp_path / "verified.json"
    assert command.main([str(submission), *words, "--sample", "1000", "--json", str(report)]) == 3
    said = capsys.readouterr().out
    assert "1 of 2 entrants agree, 1 differ, 0 could not be recomputed whole" in said
    assert "differs: class_" in said
    content = json.loads(report.read_text())
    good, bad = sorted(content["entrants"], key=lambda one: one["differed"])
    assert (good["agreed"], good["differed"], good["not_recomputed"]) == (good["total"], 0, 0)
    assert (bad["agreed"], bad["differed"], bad["defense"] != "none") == (bad["total"] - 1, 1, True)
    assert len(content["card_sha256"]) == 64


def test_a_sample_is_chosen_by_its_seed_and_shared_by_entrants(output: Path, pictures: Path, cache: Path) -> None:
    words = f"dataset.root={pictures}", f"cache={cache}"
    found, said = verified(output, *words, sample=5, seed="s")
    assert [one.agreed for one in found.entrants] == [one.sampled for one in found.entrants] == [5, 5]
    assert "at most 45.1 % of the rows may differ" in said


def test_what_is_absent_is_said(output: Path, tmp_path: Path, samples: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(output)]) == 1
    assert "not recomputed (dataset 'folder' needs dataset.root=<folder>" in capsys.readouterr().out
    assert command.main([str(tmp_path)]) == 2
    assert command.main([str(output), "limit=3"]) == 2
    assert command.main([str(output), "--sample", "0"]) == 2
    said = capsys.readouterr().err
    assert "there is no database" in said
    assert "'limit=3' is no key=value of data_root, dataset.root" in said
    assert "--sample is 0" in said
    assert "Traceback" not in said


def test_other_images_or_weights_are_not_compared(output: Path, pictures: Path, cache: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for label in range(3):
        (other / f"class_{label}").mkdir(parents=True)
        for file in sorted((pictures / f"class_{label}").iterdir())[:9]:
            (other / f"class_{label}" / file.name).write_bytes(file.read_bytes())
    found, said = verified(output, f"dataset.root={other}", f"cache={cache}")
    assert (found.differed, found.not_recomputed) == (0, sum(one.sampled for one in found.entrants))
    assert "the protocol is another" in said
    database = tmp_path / "results.duckdb"
    database.write_bytes((output / "results.duckdb").read_bytes())
    with duckdb.connect(str(database)) as connection:
        connection.execute("UPDATE models SET weights_sha256 = 'other'")
    found, said = verified(database, f"dataset.root={pictures}", f"cache={cache}")
    assert (found.differed, sum(one.agreed for one in found.entrants)) == (0, 0)
    assert "its weights are not those that this machine has of the same name" in said


ROW = {
    "image_id": "i", "defense": "none", "degradation": "pepper", "level": 0.1, "trial": 0, "label": 1, "prediction": 1,
    "confidence": 0.5, "true_probability": 0.5, "reference_probability": 0.5, "true_rank": 1, "reference_logit": 2.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("claimed", "here", "status"),
    [
        ({}, {}, "agreed"),
        ({"confidence": 0.5005, "true_probability": 0.5005}, {}, "agreed"),
        ({"confidence": 0.52}, {}, "differed"),
        ({"true_probability": 0.52}, {}, "differed"),
        ({"reference_probability": 0.4}, {}, "differed"),
        ({"reference_logit": 2.1}, {}, "differed"),
        ({"true_rank": 7}, {}, "differed"),
        ({"label": 2}, {}, "differed"),
        # Another label whose confidence is that of the true label here: they are as probable as each other.
        ({"prediction": 2, "true_rank": 2}, {}, "agreed"),
        ({}, {"prediction": 2, "true_rank": 2}, "agreed"),
        # The true label is claimed, but here it is less probable than the prediction.
        ({}, {"prediction": 2, "true_probability": 0.4995, "confidence": 0.6}, "differed"),
        # None of the two labels is the true one, so nothing shows that they are as probable.
        ({"prediction": 3, "label": 0}, {"prediction": 2, "label": 0}, "differed"),
    ],
)
def test_rows_are_compared(claimed: dict, here: dict, status: str) -> None:
    found = compare(pd.DataFrame([ROW | claimed]), pd.DataFrame([ROW | here]), 1e-3)
    assert found["status"].tolist() == [status]
    missing = compare(pd.DataFrame([ROW]), pd.DataFrame([ROW | {"trial": 1}]), 1e-3)
    assert missing["status"].tolist() == ["missing"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"plugins": ["evil"]}, "its run imports the plugin 'evil': name it with plugins="),
        (
            {"dataset": {"name": "folder", "options": {"boxes": "/etc/passwd"}}},
            "dataset.options of its run names",
        ),
        ({"weights": "${oc.env:HOME}"}, "its config holds '\\${'"),
        ({"colour": 3}, "its config is not one of this version"),
        ({"trials": "many"}, "its config is not one of this version"),
        ({"recipe": "search"}, "recipe=search, which the database does not hold"),
        ({"precision": "float8"}, "precision is 'float8'"),
    ],
)
def test_a_config_of_others_is_not_obeyed(changes: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        recorded_config(json.dumps(dataclasses.asdict(Config()) | changes), {}, trust=False)


def test_folders_of_others_are_replaced() -> None:
    text = json.dumps(dataclasses.asdict(Config()) | {"data_root": "/theirs", "plugins": ["mine"], "limit": 3})
    assert recorded_config(text, {"plugins": "[mine]"}, trust=False).data_root is None
    assert recorded_config(text, {"plugins": "mine", "data_root": "/ours"}, trust=False).data_root == "/ours"
    trusted = recorded_config(text, {}, trust=True)
    assert (trusted.data_root, trusted.plugins, trusted.limit) == ("/theirs", ["mine"], None)
    with pytest.raises(UserError, match="did you mean 'data_root'"):
        given_keys(["data_rot=x"])


@pytest.mark.parametrize(
    ("entry", "model", "sentence"),
    [
        ("my_module:network", "my_module:network", "its code is not public"),
        ({"name": "python/my_module:network"}, "python/my_module:network", "its code is not public"),
        ({"name": "timm/resnet18", "weights": "/w.pth"}, "timm/resnet18", "its weights are a file"),
        ("timm/local-dir:/x", "timm/local-dir:/x", "its code is not public"),
        ("onnx//x/net.onnx", "onnx/net", "its weights are a file"),
        (
            {"name": "timm/resnet18", "classes": "/etc/passwd"},
            "timm/resnet18",
            "names of its outputs are in a file",
        ),
        ("timm/resnet34", "timm/resnet18", "does not name it"),
    ],
)
def test_code_and_files_of_others_are_not_loaded(entry: Any, model: str, sentence: str) -> None:
    config = Config(models=[7, {}, entry])
    with pytest.raises(UserError, match=sentence):
        recorded_entry(config, model, trust=False)
    if entry != "timm/resnet34":
        assert recorded_entry(config, model, trust=True) == entry
