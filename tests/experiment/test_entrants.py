"""Pairs of models and defenses: which checkpoints they need, which pairs are left out, which images recalibrate."""

import dataclasses
from pathlib import Path

import pytest

from cnnsens_bench.config.compose import compose
from cnnsens_bench.datasets import Samples
from cnnsens_bench.experiment.entrants import (
    calibration_images,
    has_batch_norm,
    pair_entrants,
    same_training,
)
from cnnsens_bench.experiment.resolve import ModelConfig, resolve_models
from cnnsens_bench.utils.errors import UserError
from tests.conftest import TINY

PLAIN = "torchvision/squeezenet1_1"
"""A model without batch norm."""
ALL = ["none", "gaussian_filter", "input_dropout(p=0.1)", "input_dropout + median_filter", "noise_training(sigma=4)"]
RECALIBRATION = "batch_norm_recalibration(images=64, prior=16)"


def models(*names: str, **recipe: object) -> list[ModelConfig]:
    found = resolve_models(compose([f"models=[{','.join(names)}]"]))
    return [dataclasses.replace(m, recipe=dataclasses.replace(m.recipe, **recipe)) for m in found]


def test_a_checkpoint_for_each_model_and_recipe() -> None:
    pairing = pair_entrants(models(TINY, PLAIN), [*ALL, "gaussian_filter(size=3)"])
    assert [(e.model, e.defense) for e in pairing.entrants[:5]] == [
        (TINY, "none"),
        (TINY, "gaussian_filter(size=3, sigma=0.5)"),
        (TINY, "input_dropout(p=0.1)"),
        (TINY, "input_dropout(p=0.1) + median_filter(size=3)"),
        (TINY, "noise_training(sigma=4.0)"),
    ]
    dropout, noise = f"{TINY} (input_dropout=0.1)", f"{TINY} (input_noise=4.0)"
    assert [e.checkpoint for e in pairing.entrants[:5]] == [TINY, TINY, dropout, dropout, noise]
    assert len(pairing.entrants) == 10
    assert len(pairing.trainings) == 6
    assert pairing.trainings[TINY].recipe == models(TINY)[0].recipe
    assert pairing.trainings[dropout].recipe == dataclasses.replace(models(TINY)[0].recipe, input_dropout=0.1)
    assert pairing.trainings[noise].recipe.input_noise == 4
    assert not pairing.left_out


def test_a_recipe_that_is_so_already_is_not_trained_twice() -> None:
    pairing = pair_entrants(models(TINY, input_dropout=0.1), ["none", "input_dropout", "input_dropout(p=0.2)"])
    assert [e.checkpoint for e in pairing.entrants] == [TINY, TINY, f"{TINY} (input_dropout=0.2)"]
    # And said, for `none` is then not what its name says.
    assert pairing.left_out == (
        f"note: '{TINY}' is trained with input_dropout=0.1 under every defense, 'none' too: its recipe says so",
    )


def test_networks_without_batch_norm_are_left_out_of_its_recalibration() -> None:
    pairing = pair_entrants(models(PLAIN, TINY), ["none", "batch_norm_recalibration"])
    assert [(e.model, e.defense) for e in pairing.entrants] == [
        (PLAIN, "none"),
        (TINY, "none"),
        (TINY, RECALIBRATION),
    ]
    assert pairing.left_out == (f"'{PLAIN}' has no batch norm: it is left out of {RECALIBRATION}",)
    with pytest.raises(UserError, match=r"has no batch norm: .* nothing else is asked for: add 'none'"):
        pair_entrants(models(PLAIN), ["batch_norm_recalibration"])


def test_what_is_not_trained_cannot_defend() -> None:
    pair_entrants(models(TINY, epochs=0), ["none", "gaussian_filter"])
    with pytest.raises(UserError, match=r"'input_dropout\(p=0.1\)' is trained, but training.epochs of .* is 0"):
        pair_entrants(models(TINY, epochs=0), ["none", "input_dropout"])


def test_a_plugin_that_changes_no_known_key() -> None:
    from cnnsens_bench.defenses import TrainingChange, defense, defenses

    defense("test_moat")(lambda: TrainingChange({"input_drop": 1}))
    try:
        with pytest.raises(
            UserError, match=r"'test_moat' changes training.input_drop, .* did you mean 'input_dropout'"
        ):
            pair_entrants(models(TINY), ["test_moat"])
    finally:
        del defenses.data["test_moat"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "expected"), [(TINY, True), (PLAIN, False), ("timm/test_vit", False)])
def test_batch_norm(name: str, expected: bool) -> None:
    assert has_batch_norm(models(name)[0]) == expected


def test_calibration_images_are_of_the_whole_split_and_nested(samples: Samples, tmp_path: Path) -> None:
    few = calibration_images(samples, pair_entrants(models(TINY), ["batch_norm_recalibration(images=3)"]))
    more = calibration_images(
        samples,
        pair_entrants(models(TINY), ["batch_norm_recalibration(images=3)", "batch_norm_recalibration(images=7)"]),
    )
    every = calibration_images(samples, pair_entrants(models(TINY), ["batch_norm_recalibration(images=9999)"]))
    test = samples.split("test")
    assert (few, len(more), len(every)) == (more[:3], 7, len(test))
    assert more == every[:7]
    assert {image.image_id for image in every} == set(test["image_id"])
    assert not calibration_images(samples, pair_entrants(models(TINY), ["none"]))
    shuffled = samples.with_table(samples.table.sample(frac=1, random_state=0))
    pairing = pair_entrants(models(TINY), ["batch_norm_recalibration(images=7)"])
    assert calibration_images(shuffled, pairing) == more
    # An image that cannot be read is passed over.
    table = samples.table.copy()
    table.loc[table["image_id"] == few[1].image_id, "uri"] = str(tmp_path / "gone.png")
    passed = calibration_images(samples.with_table(table), pairing)
    assert [image.image_id for image in passed[:2]] == [few[0].image_id, few[2].image_id]
    assert len(passed) == 7


def test_which_defenses_share_weights() -> None:
    assert same_training("none", "gaussian_filter(size=3, sigma=0.5) + batch_norm_recalibration")
    assert same_training("input_dropout(p=0.1)", "median_filter + input_dropout(p=0.1)")
    assert not same_training("input_dropout(p=0.1)", "input_dropout(p=0.2)")
    assert not same_training("a_plugin_that_is_gone(x=1)", "none")
    assert same_training("a_plugin_that_is_gone(x=1)", "a_plugin_that_is_gone(x=1)")
