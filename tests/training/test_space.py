"""The held-out split, the objective, the searched ranges and files of recipes."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cnnsens_bench.config.compose import compose
from cnnsens_bench.datasets import Samples
from cnnsens_bench.engine.sweep import Condition
from cnnsens_bench.engine.validate import Validation
from cnnsens_bench.experiment.resolve import resolve_models
from cnnsens_bench.runtime.resources import Machine, lay_out_trials
from cnnsens_bench.training.holdout import hold_out
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.recipes import read_recipes, write_recipes
from cnnsens_bench.training.space import SearchConfig, axes, degraded, recipe_of
from cnnsens_bench.training.trial import Trial, TrialLog
from cnnsens_bench.utils.errors import UserError
from tests.conftest import TINY, tiny_checkpoint


def table(counts: list[int]) -> pd.DataFrame:
    rows = [(f"c{label}/{i}", label) for label, count in enumerate(counts) for i in range(count)]
    return pd.DataFrame(rows, columns=["image_id", "label"])


def test_the_held_out_split_is_stratified_disjoint_and_stable(samples: Samples) -> None:
    train = table([50, 10, 5, 2, 1])
    fitted, held = hold_out(train, 0.2)
    assert held["label"].value_counts().to_dict() == {0: 10, 1: 2, 2: 1, 3: 1}  # a class of one is fitted on
    assert set(fitted["image_id"]) | set(held["image_id"]) == set(train["image_id"])
    assert not set(fitted["image_id"]) & set(held["image_id"])
    # Neither the order of rows nor the other classes matter; a larger share holds a smaller one.
    shuffled = train.sample(frac=1, random_state=3)
    assert set(hold_out(shuffled, 0.2)[1]["image_id"]) == set(held["image_id"])
    alone = hold_out(train[train["label"] == 0], 0.2)[1]
    assert set(alone["image_id"]) == {i for i in held["image_id"] if i.startswith("c0/")}
    assert set(held["image_id"]) < set(hold_out(train, 0.5)[1]["image_id"])
    assert len(hold_out(train, 0.99)[0]["label"].unique()) == 5
    assert set(hold_out(samples.split("train", "val"), 0.3)[1]["split"]) <= {"train", "val"}


def test_nothing_to_hold_out_is_one_sentence() -> None:
    with pytest.raises(UserError, match="no class has two training images"):
        hold_out(table([1, 1]), 0.2)


def test_the_objective_is_the_plain_mix() -> None:
    scores = {"none": {0.0: 0.9}, "pepper": {0.08: 0.5, 0.16: 0.3}, "gaussian_rgb": {16.0: 0.8}}
    assert degraded(scores) == pytest.approx((0.4 + 0.8) / 2)
    assert SearchConfig(undegraded_weight=0.25).objective(scores) == pytest.approx(0.25 * 0.9 + 0.75 * 0.6)
    assert SearchConfig(undegraded_weight=1.0).objective({"none": {0.0: 0.7}}) == pytest.approx(0.7)


def test_validation_equals_a_plain_computation(samples: Samples) -> None:
    import torch

    from cnnsens_bench import images
    from cnnsens_bench.degradations import Streams, parse_degradation

    held = hold_out(samples.split("train"), 0.4)[1]
    classifier = tiny_checkpoint().classifier().train()
    validation = Validation(TINY, samples.name, held, (Condition("pepper", (0.05, 0.3), 1),), seed=5, batch_size=4)
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    scores = validation(classifier)
    assert classifier.training
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    assert all(torch.equal(before[key], value) for key, value in classifier.state_dict().items())
    assert validation(classifier) == scores
    views = [images.render(images.decode(r.uri, (r.box_x, r.box_y, r.box_w, r.box_h)), 48) for r in held.itertuples()]
    pixels = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float()
    pepper = parse_degradation("pepper")
    draw = pepper.draw(Streams(5, samples.name, held["image_id"].tolist(), 0, "cpu"), 48)
    labels = torch.from_numpy(held["label"].to_numpy())
    with torch.inference_mode():
        for name, level, batch in [
            ("none", 0.0, pixels), *(("pepper", p, pepper.apply(pixels, draw, p)) for p in (0.05, 0.3))
        ]:  # fmt: skip
            logits = classifier.eval()(batch.clamp(0, 255).contiguous(memory_format=torch.channels_last))
            assert scores[name][level] == pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_the_given_recipe_lies_in_every_range() -> None:
    for recipe in (Recipe(), Recipe(weight_decay=0.0, epochs=1), Recipe(lr_body=0.0), Recipe(weight_decay=3.0)):
        found = axes(SearchConfig(epochs=[4, 6]), recipe)
        assert all(axis.low <= getattr(recipe, key) <= axis.high for key, axis in found.items())
        assert all(axis.low > 0 for axis in found.values() if axis.log)
        assert ("lr_body" in found) == (recipe.lr_body > 0)
        assert recipe_of({key: getattr(recipe, key) for key in found}, recipe) == recipe
    tried = recipe_of({"lr_head": 0.00123456, "epochs": 7.0}, Recipe())
    assert (tried.lr_head, tried.epochs) == (0.001235, 7)


def test_recipes_are_written_and_read(tmp_path: Path) -> None:
    file = tmp_path / "a b" / "recipes.yaml"
    recipes = {"timm/resnet18": Recipe(epochs=3, lr_head=1.235e-5), "torchvision/alexnet": Recipe(input_dropout=0.1)}
    write_recipes(file, recipes, {"timm/resnet18": "objective 0.5"})
    assert read_recipes(file) == recipes
    config = compose([f"recipe={file}", "models=[timm/resnet18,timm/resnet34]", "training.epochs=9"])
    assert [model.recipe.epochs for model in resolve_models(config)] == [3, 9]
    # What shapes a run is the recipe, not the path of its file.
    moved = tmp_path / "other.yaml"
    moved.write_bytes(file.read_bytes())
    same = compose([f"recipe={moved}", "models=[timm/resnet18,timm/resnet34]", "training.epochs=9"])
    assert same.run_id == config.run_id
    write_recipes(moved, {"timm/resnet18": dataclasses.replace(recipes["timm/resnet18"], epochs=4)}, {})
    assert same.run_id != config.run_id


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no recipes"),
        ("- 1", "holds no recipes"),
        ("recipes: {}", "holds no recipes"),
        ("recipes: {timm/resnet18: 3}", "holds no recipes"),
        ("recipes: {timm/resnet18: {epoch: 3}}", "unknown key 'epoch' of 'timm/resnet18': did you mean 'epochs'"),
        ("recipes: {timm/resnet18: {epochs: x}}", "recipe of 'timm/resnet18'"),
        ("recipes: {timm/resnet18: {epochs: -1}}", "training.epochs is -1"),
        ("recipes: {timm/resnet34: {epochs: 3}}", "has recipes of timm/resnet34, of none of the models"),
        ("a: [", "cannot be read"),
        ("\x00\x01", "cannot be read"),
    ],
)
def test_bad_files_of_recipes(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "recipes.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        resolve_models(compose([f"recipe={file}", "models=[timm/resnet18]"]))
    assert "\n" not in str(caught.value)


def test_the_search_shapes_a_run_only_where_it_is_asked_for() -> None:
    base = compose([]).run_id
    assert compose(["search.trials=3", "tracking=off", "resume=true"]).run_id == base
    searched = compose(["recipe=search"]).run_id
    assert searched != base
    assert compose(["recipe=search", "search.cpus_per_trial=1"]).run_id == searched
    assert compose(["recipe=search", "search.trials=3"]).run_id != searched


@pytest.mark.parametrize(
    ("nodes", "keys", "expected"),
    [
        # cores of each machine → (trials at once, threads of each)
        ((2,), {}, (1, 2)),
        ((16,), {}, (2, 8)),
        ((2, 2), {}, (2, 2)),
        ((4, 4, 4, 4), {}, (4, 4)),
        ((8, 2), {}, (5, 2)),
        ((2, 2), {"cpus_per_trial": 1}, (4, 1)),
        ((4,), {"concurrent": 2}, (2, 2)),
    ],
)
def test_a_trial_fits_into_a_machine(nodes: tuple[int, ...], keys: dict, expected: tuple[int, int]) -> None:
    found = lay_out_trials(SearchConfig(**keys), Recipe().batch_size, [Machine(cores) for cores in nodes])
    assert (found.workers, found.threads) == expected


def test_a_trial_that_fits_no_machine_is_refused() -> None:
    with pytest.raises(UserError, match="a trial would need 4 cores, the cluster has 8, its largest machine 2"):
        lay_out_trials(SearchConfig(cpus_per_trial=4), Recipe().batch_size, [Machine(2)] * 4)


@pytest.mark.parametrize("key", ["input_dropout", "weight_decay"])
def test_a_range_of_one_value_is_refused(key: str) -> None:
    search = SearchConfig(**{key: [0.2, 0.2]})
    with pytest.raises(UserError, match=f"search.{key} is no range: for one value set training.{key}=0.2"):
        axes(search, Recipe())
    axes(search, dataclasses.replace(Recipe(), **{key: 0.2}))


def test_a_line_that_a_kill_has_cut_swallows_no_other(tmp_path: Path) -> None:
    record = TrialLog(tmp_path)
    for number in (1, 2):
        record.add(Trial(number, Recipe(), "done", {"objective": 0.5}))
    record.path.write_bytes(record.path.read_bytes()[:-20])
    record.add(Trial(3, Recipe(), "done", {"objective": 0.6}))
    assert [trial.number for trial in record.trials()] == [1, 3]
