"""How networks meet a data set: what `auto` and `never` mean, and the line that says it."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from cnnsens_bench.config.compose import compose
from cnnsens_bench.datasets import Samples, make_samples
from cnnsens_bench.experiment.evaluation import (
    evaluation_sentence,
    mismatches,
    settle_split,
    settle_training,
    settle_view,
)
from cnnsens_bench.experiment.resolve import resolve_models
from cnnsens_bench.models import split_name
from cnnsens_bench.run import main
from cnnsens_bench.utils.errors import UserError
from tests.conftest import TINY
from tests.test_hostile import request

LITE, ALEXNET, LARGE = "timm/tf_efficientnet_lite0", "torchvision/alexnet", "timm/vit_tiny_patch16_224.augreg_in21k"
WNIDS = ["n01440764", "n01443537", "n01484850"]
OTHERS = ["auk", "emu", "owl"]


def samples_of(classes: list[str], boxes: bool = False, has_split: bool = False) -> Samples:
    """Return ten images of each class, every third of them for testing."""
    labels = [label for label in range(len(classes)) for _ in range(10)]
    ids = [f"{classes[label]}/{i}.jpg" for i, label in enumerate(labels)]
    splits = ["test" if i % 3 == 0 else "train" for i in range(len(ids))]
    rows = pd.DataFrame({"image_id": ids, "uri": ids, "label": labels, "split": splits})
    if boxes:
        rows = rows.assign(box_x=1, box_y=1, box_w=5, box_h=5)
    return make_samples("some", classes, rows, has_split=has_split)


def settled(samples: Samples, *words: str) -> tuple[dict[str, int], str, str]:
    """Return the epochs of each model, the view, and the line, of a run of `suite=custom` with further words."""
    config = compose(["suite=custom", *words])
    models, matches = settle_training(config, resolve_models(config), samples)
    config.view = settle_view(config, models, samples)
    samples = settle_split(samples, models)
    tested = len(samples.select("test").limited(config.limit))
    line = evaluation_sentence(config, samples, tested, models, matches)
    assert "\n" not in line
    return {model.name: model.recipe.epochs for model in models}, config.view, line


def test_a_published_network_is_taken_as_it_is() -> None:
    epochs, view, line = settled(samples_of(WNIDS), f"models=[{LITE}]")
    assert (epochs, view) == ({LITE: 0}, "published")
    assert line == (
        "view: shorter side to 256 px, bicubic, then the central 224 px (its library's own transform); "
        "tested: all 30 images, since nothing is trained; "
        f"classes: {LITE} keeps 3 of its 1000 outputs, matched by WordNet id"
    )


def test_a_network_of_other_classes_is_fine_tuned() -> None:
    epochs, view, line = settled(samples_of(OTHERS), f"models=[{LITE}]", "training.epochs=4")
    assert (epochs, view) == ({LITE: 4}, "box")
    assert line == (
        "view: the whole image, resized to a square of 224 px whatever its aspect; "
        "tested: the 10 test images, chosen from 30 by the hash of their paths; "
        f"classes: {LITE} is fine-tuned on the 3 classes, since outputs and classes do not match"
    )


def test_why_a_network_is_fine_tuned_is_said() -> None:
    samples = samples_of(["TENCH", "owl"])
    config = compose(["suite=custom", f"models=[{LITE},{{name: {TINY}, weights: random}}]", "training.epochs=4"])
    models, _ = settle_training(config, resolve_models(config), samples)
    [said] = mismatches(config, models, samples)
    assert said.startswith(f"{LITE} is not taken as it is: ")
    assert "did you mean 'tench, Tinca tinca'" in said
    config.fine_tune = "always"
    assert mismatches(config, models, samples) == []


def test_networks_of_both_kinds() -> None:
    words = [f"models=[{LITE},{ALEXNET},{{name: {TINY}, weights: random}}]", "training.epochs=4", "limit=4"]
    epochs, view, line = settled(samples_of(WNIDS, boxes=True, has_split=True), *words)
    assert (epochs, view) == ({LITE: 0, ALEXNET: 0, TINY: 4}, "box")
    assert line == (
        "view: each image's box, resized to a square of 160 or 224 px whatever its aspect; "
        "tested: 4 of the 10 test images (limit=4); "
        "classes: 2 networks keep 3 of their 1000 outputs, matched by WordNet id; "
        f"{TINY} is fine-tuned on the 3 classes"
    )


def test_the_line_of_several_transforms_and_heads() -> None:
    words = [f"models=[{LITE},{ALEXNET},{LARGE}]", "view=published", "limit=7"]
    assert settled(samples_of(WNIDS), *words)[2] == (
        "view: the own transform of each network's library, 224 px; "
        "tested: 7 of 30 images (limit=7), since nothing is trained; "
        "classes: 2 networks keep 3 of their 1000 outputs, matched by WordNet id; "
        f"{LARGE} keeps 3 of its 21843 outputs, matched by WordNet id"
    )


def test_boxes_are_seen_unless_the_view_says_otherwise() -> None:
    assert settled(samples_of(WNIDS, boxes=True), f"models=[{LITE}]")[1] == "box"
    assert settled(samples_of(WNIDS, boxes=True), f"models=[{LITE}]", "view=published")[1] == "published"
    assert settled(samples_of(WNIDS), f"models=[{LITE}]", "view=box")[1] == "box"


def test_always_trains_and_zero_epochs_do_not() -> None:
    epochs, _, line = settled(samples_of(WNIDS), f"models=[{LITE}]", "fine_tune=always", "training.epochs=2")
    assert epochs == {LITE: 2}
    assert line.endswith(f"classes: {LITE} is fine-tuned on the 3 classes")
    words = [f"models=[{{name: {LITE}, weights: random}}]", "fine_tune=always", "training.epochs=0"]
    epochs, _, line = settled(samples_of(OTHERS), *words)
    assert epochs == {LITE: 0}
    assert line.endswith(f"classes: {LITE} has random weights that nothing trains, so labels mean nothing")


@pytest.mark.parametrize(
    "words", [["fine_tune=never"], ["training.epochs=0"], ["fine_tune=always", "training.epochs=0"]]
)
def test_outputs_must_match_where_nothing_is_trained(words: list[str]) -> None:
    with pytest.raises(UserError, match="none of the 3 classes, such as 'auk', is among the 1000 outputs"):
        settled(samples_of(OTHERS), f"models=[{LITE}]", *words)


def test_numbers_are_told() -> None:
    numbers = samples_of([str(i) for i in range(1000)])
    line = settled(numbers, f"models=[{LITE}]")[2]
    assert line.endswith("keeps all 1000 outputs, matched by number (class 0 is output 0)")
    assert settled(samples_of(["0", "1", "2"]), f"models=[{LITE}]", "training.epochs=1")[0] == {LITE: 1}


def test_weights_of_ones_own(tmp_path: Path) -> None:
    """A file with as many outputs as there are classes is taken as it is, and its order is told."""
    source, name = split_name(TINY)
    for count in (3, 4):
        torch.save(source.build(name, count, 160).state_dict(), tmp_path / f"{count}.pt")
    words = [f"models=[{TINY}]", "training.epochs=2"]
    epochs, _, line = settled(samples_of(OTHERS), *words, f"weights={tmp_path / '3.pt'}")
    assert epochs == {TINY: 0}
    assert "keeps all 3 outputs, matched by their order, since they have no names (the first class" in line
    assert settled(samples_of(OTHERS), *words, f"weights={tmp_path / '4.pt'}")[0] == {TINY: 2}
    with pytest.raises(UserError, match="has 4 outputs without names, and the data set has 3 classes"):
        settled(samples_of(OTHERS), *words, f"weights={tmp_path / '4.pt'}", "fine_tune=never")
    with pytest.raises(UserError, match="there is no weights file"):
        settled(samples_of(OTHERS), *words, "weights=/nowhere.pt", "fine_tune=never")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["fine_tune=never", "weights=random"], "has weights=random, and fine_tune=never trains nothing: leave one of"),
        (
            ["fine_tune=never", "defenses=[none,input_dropout]"],
            r"'input_dropout\(p=0.1\)' is trained, but .* is not \(fine_tune=never trains nothing\): set fine_tune",
        ),
        (["defenses=[input_dropout]"], r"is trained, but .* is not \(fine_tune=auto takes its weights as they are"),
        (["fine_tune=never", "recipe=search"], r"recipe=search needs .* \(fine_tune=never trains nothing\)"),
        (["recipe=search"], r"recipe=search needs networks .* \(fine_tune=auto takes its weights as they are"),
    ],
)
def test_what_needs_a_training_that_does_not_happen(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        settled(samples_of(WNIDS), f"models=[{LITE}]", *words)


def test_no_epochs_are_refused_where_models_meet_defenses() -> None:
    words = [f"models=[{{name: {TINY}, weights: random}}]", "training.epochs=0", "defenses=[input_dropout]"]
    assert settled(samples_of(OTHERS), *words)[0] == {TINY: 0}


def test_what_needs_a_training_that_happens() -> None:
    words = [f"models=[{LITE}]", "defenses=[none,input_dropout]", "training.epochs=3"]
    assert settled(samples_of(OTHERS), *words)[0] == {LITE: 3}
    assert settled(samples_of(OTHERS), *words, "recipe=search")[0] == {LITE: 3}
    assert settled(samples_of(WNIDS), *words, "fine_tune=always")[0] == {LITE: 3}


@pytest.mark.parametrize("suite", ["quick", "paper", "cub", "defenses", "sensitivity"])
def test_other_suites_are_as_they_were(suite: str) -> None:
    config = compose([f"suite={suite}"])
    assert (config.view, config.fine_tune, config.frost, config.stored_quality) == ("box", "always", "generated", None)


@pytest.mark.parametrize(
    ("words", "suite"),
    [
        ([], "quick"), (["dataset=plumage"], "quick"), (["dataset=folder"], "custom"), (["dataset.root=/x"], "custom"),
        (["dataset=folder", "suite=quick"], "quick"), (["dataset.name=cub200"], "custom"), (["data_root=/x"], "quick"),
    ],
)  # fmt: skip
def test_a_data_set_without_a_suite_is_custom(words: list[str], suite: str) -> None:
    config = compose(words)
    assert config.suite == suite
    if suite == "custom":
        assert (config.input_size, config.view, config.fine_tune, config.models) == (None, "auto", "auto", [])


def test_a_run_says_it_before_it_computes(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The photographs are links, as they are on many people's disks, and the data set has a name of its own."""
    for folder in ("class_0", "class_1", "class_2"):
        (tmp_path / "mine" / "val").mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / "val" / folder).symlink_to(pictures / folder)
    (tmp_path / "mine" / "notes.txt").touch()
    source, name = split_name(TINY)
    torch.save(source.build(name, 3, 160).state_dict(), tmp_path / "three.pt")
    words = [f"dataset.root={tmp_path / 'mine'}", "dataset.options.name=birds", f"models=[{TINY}]"]
    assert main(request(pictures, tmp_path, *words, f"weights={tmp_path / 'three.pt'}", "input_size=null")) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("suite custom: 2 test images of birds, 1 models")
    assert said[1:4] == [
        "left out: 1 file that is not read as an image (.txt)",
        "view: shorter side to 168 px, bilinear, then the central 160 px (its library's own transform); "
        "tested: 2 of 42 images (limit=2), since nothing is trained; "
        f"classes: {TINY} keeps all 3 outputs, matched by their order, since they have no names (the first class is "
        "output 0)",
        f"load {TINY}",
    ]
