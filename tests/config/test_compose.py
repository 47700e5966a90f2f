"""The command line: what it takes, and one sentence for what it does not."""

import dataclasses

import pytest

from cnnsens_bench.config.compose import compose, suites
from cnnsens_bench.config.schema import Config
from cnnsens_bench.experiment.resolve import read_conditions, resolve_models
from cnnsens_bench.utils.errors import UserError


def check(words: list[str]) -> Config:
    config = compose(words)
    resolve_models(config)
    read_conditions(config.degradations, config.trials)
    return config


@pytest.mark.parametrize("suite", suites())
def test_every_suite_composes_and_says_what_it_needs_costs_and_gives(suite: str) -> None:
    config = check([f"suite={suite}", *(["models=[timm/resnet18]"] if suite == "custom" else [])])
    assert config.suite == suite
    assert str(config.output_folder) == f"runs/{suite}"
    for word in ("needs:", "costs:", "gives:"):
        assert word in suites()[suite]


def test_any_value_is_overridden() -> None:
    config = check(
        ["models=[timm/resnet18,{name: torchvision/alexnet, weights: random, training: {epochs: 3}}]", "trials=3",
         "limit=200", "output=/tmp/a, b=[c]/it's", "dataset=cub200", "dataset.root=/data/x=1", "training.lr_body=0.1",
         "defenses=[none,'gaussian_filter(size=5, sigma=1.0)']",
         "degradations=[pepper,{name: gaussian_rgb, levels: [1, 2.5], trials: 2}]"]
    )  # fmt: skip
    assert (config.trials, config.limit, config.dataset.name) == (3, 200, "cub200")
    assert (config.output, config.dataset.root) == ("/tmp/a, b=[c]/it's", "/data/x=1")
    assert config.defenses[1] == "gaussian_filter(size=5, sigma=1.0)"
    first, second = resolve_models(config)
    assert (first.weights, first.recipe.lr_body) == ("auto", 0.1)
    assert (second.weights, second.recipe.epochs, second.recipe.lr_body) == ("random", 3, 0.1)
    pepper, gaussian = read_conditions(config.degradations, config.trials)
    assert (pepper.levels, pepper.trials) == (None, 3)
    assert (gaussian.levels, gaussian.trials) == ((1, 2.5), 2)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("suite=quik", "unknown suite 'quik': did you mean 'quick'"),
        ("modells=[a]", "unknown config key 'modells': did you mean 'models'"),
        ("training.epoch=3", "unknown config key 'training.epoch': did you mean 'training.epochs'"),
        ("cluster.worker=3", "unknown config key 'cluster.worker': did you mean 'cluster.workers'"),
        ("trials=abc", "'trials'.*'abc'"),
        ("trials=0", "trials is 0: it must be at least 1"),
        ("limit=-4", "limit is -4"),
        ("batch_size=0", "batch_size is 0"),
        ("input_size=3", "input_size is 3"),
        ("seed=-1", "seed is -1"),
        ("precision=float8", "precision is 'float8': it must be one of float32"),
        ("cluster.engine=dask", "cluster.engine is 'dask'"),
        ("training.lr_body=-1", "training.lr_body is -1.0"),
        ("training.batch_size=1", "training.batch_size is 1"),
        ("models=[timm/resnet18", "cannot be read"),
        ("degradations=[gaussian_rgb(16)]", "put texts with brackets or spaces in quotes"),
        ("dataset.options.fold=bïrds one", "put the value in quotes, as in \"dataset.options.fold='bïrds one'\""),
        ("models=[]", "models is empty"),
        ("models=[3]", "models: 3 is neither"),
        ("models=[{name: a, weigths: random}]", "unknown key 'weigths' of 'a': did you mean 'weights'"),
        ("models=[{name: a, training: {epoch: 1}}]", "unknown key 'training.epoch' of 'a'"),
        ("models=[{name: a, training: {epochs: -1}}]", "training.epochs is -1"),
        ("models=[{name: a, training: {epochs: x}}]", "training of 'a'"),
        ("models=[{name: a, input_size: big}]", "input_size of 'a'"),
        ("models=[a/b,a/b]", "names 'a/b' twice"),
        ("models=[{name: a/b, mean: [123, 116, 103]}]", "mean of 'a/b' is .*: divide it by 255"),
        ("degradations=[{name: pepper, lvels: [1]}]", "unknown key 'lvels' of 'pepper': did you mean 'levels'"),
        ("degradations=[{name: pepper, levels: 3}]", "levels of 'pepper' must be a list"),
        ("degradations=[{name: pepper, trials: 0}]", "trials of 'pepper' is 0"),
        ("defenses=[]", "defenses is"),
        ("hello", "'hello' is not an override"),
        ("+x=3", "is not an override"),
        ("~trials", "is not an override"),
        ("--verbose", "is not an override"),
    ],
)
def test_one_sentence_for_what_is_wrong(word: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        check([word])
    assert "\n" not in str(caught.value)


def test_scores_are_computed_in_float32() -> None:
    with pytest.raises(UserError, match="precision with sensitivity=on is 'bfloat16': it must be float32"):
        check(["sensitivity=on", "precision=bfloat16"])


def test_a_run_is_known_by_what_shapes_it() -> None:
    base = check(["suite=quick"]).run_id
    for same in ("output=/tmp/x", "cluster.workers=7", "cache=/tmp/c", "dataset.root=/tmp/r"):
        assert check(["suite=quick", same]).run_id == base
    for other in (
        "seed=1",
        "trials=9",
        "models=[timm/resnet18]",
        "dataset=cub200",
        "training.epochs=1",
        "batch_size=8",
    ):
        assert check(["suite=quick", other]).run_id != base


def test_defaults_are_the_papers() -> None:
    assert Config().trials == 10
    assert not Config().quantize
    assert {f.name for f in dataclasses.fields(Config)} >= {"data_root", "dataset", "output", "plugins"}


def test_details_are_off_and_change_no_run() -> None:
    plain, detailed = compose(["suite=quick"]), compose(["suite=quick", "details=on"])
    assert (plain.details, detailed.details) == (False, True)
    assert plain.run_id == detailed.run_id
