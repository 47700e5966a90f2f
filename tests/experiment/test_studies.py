"""Suites of several studies: which keys a study may have of its own, and a run of several into one database."""

import dataclasses
import json
import shlex
from pathlib import Path

import pytest

from cnnsens_bench.config.compose import compose
from cnnsens_bench.experiment.resolve import resolve_studies
from cnnsens_bench.run import main
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from leaderboard.provenance import command
from tests.conftest import TINY

SMALL = f"models=[{{name: {TINY}, weights: random}},{{name: timm/test_efficientnet, weights: random}}]"


def test_each_study_differs_from_the_suite_in_its_own_keys() -> None:
    config = compose(["suite=paper", "limit=7", "trials=3", "seed=5"])
    studies = {study.study: study for study in resolve_studies(config)}
    assert list(studies) == ["architectures", "depth", "flowers", "pets", "defenses", "sensitivity"]
    assert {name: study.dataset.name for name, study in studies.items()} == {
        **dict.fromkeys(("architectures", "depth", "defenses", "sensitivity"), "cub200"),
        "flowers": "flowers102",
        "pets": "oxford_pets",
    }
    assert {study.limit for study in studies.values()} == {7}
    assert {name for name, study in studies.items() if study.trials != 3} == {"sensitivity"}
    assert [len(study.models) for study in studies.values()] == [3, 4, 1, 1, 1, 1]
    assert [study.sensitivity.enabled for study in studies.values()] == [False] * 5 + [True]
    assert len({study.run_id for study in studies.values()}) == 6
    assert {str(study.output_folder) for study in studies.values()} == {"runs/paper"}


def test_models_of_the_command_line_are_those_of_every_study() -> None:
    studies = resolve_studies(compose(["suite=paper", "models=[timm/a,timm/b]"]))
    assert [study.models for study in studies] == [["timm/a", "timm/b"]] * 2 + [["timm/a"]] * 4


def test_a_study_takes_keys_of_its_own_from_the_command_line() -> None:
    words = ["suite=paper", "studies.flowers.dataset=plumage", "studies.pets.trials=2", "only=[pets,flowers]"]
    flowers, pets = resolve_studies(compose(words))
    assert (flowers.study, flowers.dataset.name, flowers.trials) == ("flowers", "plumage", 10)
    assert (pets.study, pets.dataset.name, pets.trials) == ("pets", "oxford_pets", 2)


def test_a_suite_without_studies_is_one() -> None:
    config = compose(["suite=quick"])
    assert resolve_studies(config) == [config]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["only=[pets]"], "only names studies, and suite quick has none"),
        (["suite=paper", "only=[pet]"], "only: unknown study 'pet': did you mean 'pets'"),
        (["suite=paper", "studies.pets.trails=2"], "studies.pets: unknown key 'trails': did you mean 'trials'"),
        (["suite=paper", "studies.pets.trials=x"], "studies.pets: config key 'trials'"),
        (["suite=paper", "studies.pets.trials=0"], "trials is 0"),
        (["suite=paper", "studies.pets=3"], "studies.pets is 3: it must be a mapping"),
        (["suite=paper", "studies.pets=3", "models=[timm/a]"], "studies.pets is 3: it must be a mapping"),
        (["suite=paper", "studies.pets.first=0"], "studies.pets.first is 0"),
        (["suite=paper", "dataset=plumage"], "'dataset=plumage': suite paper has studies of several data sets"),
        (["suite=paper", "dataset.root=/x"], "'dataset.root=/x': suite paper has studies of several data sets"),
    ],
)
def test_one_sentence_for_what_is_wrong(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        resolve_studies(compose(words))
    assert "\n" not in str(caught.value)


def test_a_data_set_that_is_not_there_is_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["suite=paper", SMALL, f"data_root={tmp_path}", f"output={tmp_path / 'out'}", "only=[pets]"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "leave the study 'pets' out with only=[…], or give it another with studies.pets.dataset=<name>" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["only=[pets]", "trials=2", "limit=9"],
        ["only=[flowers]", "studies.flowers.dataset=plumage", "models=[timm/a]", "seed=3"],
        ["only=[sensitivity]", "studies.sensitivity.trials=4"],
    ],
)
def test_the_command_that_a_page_tells_makes_the_same_run(words: list[str]) -> None:
    [study] = resolve_studies(compose(["suite=paper", *words]))
    line = command("paper", json.loads(json.dumps(dataclasses.asdict(study))))
    assert line is not None
    [again] = resolve_studies(compose(shlex.split(line)[3:]))
    assert again.run_id == study.run_id


@pytest.mark.slow
def test_studies_run_into_one_database_and_a_second_call_only_draws(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = "{name: folder, root: '" + str(pictures) + "'}"
    few = "degradations=[{name: gaussian_rgb, levels: [4, 64]},flip_lr,{name: pepper, levels: [0.01, 0.3]}]"
    words = [
        "suite=paper", SMALL, f"output={tmp_path / 'out'}", f"cache={tmp_path / 'cache'}", "input_size=40", "limit=6",
        "training.epochs=1", "training.batch_size=8", "batch_size=8", "tracking=off", "trials=1",
        "only=[architectures,defenses]", "figures=[table1,fig2]", f"studies.architectures.{few}",
        "studies.defenses.defenses=[none,'gaussian_filter(size=3, sigma=0.5)']",
        *(f"studies.{name}.dataset={folder}" for name in ("architectures", "defenses")),
    ]  # fmt: skip
    assert main(words) == 0
    store = Store(tmp_path / "out")
    runs = store.query("SELECT run_id, suite, config->>'study' AS study, status FROM runs ORDER BY study")
    assert runs["study"].tolist() == ["architectures", "defenses"]
    assert set(runs["suite"]) == {"paper"}
    assert set(runs["status"]) == {"done"}
    drawn = sorted(path.name for path in (tmp_path / "out" / "figures").iterdir())
    assert drawn == ["fig2.pdf", "fig2.png", "table1.csv", "table1.pdf", "table1.png"]
    before = store.query("SELECT * FROM predictions ORDER BY ALL")
    # What one study has computed another does not compute again.
    key = ["dataset", "image_id", "model", "defense", "degradation", "level", "trial"]
    assert not before.duplicated(key).any()
    (tmp_path / "out" / "figures" / "fig2.png").unlink()
    capsys.readouterr()
    assert main(words) == 0
    assert store.query("SELECT * FROM predictions ORDER BY ALL").equals(before)
    assert (tmp_path / "out" / "figures" / "fig2.png").exists()
    said = capsys.readouterr().out
    assert said.count("evaluations are in the store") == 2
    assert said.count("folder: accuracy and label change") == 1  # the tables of a data set come once
