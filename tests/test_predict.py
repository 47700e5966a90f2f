"""The command `predict`: its numbers, its table and its JSON, and what becomes of bad photographs."""

import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from scipy.stats import norm

from cnnsens_bench import images
from cnnsens_bench.engine import score
from cnnsens_bench.figures.photo_table import print_photo_table
from cnnsens_bench.predict import main
from cnnsens_bench.run import main as run
from cnnsens_bench.sensitivity.gradients import central_differences, differentiate, first_order, level_free
from tests.conftest import TINY, tiny_checkpoint
from tests.predicting import Capture, predicted

SIZE = 48
LEVELS = ["sigma=1,16", "p=0.001", "shift=0.5,2"]
CONDITIONS = [
    ("gaussian_rgb", 1), ("gaussian_rgb", 16), ("pepper_pixel", 0.001), ("translation", 0.5), ("translation", 2)
]  # fmt: skip


def directly(path: str, box: images.Box | None = None) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Return level-free columns, logits and the gradient of the margin of one photograph."""
    picture = images.decode(path, box)
    pixels, wide = (
        torch.from_numpy(view.copy()).permute(2, 0, 1)[None].float()
        for view in (images.render(picture, SIZE), images.render_wide(picture, SIZE))
    )
    outputs = differentiate(tiny_checkpoint(1).classifier(), pixels)
    return level_free(outputs, pixels, *central_differences(wide)), outputs.logits[0], outputs.gradients[-1][0]


@pytest.mark.parametrize("box", [None, (5.5, 3.0, 40.0, 50.25)])
def test_the_numbers_are_those_of_the_gradient(
    box: images.Box | None, checkpoint: Path, photographs: list[str], capsys: Capture
) -> None:
    more = [] if box is None else ["box=" + ",".join(map(str, box))]
    found = predicted(capsys, *photographs, f"checkpoint={checkpoint}", *LEVELS, "predictor=gradient", *more)
    assert [record["file"] for record in found] == photographs
    assert len({record["class"] for record in found}) > 1
    for record in found:
        columns, logits, _ = directly(record["file"], box)
        chances = logits.double().softmax(0)
        best, second = logits.topk(2).indices.tolist()
        assert (record["class_index"], record["class"]) == (best, f"class_{best}")
        assert record["runner_up"] == f"class_{second}"
        assert record["confidence"] == pytest.approx(chances[best].item(), rel=1e-4)
        assert record["margin"] == pytest.approx((logits[best] - logits[second]).item(), rel=1e-4)
        assert record["entropy"] == pytest.approx(-(chances * chances.log()).sum().item(), rel=1e-4)
        assert [(p["degradation"], p["level"]) for p in record["predictions"]] == CONDITIONS
        for p in record["predictions"]:
            change = first_order(columns, p["degradation"], p["level"])
            (logit, probability, margin), mean = change.deviation[:, 0].tolist(), change.mean[:, 0].tolist()
            expected = {
                "logit_std": logit, "probability_std": probability, "logit_mean_change": mean[0],
                "probability_mean_change": mean[1], "label_change": norm.cdf(-(record["margin"] + mean[2]) / margin),
            }  # fmt: skip
            assert {key: p[key] for key in expected} == pytest.approx(expected, rel=1e-3, abs=1e-9)
            assert p["predictor"] == "gradient"


SLOW_SMOOTHED = pytest.param("smoothed", marks=pytest.mark.slow)
SLOW = pytest.param("noisy_gradients(copies=2)", marks=pytest.mark.slow)


@pytest.mark.parametrize("predictor", ["smoothed_sampling", "gradient", SLOW, SLOW_SMOOTHED])
def test_a_result_does_not_depend_on_who_shares_the_batch(
    predictor: str, checkpoint: Path, photographs: list[str], tmp_path: Path, capsys: Capture
) -> None:
    words = [f"checkpoint={checkpoint}", *LEVELS, f"predictor={predictor}", "batch_size=4"]
    together = predicted(capsys, *photographs, *words)
    assert [predicted(capsys, one, *words)[0] for one in photographs] == together
    mixed = predicted(capsys, tmp_path, *photographs[::-1], *words, code=1)
    assert mixed[:0:-1] == together


def test_short_memory_changes_no_label(
    checkpoint: Path, photographs: list[str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a batch does not fit, it is computed in parts, and each photograph keeps its own label and map."""
    words = [*photographs, f"checkpoint={checkpoint}", "batch_size=4", "--heatmap"]
    before = predicted(capsys, *words, tmp_path / "before")

    def fails_on_many(network: object, pixels: torch.Tensor) -> object:
        if len(pixels) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return differentiate(network, pixels)  # type: ignore[arg-type]

    monkeypatch.setattr(score, "differentiate", fails_on_many)
    after = predicted(capsys, *words, tmp_path / "after")
    assert len({one["class"] for one in before}) > 1
    for one, other in zip(before, after, strict=True):
        assert [one[key] for key in ("file", "class", "runner_up")] == [
            other[key] for key in ("file", "class", "runner_up")
        ]
        assert other["confidence"] == pytest.approx(one["confidence"], rel=1e-4)
        maps = [np.asarray(Image.open(result["heatmap"])).astype(int) for result in (one, other)]
        assert np.abs(maps[0] - maps[1]).mean() < 0.5


def test_a_predictor_looks_at_what_it_knows(checkpoint: Path, photographs: list[str], capsys: Capture) -> None:
    [record] = predicted(capsys, photographs[0], f"checkpoint={checkpoint}", *LEVELS, "predictor=noisy_gradients")
    assert [p["predictor"] for p in record["predictions"]] == ["noisy_gradients(copies=2)"] * 3 + ["gradient"] * 2
    [plain] = predicted(capsys, photographs[0], f"checkpoint={checkpoint}", *LEVELS, "predictor=gradient")
    for far, near in zip(record["predictions"], plain["predictions"], strict=True):
        assert (far == near) == (far["degradation"] == "translation")


def test_predictions_are_smoothed_where_nothing_else_is_asked_for(
    checkpoint: Path, photographs: list[str], capsys: Capture
) -> None:
    [record] = predicted(capsys, photographs[0], f"checkpoint={checkpoint}", *LEVELS)
    assert {p["predictor"] for p in record["predictions"]} == {"smoothed_sampling(copies=6, rivals=3)"}
    [plain] = predicted(capsys, photographs[0], f"checkpoint={checkpoint}", *LEVELS, "predictor=gradient")
    assert [p.keys() for p in record["predictions"]] == [p.keys() for p in plain["predictions"]]


def test_levels_that_nobody_names(checkpoint: Path, photographs: list[str], capsys: Capture) -> None:
    [record] = predicted(capsys, photographs[0], f"checkpoint={checkpoint}")
    assert [(p["degradation"], p["level"]) for p in record["predictions"]] == [
        ("gaussian_rgb", 4), ("pepper_pixel", 0.01), ("translation", 0.5)
    ]  # fmt: skip
    [record] = predicted(capsys, photographs[0], f"checkpoint={checkpoint}", "sigma=[0,2,2]")
    assert [(p["level"], p["label_change"] > 0) for p in record["predictions"]] == [(0, False), (2, True)]


@pytest.mark.parametrize("levels", [["sigma=4,16"], LEVELS], ids=["beside each other", "below each other"])
def test_the_table(levels: list[str], checkpoint: Path, photographs: list[str], capsys: Capture) -> None:
    words = [*photographs, f"checkpoint={checkpoint}", "predictor=gradient", *levels]
    records = predicted(capsys, *words)
    assert main(words) == 0
    said = capsys.readouterr().out
    table, _, last = said.rstrip().rpartition("\n")
    assert max(map(len, table.splitlines())) <= 80
    assert f"{TINY}, by gradient" in table
    for record in records:
        assert f"{100 * record['confidence']:.1f}" in table
    for text in ["σ=16", *(["p=0.001", "shift=0.5"] if len(levels) > 1 else [])]:
        assert text in table
    worst = max(records, key=lambda record: max(p["label_change"] for p in record["predictions"]))
    assert last.startswith(f"most fragile: {worst['file']}, whose label changes with a probability of ")


def test_a_spread_that_no_probability_has(capsys: Capture) -> None:
    prediction = {"degradation": "gaussian_rgb", "level": 4.0, "probability_std": 1.26, "label_change": 0.447}
    record = {"file": "a.jpg", "class": "wren", "confidence": 0.648, "margin": 0.7, "predictions": [prediction]}
    print_photo_table(Console(width=80), [record], "title")
    assert re.search(r"a\.jpg +wren +64\.8 +>50 +44\.7", capsys.readouterr().out)


def test_names_do_not_steer_the_terminal(
    checkpoint: Path, photographs: list[str], tmp_path: Path, capsys: Capture
) -> None:
    odd = str(tmp_path / "a\x1b[2J\n\u202eb[red]\udcff.png")
    Path(odd).write_bytes(Path(photographs[0]).read_bytes())
    (tmp_path / "names").write_text("one[/]\x1b[31m\ntwo\x1b[31m\nthree\x1b[31m\n")
    words = [odd, f"checkpoint={checkpoint}", f"classes={tmp_path / 'names'}", "predictor=noisy_gradients"]
    assert main([*words, odd + "\x1b", "--heatmap", str(tmp_path / "maps")]) == 1
    said = capsys.readouterr()
    assert not {"\x1b", "\u202e"} & set(said.out + said.err)
    assert said.err.count("\n") == 1
    assert "[red]" in said.out
    assert predicted(capsys, *words)[0]["file"] == odd


def bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("folder", None, "a folder, not an image"),
        ("text.jpg", lambda whole: b"no image", "not an image that Pillow can read"),
        ("empty.png", lambda whole: b"", "the file is empty"),
        ("bomb.png", lambda whole: bomb(), "refused as a decompression bomb"),
        ("cut.png", lambda whole: whole[: len(whole) // 2], "cannot be decoded"),
        ("gone.png", lambda whole: None, "no such file"),
        ("gone=4.png", lambda whole: b"", "the file is empty"),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_bad_photograph_among_good_ones(
    name: str, content, sentence: str, batch_size: int, checkpoint: Path, photographs: list[str], tmp_path: Path,
    capsys: Capture,
) -> None:  # fmt: skip
    bad = tmp_path / name
    if content is None:
        bad.mkdir()
    elif (data := content(Path(photographs[0]).read_bytes())) is not None:
        bad.write_bytes(data)
    words = [photographs[0], str(bad), photographs[1], f"checkpoint={checkpoint}", f"batch_size={batch_size}"]
    first, failed, second = predicted(capsys, *words, code=1)
    assert set(failed) == {"file", "error"}
    assert sentence in failed["error"]
    assert [first["file"], second["file"]] == photographs[:2]
    assert main(words) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == f"error: {failed['error']}"
    assert "most fragile" in said.out
    assert main([str(bad), f"checkpoint={checkpoint}"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)


def test_a_box_outside_fails_where_it_lies_outside(checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    for name, width in (("wide.png", 200), ("narrow.png", 50)):
        Image.fromarray(np.full((60, width, 3), 90, np.uint8)).save(tmp_path / name)
    names = [tmp_path / "narrow.png", tmp_path / "wide.png"]
    narrow, wide = predicted(capsys, *names, f"checkpoint={checkpoint}", "box=60,0,30,30", code=1)
    assert "has no area inside the 50×60 image" in narrow["error"]
    assert "error" not in wide


def test_numbers_that_are_none(photographs: list[str], tmp_path: Path, capsys: Capture) -> None:
    broken = tiny_checkpoint(1)
    broken.state_dict["fc.bias"][0] = float("nan")
    broken.save(tmp_path / "nan.pt")
    [record] = predicted(capsys, photographs[0], f"checkpoint={tmp_path / 'nan.pt'}", code=1)
    assert record["error"].endswith("the network gives no finite number on it")


def test_the_checkpoint_that_a_run_names(
    pictures: Path, photographs: list[str], tmp_path: Path, capsys: Capture
) -> None:
    words = [
        "dataset=folder", f"dataset.root={pictures}", f"cache={tmp_path}", f"output={tmp_path / 'out'}", "limit=1",
        f"models=[{{name: {TINY}, weights: random}}]", "input_size=40", "training.epochs=1", "defenses=[none]",
        "degradations=[flip_lr]", "tracking=off",
    ]  # fmt: skip
    assert run(words) == 0
    [path] = re.findall(f"checkpoint of {TINY}: (.*)", capsys.readouterr().out)
    [record] = predicted(capsys, photographs[0], f"checkpoint={path}")
    assert record["class"] in ("class_0", "class_1", "class_2")


def test_what_plugins_print_is_no_json(
    checkpoint: Path, photographs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "my_loud_predictor.py").write_text(
        "from cnnsens_bench.sensitivity.predictors import NOISES, OutputChange, predictor\n"
        "print('predict: hello')\n"
        "@predictor('unmoved')\n"
        "def unmoved():\n"
        "    return 0, NOISES, lambda given: OutputChange(0 * given.outputs.values, 0 * given.outputs.values)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    words = [f"checkpoint={checkpoint}", "plugins=my_loud_predictor", "predictor=unmoved", "sigma=4"]
    [record] = predicted(capsys, photographs[0], *words)
    assert (record["predictions"][0]["predictor"], record["predictions"][0]["label_change"]) == ("unmoved", 0)


def test_real_photographs(data_root: Path, checkpoint: Path, capsys: Capture) -> None:
    found = sorted(map(str, (data_root / "CUB_200_2011").rglob("*.jpg")))[::400][:9]
    records = predicted(capsys, *found, f"checkpoint={checkpoint}", "batch_size=4")
    assert [record["file"] for record in records] == found
    for record in records:
        assert all(0 <= p["label_change"] <= 1 for p in record["predictions"])
