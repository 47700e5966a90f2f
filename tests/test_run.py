"""The command as users run it: whole runs, resumed runs, killed runs, wrong requests."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnsens_bench.run import main
from cnnsens_bench.store import Store, holding
from tests.conftest import TINY

ROWS = "SELECT * EXCLUDE (run_id) FROM predictions ORDER BY image_id, model, defense, degradation, level, trial"
CONDITIONS = (
    "degradations=[{name: gaussian_rgb, levels: [4, 64]},{name: pepper, levels: [0.04, 0.3]},"
    "{name: translation, levels: [1, 8]},flip_lr]"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def words(pictures: Path, cache: Path, output: Path, *more: str) -> list[str]:
    return [
        "dataset=folder", f"dataset.root={pictures}", f"cache={cache}", f"output={output}", "input_size=40", "trials=2",
        f"models=[{{name: {TINY}, weights: random}},{{name: timm/test_efficientnet, weights: random}}]",
        "defenses=[none,gaussian_filter]", CONDITIONS, "training.epochs=4", "training.batch_size=8",
        "batch_size=8", "tracking=off", *more,
    ]  # fmt: skip


def predictions(output: Path) -> pd.DataFrame:
    return Store(output).query(ROWS)


@pytest.fixture(scope="module")
def whole(pictures: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output folder of a run that nothing disturbs."""
    output = tmp_path_factory.mktemp("whole")
    assert main(words(pictures, cache, output)) == 0
    return output


def test_a_whole_run(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(whole)
    table = predictions(whole)
    n_images = table["image_id"].nunique()
    assert len(table) == n_images * 2 * 2 * (1 + 2 * 2 * 3 + 1)
    assert not table.duplicated(["image_id", "model", "defense", "degradation", "level", "trial"]).any()
    assert table.notna().all().all()
    undegraded = table[table["degradation"] == "none"]
    assert (undegraded["confidence"] == undegraded["reference_probability"]).all()
    assert store.query("SELECT status FROM runs")["status"].tolist() == ["done"]
    images = store.query("FROM images")
    assert len(images) == n_images
    assert (images["hue_entropy"] > 0).all()
    models = store.query("FROM models")
    assert len(models) == 4
    assert models["trained_by"].nunique() == 1
    assert len(store.query("FROM leaderboard")) == 4
    (board,) = json.loads((whole / "results.json").read_text())["boards"]
    assert len(board["entrants"]) == 4
    assert not (whole / "parts").exists() or not any((whole / "parts").rglob("*.parquet"))


def test_the_same_command_again_computes_nothing(
    whole: Path, pictures: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = predictions(whole)
    assert main(words(pictures, cache, whole)) == 0
    said = capsys.readouterr().out
    assert f"{len(before)} of {len(before)} evaluations are in the store" in said
    assert "checkpoint from the cache" in said
    pd.testing.assert_frame_equal(predictions(whole), before)


def test_what_a_run_says(pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(pictures, cache, tmp_path, "limit=5")) == 0
    said = capsys.readouterr().out
    for expected in ("5 test images", "sweep", "undegraded", "p_Δ", "gaussian_filter(3, 0.5)", "test_efficientnet",
                     "pepper", f"results: {tmp_path / 'results.duckdb'}"):  # fmt: skip
        assert expected in said
    assert "\x1b[" not in said  # plain where there is no terminal


def test_more_of_the_same_adds_only_what_is_new(whole: Path, pictures: Path, cache: Path, tmp_path: Path) -> None:
    """A run of one degradation and few images, then the whole one, gives what the whole one gives alone."""
    narrow = [w for w in words(pictures, cache, tmp_path) if not w.startswith("degradations")]
    assert main([*narrow, "degradations=[{name: pepper, levels: [0.3]}]", "limit=6"]) == 0
    assert main(words(pictures, cache, tmp_path)) == 0
    pd.testing.assert_frame_equal(predictions(tmp_path), predictions(whole))


def test_bits_do_not_depend_on_the_limit(whole: Path, pictures: Path, cache: Path, tmp_path: Path) -> None:
    assert main(words(pictures, cache, tmp_path, "limit=7")) == 0
    some, every = predictions(tmp_path), predictions(whole)
    every = every[every["image_id"].isin(some["image_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(some, every, check_exact=True)


def test_threads_change_no_more_than_rounding(whole: Path, pictures: Path, cache: Path, tmp_path: Path) -> None:
    """On some CPUs oneDNN rounds small convolutions by how their work is split among threads."""
    assert main(words(pictures, cache, tmp_path, "cluster.threads=1")) == 0
    one, two = predictions(tmp_path), predictions(whole)
    floats = ["confidence", "true_probability", "reference_logit", "reference_probability"]
    pd.testing.assert_frame_equal(one[floats], two[floats], check_exact=False, rtol=1e-3, atol=1e-5)
    keys = ["image_id", "model", "defense", "degradation", "level", "trial", "label"]
    pd.testing.assert_frame_equal(one[keys], two[keys])


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3])
def test_a_run_killed_three_times_goes_on(whole: Path, pictures: Path, cache: Path, tmp_path: Path, kills: int) -> None:
    command = [sys.executable, "-m", "cnnsens_bench.run", *words(pictures, cache, tmp_path)]
    command = [w if not w.startswith("batch_size") else "batch_size=8" for w in command]
    seen = 0
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            if len(list(tmp_path.glob("parts/*/predictions-*.parquet"))) >= 2:  # in the middle of the sweep
                break
            time.sleep(0.01)
        seen += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert seen >= 2, "the run was over before it could be killed"
    assert main(command[3:]) == 0
    pd.testing.assert_frame_equal(predictions(tmp_path), predictions(whole))
    assert Store(tmp_path).query("SELECT status FROM runs")["status"].tolist() == ["done"]


@pytest.mark.slow
@pytest.mark.parametrize("by", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_run_that_is_stopped_says_so_and_keeps_what_it_has(
    whole: Path, pictures: Path, cache: Path, tmp_path: Path, by: signal.Signals
) -> None:
    trials = 100  # so many that the run cannot be over before it is stopped
    command = [sys.executable, "-m", "cnnsens_bench.run", *words(pictures, cache, tmp_path, f"trials={trials}")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until = time.monotonic() + 60
    while not list(tmp_path.glob("parts/*/predictions-*.parquet")) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(by)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert Store(tmp_path).query("SELECT status FROM runs")["status"].tolist() == ["interrupted"]
    images = predictions(whole)["image_id"].nunique()
    assert 0 < len(predictions(tmp_path)) < images * 2 * 2 * (1 + 2 * trials * 3 + 1)


def test_bad_images_become_failures_and_the_run_goes_on(
    pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    for split in ("train", "test"):
        shutil.copytree(pictures, root / split, ignore=shutil.ignore_patterns("boxes.csv"))
    test = root / "test" / "class_0"
    picture = Image.open(test / "00.png")
    whole_file = (test / "00.png").read_bytes()
    (test / "truncated.png").write_bytes(whole_file[: len(whole_file) // 2])
    (test / "empty.png").write_bytes(b"")
    (test / "text.jpg").write_text("no image")
    (test / "gone.png").symlink_to("nowhere.png")
    picture.convert("CMYK").save(test / "cmyk.jpg")
    Image.fromarray(np.full((50, 50), 40_000, np.uint16)).save(test / "sixteen.png")
    picture.convert("RGBA").quantize().save(test / "palette.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(test / "turned.jpg", exif=exif)
    boxes = pd.DataFrame(
        [("01.png", -5, -5, 500, 500), ("02.png", 5, 5, 0, 20), ("03.png", 900, 5, 10, 20)], columns=["path", *"xywh"]
    )
    boxes["path"] = "test/class_0/" + boxes["path"]
    boxes.to_csv(root / "boxes.csv", index=False)
    arguments = [w for w in words(pictures, cache, tmp_path / "out") if not w.startswith("dataset.root")]
    assert main([*arguments, f"dataset.root={root}"]) == 1
    store = Store(tmp_path / "out")
    failures = store.query("SELECT image_id, stage, error FROM failures").set_index("image_id")
    bad = {"truncated.png", "empty.png", "text.jpg", "gone.png", "02.png", "03.png"}
    assert {Path(i).name for i in failures.index} == bad
    assert set(failures["stage"]) == {"decode"}
    assert "no area" in failures.loc["test/class_0/02.png", "error"]
    done = set(store.query("SELECT DISTINCT image_id FROM predictions")["image_id"])
    assert {f"test/class_0/{n}" for n in ("cmyk.jpg", "sixteen.png", "palette.png", "turned.jpg", "01.png")} <= done
    turned = store.query("SELECT width, height FROM images WHERE image_id = 'test/class_0/turned.jpg'")
    assert (turned["width"][0], turned["height"][0]) == (picture.height, picture.width)
    assert store.query("SELECT status FROM runs")["status"].tolist() == ["incomplete"]
    said = capsys.readouterr().out
    assert "6 images were not computed" in said
    # Mended files are computed by the same command.
    for name in ("truncated.png", "empty.png", "gone.png"):
        (test / name).unlink()
        (test / name).write_bytes(whole_file)
    assert main([*arguments, f"dataset.root={root}"]) == 1
    assert len(store.query("FROM failures")) == 3


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("suite=quik", "unknown suite 'quik'"),
        ("modells=[a]", "unknown config key"),
        ("models=[timm/resnet118]", "unknown model"),
        ("degradations=[peper]", "unknown degradation 'peper': did you mean 'pepper'"),
        ("degradations=[{name: pepper, levels: [-0.1]}]", "level -0.1 is out of range"),
        ("degradations=[{name: pepper, levels: [2]}]", "between 0 and 1"),
        ("degradations=[{name: gaussian_rgb, levels: [x]}]", "'x' is not a number"),
        ("degradations=[{name: flip_lr, levels: [1]}]", "has no levels"),
        ("defenses=[gaussian_filtre]", "did you mean 'gaussian_filter'"),
        ("defenses=['gaussian_filter(size=99)']", "fails on inputs of 40 px"),
        ("defenses=['input_dropout(p=1)']", "p must be in"),
        ("dataset=cub20", "unknown dataset 'cub20'"),
        ("dataset.root=/nowhere", "the folder /nowhere does not exist"),
        ("output=/proc/here", "cannot be written"),
        ("plugins=[no_such_module]", "plugin 'no_such_module' cannot be imported"),
        ("weights=/no/weights.pth", "no weights file /no/weights.pth"),
        ("input_size=20000000", "input_size is 20000000: it must be between 16 and 4096"),
    ],
)
def test_wrong_requests_end_with_one_sentence(
    word: str, sentence: str, pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = words(pictures, cache, tmp_path / "out")
    if word.startswith("weights"):
        arguments.append(f"models=[{TINY}]")
    assert main([*arguments, word]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said
    import re

    assert re.search(sentence, said)


def test_who_holds_the_database_does_not_stop_a_run_and_a_second_run_is_refused(
    pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path).open()
    code = (
        f"import duckdb; c = duckdb.connect({str(tmp_path / 'results.duckdb')!r}); print('held', flush=True); input()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    few = words(pictures, cache, tmp_path, "limit=2", "tracking=off")
    try:
        assert holder.stdout
        holder.stdout.readline()
        assert main(few) == 0
    finally:
        holder.kill()
        holder.wait()
    with holding(tmp_path):
        assert main(few) == 2
    said = capsys.readouterr().err
    assert f"error: {tmp_path} is being written by a run on" in said
    assert f"(PID {os.getpid()}, since " in said
    assert said.count("\n") == 1
    assert len(predictions(tmp_path)) == 2 * 2 * 2 * (1 + 2 * 2 * 3 + 1)


def test_other_weights_in_the_same_output_are_refused(
    pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(pictures, cache, tmp_path, "limit=2")) == 0
    assert main(words(pictures, cache, tmp_path, "limit=2", "training.epochs=1")) == 2
    assert "with other weights" in capsys.readouterr().err


DEFENDED = (
    "defenses=[none,median_filter,'batch_norm_recalibration(images=9)',input_dropout,"
    "'input_dropout(p=0.1) + median_filter']"
)


@pytest.mark.slow
def test_trained_and_recalibrated_defenses(
    pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained defenses have weights of their own, and predictions do not depend on how the run is cut into parts."""
    first, second = tmp_path / "first", tmp_path / "second"
    one_model = f"models=[{{name: {TINY}, weights: random, training: {{epochs: 1}}}}]"
    assert main(words(pictures, cache, first, one_model, DEFENDED)) == 0
    said = capsys.readouterr().out
    assert f"fine-tune {TINY} (input_dropout=0.1)" in said
    models = Store(first).query("SELECT defense, weights_sha256 AS weights FROM models").set_index("defense")["weights"]
    plain, trained = models["none"], models["input_dropout(p=0.1)"]
    assert plain != trained
    assert models.drop(["input_dropout(p=0.1)", "input_dropout(p=0.1) + median_filter(size=3)"]).tolist() == [plain] * 3
    assert models["input_dropout(p=0.1) + median_filter(size=3)"] == trained
    gain = Store(first).query("SELECT DISTINCT defense FROM defense_gain")
    assert len(gain) == 4
    # A narrow run of the plain network, then everything.
    narrow = [w for w in words(pictures, cache, second, one_model, "limit=4") if not w.startswith("degradations")]
    assert main([*narrow, "defenses=[none]", "degradations=[{name: pepper, levels: [0.3]}]"]) == 0
    assert main([*narrow, DEFENDED, "degradations=[{name: pepper, levels: [0.3]},flip_lr]"]) == 0
    assert main(words(pictures, cache, second, one_model, DEFENDED, "cluster.threads=1")) == 0
    pd.testing.assert_frame_equal(predictions(second), predictions(first))
    # Other weights under any defense of the same training are refused.
    capsys.readouterr()
    for other in ("defenses=[gaussian_filter]", "defenses=['input_dropout + gaussian_filter']"):
        assert main(words(pictures, cache, first, one_model, other, "training.lr_body=1e-4")) == 2
        assert "with other weights" in capsys.readouterr().err
    assert main(words(pictures, cache, first, one_model, "defenses=['input_dropout(p=0.2)']", "limit=1")) == 0
    assert main(words(pictures, cache, first, one_model.replace("1", "0"), "defenses=[input_dropout]")) == 2
    assert "is trained, but training.epochs of" in capsys.readouterr().err


def test_a_network_without_batch_norm_is_left_out(
    pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    squeezenet = "{name: torchvision/squeezenet1_1, weights: random}"
    both = f"models=[{{name: {TINY}, weights: random}},{squeezenet}]"
    arguments = words(pictures, cache, tmp_path, both, "defenses=[none,batch_norm_recalibration]", "limit=4")
    assert main([*arguments, "training.epochs=0"]) == 0
    assert "'torchvision/squeezenet1_1' has no batch norm: it is left out of batch_norm" in capsys.readouterr().out
    assert len(Store(tmp_path).query("FROM models")) == 3
    assert main([*arguments, f"models=[{squeezenet}]", "defenses=[batch_norm_recalibration]"]) == 2
    assert "nothing else is asked for" in capsys.readouterr().err


def test_help_names_suites_keys_and_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for expected in ("suite=quick", "suite=cub", "suite=defenses", "needs:", "costs:", "gives:", "trials=",
                     "cluster.workers=null", "gaussian_filter", "oxford_pets", "translation"):  # fmt: skip
        assert expected in said


def test_plugins_register_their_own(
    pictures: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_darkness.py").write_text(
        "from cnnsens_bench.degradations import degradation\n"
        "@degradation('darkness', levels=(10, 90))\n"
        "def darkness(pixels, draw, level):\n"
        "    return pixels - level\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = words(pictures, cache, tmp_path / "out", "plugins=[my_darkness]", "degradations=[darkness]", "limit=4")
    assert main(arguments) == 0
    levels = Store(tmp_path / "out").query("SELECT DISTINCT level FROM predictions WHERE degradation = 'darkness'")
    assert sorted(levels["level"]) == [10, 90]


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a user other than root")
def test_a_read_only_output(pictures: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    assert main(words(pictures, cache, tmp_path / "out")) == 2
    assert "cannot be written" in capsys.readouterr().err
