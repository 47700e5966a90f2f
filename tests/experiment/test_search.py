"""A search that is asked for another number of trials takes those that have ended."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import ray

from cnnsens_bench import tune
from cnnsens_bench.config.compose import compose
from cnnsens_bench.datasets import Samples
from cnnsens_bench.experiment import search
from cnnsens_bench.experiment.resolve import resolve_models, resolve_settings
from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.training.trial import RecipeSearch, Trial, TrialLog
from cnnsens_bench.utils.errors import UserError
from tests.conftest import TINY


@pytest.fixture(scope="module", autouse=True)
def _no_ray_left() -> object:
    yield
    ray.shutdown()


def arguments(pictures: Path, folder: Path, *more: str) -> list[str]:
    return [
        "dataset=folder", f"dataset.root={pictures}", f"cache={folder / 'cache'}", f"output={folder / 'out'}",
        f"model={TINY}", "input_size=40", "weights=random", "training.epochs=1", "training.batch_size=8",
        "batch_size=8", "search.epochs=[1,2]", "tracking=off", *more,
    ]  # fmt: skip


def ended(folder: Path) -> list[Trial]:
    (searched,) = (folder / "out" / "search").iterdir()
    return TrialLog(searched).trials()


@pytest.mark.slow
@pytest.mark.parametrize("optuna", [True, False])
def test_more_trials_go_on_from_those_that_have_ended(
    optuna: bool,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not optuna:  # the search is then random
        monkeypatch.setattr("cnnsens_bench.runtime.ray_tune.has_optuna", lambda: False)
    assert tune.main(arguments(pictures, tmp_path, "search.trials=2")) == 0
    first = ended(tmp_path)
    assert [trial.number for trial in first] == [1, 2]
    capsys.readouterr()
    assert tune.main(arguments(pictures, tmp_path, "search.trials=4")) == 0
    said = capsys.readouterr().out
    assert f"resuming the search of {TINY}: 2 of 4 trials have ended" in said
    assert said.count("  trial ") == 2
    second = ended(tmp_path)
    assert second[:2] == first
    assert [trial.number for trial in second] == [1, 2, 3, 4]
    assert len({str(trial.recipe) for trial in second}) == 4
    # Fewer trials need no further one.
    assert tune.main(arguments(pictures, tmp_path, "search.trials=3")) == 0
    said = capsys.readouterr().out
    assert "  trial " not in said
    assert " of 4, objective " in said
    assert ended(tmp_path) == second


@pytest.mark.slow
def test_an_interrupted_search_goes_on_with_more_trials(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(trial: Trial, _: object) -> str:
        if trial.number == 2:
            raise KeyboardInterrupt
        return f"  trial {trial.number}"

    with monkeypatch.context() as patched:
        patched.setattr(search, "line", stop)
        assert tune.main(arguments(pictures, tmp_path, "search.trials=3", "search.concurrent=1")) == 130
    ray.shutdown()  # as the end of the process would
    first = ended(tmp_path)
    assert [trial.number for trial in first] == [1, 2]
    capsys.readouterr()
    assert tune.main(arguments(pictures, tmp_path, "search.trials=4", "search.concurrent=1", "resume=true")) == 0
    assert capsys.readouterr().out.count("  trial ") == 2
    assert ended(tmp_path)[:2] == first
    assert [trial.number for trial in ended(tmp_path)] == [1, 2, 3, 4]


def test_the_folder_of_a_search_says_nothing_of_the_number_of_trials(samples: Samples, tmp_path: Path) -> None:
    def searched(*more: str) -> RecipeSearch:
        config = compose([f"output={tmp_path}", f"models=[{TINY}]", "weights=random", *more])
        return search.plan_search(resolve_settings(config), resolve_models(config)[0], samples, ())

    one = searched("search.trials=3")
    assert one.folder == searched("search.trials=4").folder
    assert one.folder != searched("search.trials=3", "search.grace=0.5").folder
    # Version 0.1 hashed the number of trials, too: its folder is taken where it is there.
    data = samples.with_table(one.fitted).fingerprint()
    recipe = dataclasses.asdict(one.recipe)
    hashed = [TINY, "random", one.input_size, recipe, one.search.shaping(), data, 0, False, "float32"]
    digest = hashlib.sha256(json.dumps(hashed, sort_keys=True, default=str).encode()).hexdigest()[:12]
    earlier = tmp_path / "search" / f"timm-test_resnet-{digest}"
    earlier.mkdir(parents=True)
    assert searched("search.trials=3").folder == earlier
    assert searched("search.trials=4").folder == one.folder


def test_a_search_without_a_trial_that_came_to_its_end_begins_anew(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    TrialLog(folder).add(Trial(1, Recipe(), "failed", {}, "no room"))
    with pytest.raises(UserError, match="no trial of the search came to its end: no room"):
        search.best_trial(TrialLog(folder).trials(), folder)
    assert not folder.exists()
