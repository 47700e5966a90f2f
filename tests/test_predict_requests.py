"""Requests of `predict`: what its arguments mean, and one sentence for everything that can be wrong with them."""

import dataclasses
import pickle
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from PIL import Image
from timm.data import ImageNetInfo

from cnnsens_bench.engine.photo_prediction import LabelChangePredictor
from cnnsens_bench.predict import KEYS, main, parse
from cnnsens_bench.utils.errors import UserError
from tests.conftest import TINY, tiny_checkpoint
from tests.predicting import Capture, predicted, wrong


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sigmma=4"], "there is no photograph 'sigmma=4', and no key 'sigmma': did you mean 'sigma'"),
        (["sigma=4", "sigma=8"], "sigma= is given twice"),
        (["sigma="], "sigma= has no value"),
        (["sigma=4;8"], "'4;8' is not a number: write sigma=4 or 1,4,16"),
        (["sigma=-1"], "level -1 is out of range"),
        (["sigma=nan"], "not finite"),
        (["p=2"], "must be between 0 and 1"),
        (["shift=inf"], "beyond what a picture can show"),
        (["sigma=1e300"], "levels go to 1000 at most"),
        (["box=1,2,3"], "write x,y,width,height"),
        (["box=1,2,0,4"], "write x,y,width,height"),
        (["box=1,2,nan,4"], "write x,y,width,height"),
        (["batch_size=0"], "a whole number between 1 and 4096"),
        (["input_size=8"], "a whole number between 16 and 4096"),
        (["batch_size=" + "9" * 5000], "a whole number between 1 and 4096"),
        (["input_size=large"], "a whole number between 16 and 4096"),
        (["classes=/no/names"], "classes=/no/names cannot be read"),
        (["predictor=noisy"], "unknown predictor 'noisy': did you mean 'noisy_gradients'"),
        (["predictor=sampling(copies=1)"], "copies must be"),
        (["predictor=clamped_gradient", "shift=1"], "knows gaussian_rgb only"),
        (["plugins=no_such_module"], "plugin 'no_such_module' cannot be imported"),
        (["--heatmaps", "x"], "unknown option '--heatmaps': did you mean '--heatmap'"),
        (["--heatmap"], "needs the folder"),
        (["--heatmap", "/proc/here"], "the folder /proc/here cannot be made"),
        (["model=timm/test_resnett"], "unknown model"),
        (["model=timm/test_efficientnet"], r"is a checkpoint of 'timm/test_resnet', not of 'timm/test_efficientnet'"),
    ],
)
def test_wrong_requests(
    words: list[str], sentence: str, checkpoint: Path, photographs: list[str], capsys: Capture
) -> None:
    assert re.search(sentence, wrong(capsys, photographs[0], f"checkpoint={checkpoint}", *words))


class Evil:
    def __reduce__(self) -> tuple:
        return (pytest.fail, ("the pickle was run",))


@pytest.mark.parametrize("model", ["", f"model={TINY}"])
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path, whole: None, "there is no checkpoint"),
        (lambda path, whole: path.mkdir(), "there is no checkpoint"),
        (lambda path, whole: path.write_bytes(whole[: len(whole) // 2]), "cannot be read as weights"),
        (lambda path, whole: path.write_bytes(b""), "cannot be read as weights"),
        (lambda path, whole: path.write_bytes(pickle.dumps(Evil())), "would run code"),
        (lambda path, whole: torch.save({"format": 1, "model": Evil()}, path), "would run code"),
        (lambda path, whole: torch.save({"format": 1, "model": TINY}, path), "lacks a part"),
        (lambda path, whole: torch.save([1, 2], path), "holds no state dict|say whose weights"),
    ],
)
def test_bad_checkpoints(
    make, sentence: str, model: str, checkpoint: Path, photographs: list[str], tmp_path: Path, capsys: Capture
) -> None:
    bad = tmp_path / "bad.pt"
    make(bad, checkpoint.read_bytes())
    said = wrong(capsys, photographs[0], f"checkpoint={bad}", *filter(None, [model]))
    assert re.search(sentence, said)
    assert str(bad) in said


def test_weights_of_their_own(checkpoint: Path, photographs: list[str], tmp_path: Path, capsys: Capture) -> None:
    """A state dict and a safetensors file give what the checkpoint gives; the head says how many classes there are."""
    state = tiny_checkpoint(1).state_dict
    torch.save({"state_dict": state}, tmp_path / "state.pth")
    safetensors.torch.save_file(state, tmp_path / "state.safetensors")
    (tmp_path / "names").write_text("class_0\nclass_1\nclass_2\n\n")
    expected = predicted(capsys, photographs[0], f"checkpoint={checkpoint}")
    for name in ("state.pth", "state.safetensors"):
        words = [photographs[0], f"checkpoint={tmp_path / name}", f"model={TINY}", "input_size=48"]
        [record] = predicted(capsys, *words)
        assert record["class"] == f"class {record['class_index']}"
        assert predicted(capsys, *words, f"classes={tmp_path / 'names'}") == expected
    path = tmp_path / "state.safetensors"
    assert "say whose weights it has with model=" in wrong(capsys, photographs[0], f"checkpoint={path}")
    other = wrong(capsys, photographs[0], f"checkpoint={path}", "model=timm/test_efficientnet")
    assert "these weights are not of 'timm/test_efficientnet'" in other
    path.write_bytes(path.read_bytes()[:500])
    assert "cannot be read" in wrong(capsys, photographs[0], f"checkpoint={path}", f"model={TINY}")


def test_a_class_count_that_does_not_match(
    checkpoint: Path, photographs: list[str], tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "names").write_text("one\ntwo\n")
    said = wrong(capsys, photographs[0], f"checkpoint={checkpoint}", f"classes={tmp_path / 'names'}")
    assert "classes= names 2 classes, but the network has 3" in said
    (tmp_path / "names").write_text("one\n\nthree\n")
    assert "line 2 is empty" in wrong(capsys, photographs[0], f"classes={tmp_path / 'names'}")
    (tmp_path / "names").write_bytes(b"\xff\xfe\x00")
    assert "it is no UTF-8 text" in wrong(capsys, photographs[0], f"classes={tmp_path / 'names'}")
    odd = dataclasses.replace(tiny_checkpoint(1), classes=("one", "two"))
    odd.save(tmp_path / "odd.pt")
    assert "does not fit" in wrong(capsys, photographs[0], f"checkpoint={tmp_path / 'odd.pt'}")
    tiny_checkpoint(1, classes=1).save(tmp_path / "one.pt")
    assert "has one class only" in wrong(capsys, photographs[0], f"checkpoint={tmp_path / 'one.pt'}")


def test_input_sizes_that_a_network_does_not_take(photographs: list[str], tmp_path: Path, capsys: Capture) -> None:
    vit = tmp_path / "vit.pt"
    tiny_checkpoint(1, 3, 160, "timm/test_vit").save(vit)
    assert len(predicted(capsys, photographs[0], f"checkpoint={vit}")) == 1
    assert main([photographs[0], f"checkpoint={vit}", "input_size=96"]) == 0
    assert "note: the weights are those of another input size: 'pos_embed' is resized\n" in capsys.readouterr().err
    mixer = tmp_path / "mixer.pt"
    tiny_checkpoint(1, 3, 224, "timm/gmixer_12_224").save(mixer)
    said = wrong(capsys, photographs[0], f"checkpoint={mixer}", "input_size=96")
    assert f"{mixer} cannot be used at input_size=96: it was trained at 224 px" in said
    alexnet = torchvision.models.alexnet(num_classes=3).state_dict()
    torch.save(alexnet, tmp_path / "alexnet.pt")
    words = [photographs[0], f"checkpoint={tmp_path / 'alexnet.pt'}", "model=torchvision/alexnet", "input_size=20"]
    assert "model 'torchvision/alexnet' fails on inputs of 20 px" in wrong(capsys, *words)


def test_no_network_and_none_to_be_had(
    photographs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert "no network is named: give checkpoint=<file>" in wrong(capsys, photographs[0])
    assert "no photograph is named" in wrong(capsys, "checkpoint=mine.pt")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.create_model", refuse)
    said = wrong(capsys, photographs[0], f"model={TINY}")
    assert re.search(r"cannot be had from.*no route to host.*or give a file of weights with checkpoint=<path>", said)


def test_published_weights(photographs: list[str], capsys: Capture) -> None:
    """Published weights come from an installed package, with the names of ImageNet's thousand classes."""
    words = [photographs[0], "model=timm/tf_efficientnet_lite0", "input_size=64", "batch_size=1"]
    [record] = predicted(capsys, *words, "sigma=4")
    info = ImageNetInfo("imagenet-1k")
    assert record["class"] == info.index_to_description(record["class_index"])
    # They see what their library evaluates with, unless there is a box or the view is named.
    width, height = Image.open(photographs[0]).size
    [boxed] = predicted(capsys, *words, f"box=0,0,{width},{height}", "sigma=4")
    assert boxed["confidence"] != record["confidence"]
    assert "box= needs view=box" in wrong(capsys, *words, "box=0,0,9,9", "view=published")
    assert "view=crop: it must be box or published" in wrong(capsys, *words, "view=crop")


def test_words_that_are_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("sigma=4", "date=2024.jpg"):
        Path(name).touch()
    words = [
        "sigma=4",
        "date=2024.jpg",
        "s3://birds/a=b.jpg",
        "./p=3",
        "p=3",
        "--json",
        "--heatmap=maps",
        "--",
        "-x.jpg",
    ]
    request = parse([*words, "model=a", "--json"])
    assert request.photographs == [
        "sigma=4",
        "date=2024.jpg",
        "s3://birds/a=b.jpg",
        "./p=3",
        "-x.jpg",
        "model=a",
        "--json",
    ]
    assert (request.levels, request.heatmap, request.json) == ({"p": (3.0,)}, Path("maps"), True)
    with pytest.raises(UserError, match=r"there is no photograph 'dat=2024\.jpg', and no key 'dat'"):
        parse(["dat=2024.jpg"])


def test_stopped(checkpoint: Path, photographs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LabelChangePredictor, "__call__", stop)
    assert main([photographs[0], f"checkpoint={checkpoint}", "--json"]) == 130
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "stopped: nothing is kept\n")


def test_a_network_that_cannot_be_differentiated(
    checkpoint: Path, photographs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory\nand more")

    monkeypatch.setattr("cnnsens_bench.engine.score.differentiate", exhausted)
    said = wrong(capsys, photographs[0], f"checkpoint={checkpoint}")
    assert "do not fit into the memory with one image at a time: try a machine or device with more" in said


def test_help(capsys: Capture) -> None:
    assert main(["sigma=x", "--help"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 120
    for key in KEYS:
        assert f"{key}=" in said
