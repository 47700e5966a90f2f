"""mCE relative to published error rates, against a computation with pandas, in the page and in SQL."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cnnsens_bench import open_results
from cnnsens_bench.measures import EntrantResults, measure, measures
from cnnsens_bench.measures.published import PUBLISHED
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from leaderboard.__main__ import main
from leaderboard.page import data
from leaderboard.read import read
from tests.leaderboard.made import sweep, write

ASKED = "published:alexnet"
MODELS = ("timm/a", "timm/b")
FIVE = {(f"common:{name}", float(level)): 1 for name in ("fog", "snow") for level in range(1, 6)}
THREE = {("common:frost", float(level)): 1 for level in range(1, 4)}
CONDITIONS = {**FIVE, **THREE, ("pepper", 0.04): 2}
RATES = {"common:fog": 0.819324, "common:snow": 0.866816}


def store_of(folder: Path, models: tuple[str, ...] = MODELS, classes: int | None = None, wnids: bool = True) -> Path:
    """Write a database; `classes` is the number that its table `models` states."""
    rows = sweep("r", "imagenet", [i for i in range(25) if i != 7], 0, models, ("none",), CONDITIONS)
    path = write(folder, rows, {"r": "p"})
    store = Store(folder)
    named = rows[["dataset", "model", "architecture", "defense"]].drop_duplicates()
    facts = {"trained_by": "r", "outputs": 1000, "matched_by": "wnid", "classes": classes, "view": "a view"}
    if classes:
        store.put("models", named.assign(weights_sha256="w" + named["model"], num_parameters=1, **facts))
    ids = rows[["dataset", "image_id"]].drop_duplicates()
    names = [f"n{i:08}" if wnids else f"class {i}" for i in range(len(ids))]
    store.put("images", ids.assign(class_name=names))
    return path


def expected(path: Path, model: str) -> float:
    """Compute mCE by the definition: summed errors over five times the published mean, then the mean over the two."""
    rows = open_results(path).accuracy
    own = rows[(rows["model"] == model) & rows["degradation"].isin(RATES)]
    sums = (1 - own["value"]).groupby(own["degradation"]).sum()
    return float(np.mean([sums[name] / (5 * rate) for name, rate in RATES.items()]))


def board(path: Path, reference: str) -> dict[str, Any]:
    [only] = data(read([path]), reference)["boards"]
    return only


def test_the_paper_is_where_its_numbers_say() -> None:
    """The mean over the fifteen corruptions, which the paper rounds, and the fifteen names."""
    rates = PUBLISHED["alexnet"].errors
    assert len(rates) == 15
    assert np.mean(list(rates.values())) == pytest.approx(0.788, abs=2e-3)


def test_only_corruptions_with_all_five_severities_count(tmp_path: Path) -> None:
    path = store_of(tmp_path)
    found = board(path, ASKED)
    assert found["has_reference"]
    assert found["published"] == "AlexNet"
    assert "Hendrycks & Dietterich 2019" in found["reference"]
    for one in found["entrants"]:
        value, low, high = one["stats"]["mce"]
        assert value == pytest.approx(expected(path, one["model"]), abs=2e-6)
        assert low < value < high
        assert one["relative_of"] == {"mce": 2, "relative_mce": 0, "mean_flip_rate": 0}
        assert not {"relative_mce", "mean_flip_rate"} & set(one["stats"])


def test_sql_says_the_same(tmp_path: Path) -> None:
    path = store_of(tmp_path)
    found = open_results(path).mce(ASKED)
    assert found["model"].tolist() == list(MODELS)
    for row in found.itertuples():
        assert row.mce == pytest.approx(expected(path, str(row.model)))
        assert row.degradations == 2
    assert found[["relative_mce", "mean_flip_rate"]].isna().all().all()
    with pytest.raises(UserError, match="published:alexnet"):
        open_results(path).mce("published:vgg")


def test_sql_has_the_numbers_of_python(tmp_path: Path) -> None:
    """A data set for each corruption, with errors of 1 throughout: mCE is then 1 over the published rate."""
    rates = PUBLISHED["alexnet"].errors
    parts = [
        sweep("r", name, range(2), 0, ("timm/a",), ("none",), {(name, float(level)): 1 for level in range(1, 6)})
        for name in rates
    ]
    rows = pd.concat(parts, ignore_index=True)
    path = write(tmp_path, rows.assign(prediction=rows["label"] + 1), {"r": "p"})
    found = open_results(path).mce(ASKED).set_index("dataset")["mce"]
    assert found.to_dict() == pytest.approx({name: 1 / rate for name, rate in rates.items()})


def test_stored_pictures_count_alone_where_they_are_whole(tmp_path: Path) -> None:
    """Stored fog has all five severities and takes the place of the computed one; stored snow lacks one."""
    stored = {("stored:fog", float(level)): 1 for level in range(1, 6)}
    stored |= {("stored:snow", float(level)): 1 for level in range(1, 5)}
    rows = sweep("r", "imagenet", range(25), 0, MODELS, ("none",), {**CONDITIONS, **stored})
    path = write(tmp_path, rows, {"r": "p"})
    accuracy = open_results(path).accuracy
    found = board(path, ASKED)
    for one in found["entrants"]:
        own = accuracy[accuracy["model"] == one["model"]]
        sums = (1 - own["value"]).groupby(own["degradation"]).sum()
        mce = np.mean([sums[name] / (5 * RATES[of]) for name, of in
                       (("stored:fog", "common:fog"), ("common:snow", "common:snow"))])  # fmt: skip
        assert one["stats"]["mce"][0] == pytest.approx(mce, abs=2e-6)
        assert one["relative_of"]["mce"] == 2
        sql = open_results(path).mce(ASKED).set_index("model").loc[one["model"]]
        assert (sql["mce"], sql["degradations"]) == (pytest.approx(mce), 2)
    assert dict(found["terms"])["Pre-made"].startswith("conditions named (stored) show the pictures of a pre-made set")
    own = open_results(path).mce("timm/a").set_index("model")  # of a network of the store: like with like, all of them
    assert own.loc["timm/a", ["mce", "degradations"]].tolist() == [1.0, 6]


@pytest.mark.parametrize(
    ("classes", "wnids", "taken"), [(1000, True, True), (200, True, False), (1000, False, False), (None, True, False)]
)
def test_it_stands_in_on_imagenets_classes_alone(classes: int | None, wnids: bool, taken: bool, tmp_path: Path) -> None:
    found = board(store_of(tmp_path, classes=classes, wnids=wnids), "torchvision/alexnet")
    assert found["has_reference"] == taken
    assert found["published"] == ("AlexNet" if taken else None)
    assert all(("mce" in one["stats"]) == taken for one in found["entrants"])
    if not taken:
        assert found["reference"] == "none on this board (torchvision/alexnet was asked for)"


def test_a_row_of_the_network_comes_first(tmp_path: Path) -> None:
    path = store_of(tmp_path, (*MODELS, "torchvision/alexnet"), classes=1000)
    found = board(path, "torchvision/alexnet")
    assert found["published"] is None
    assert {one["model"]: one["stats"]["mce"][0] for one in found["entrants"]}["torchvision/alexnet"] == 1
    assert board(path, ASKED)["published"] == "AlexNet"


def test_another_protocols_facts_are_not_taken(tmp_path: Path) -> None:
    """`models` has one row for all protocols: a board takes it only from a run of its own."""
    path = store_of(tmp_path, classes=1000)
    store = Store(tmp_path)
    store.begin_run("later", "quick", "q", {}, {})
    store.put("models", open_results(path).models.assign(trained_by="later"))
    found = board(path, "torchvision/alexnet")
    assert not found["has_reference"]
    assert {(one["view"], one["outputs"]) for one in found["entrants"]} == {(None, None)}


def test_fewer_classes_are_said(tmp_path: Path) -> None:
    found = board(store_of(tmp_path, classes=200), ASKED)
    assert found["reference"].endswith("the rates are of 1000 classes, and this board has 200")
    assert dict(found["terms"])["Outputs"] == (
        "of a network: 200 of 1000 are kept, matched by WordNet id; the others are left out before the argmax"
    )
    assert {one["view"] for one in found["entrants"]} == {"a view"}


def test_the_view_survives_a_submission(tmp_path: Path) -> None:
    path = store_of(tmp_path / "a", classes=200)
    assert main(["export", "--db", str(path), "--out", str(tmp_path / "submission")]) == 0
    assert main(["import", str(tmp_path / "submission"), "--db", str(tmp_path / "b.duckdb")]) == 0
    back = board(tmp_path / "b.duckdb", ASKED)
    assert back == board(path, ASKED)


def test_an_unknown_name_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = store_of(tmp_path / "a")
    assert main(["build", "--db", str(path), "--out", str(tmp_path / "site"), "--reference", "published:vgg"]) == 2
    said = capsys.readouterr().err
    assert said == "error: there are no published error rates 'published:vgg': there are published:alexnet\n"


def test_a_measure_of_ones_own_says_its_ratios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "data", dict(measures))

    def ratios(entrant: EntrantResults) -> np.ndarray:
        assert entrant.reference is not None
        means = pd.DataFrame((1 - entrant.accuracy) / (1 - entrant.reference.accuracy)).T.groupby(entrant.degradation)
        return means.mean().T.to_numpy()

    @measure("mine", "Mine", "%", higher_is_better=False, needs_reference=True, ratios=ratios)
    def mine(entrant: EntrantResults) -> np.ndarray | float:
        """The mean of my ratios."""
        return float("nan") if entrant.reference is None else np.nanmean(ratios(entrant), axis=1)

    for one in board(store_of(tmp_path), ASKED)["entrants"]:
        assert one["relative_of"]["mine"] == 2
        assert one["stats"]["mine"][0] == pytest.approx(one["stats"]["mce"][0])
