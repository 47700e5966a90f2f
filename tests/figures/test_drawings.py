"""Figures from a store or a data set, and the sentences for what cannot be drawn."""

import itertools
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cnnsens_bench.figures.__main__ import main
from cnnsens_bench.store import Store, new_attempt, write_part
from tests.camera.drawn import report
from tests.store.empty import empty_store
from tests.store.part_schemas import PREDICTIONS


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = empty_store(tmp_path / "out", "r")
    rows = [
        {"run_id": "r", "dataset": "d", "image_id": f"i{i}", "model": f"s/{m}", "architecture": m, "defense": "none",
         "degradation": name, "level": level, "trial": 0, "label": i % 2, "prediction": (i + (i % 7 < level / 8)) % 2,
         "confidence": 0.5, "true_probability": 0.5, "true_rank": 1, "reference_logit": 0.0,
         "reference_probability": 0.5}
        for i in range(20) for m in ("<a>", "b")
        for name, level in [("none", 0.0), ("gaussian_rgb", 4.0), ("gaussian_rgb", 32.0), ("flip_lr", 0.0)]
    ]  # fmt: skip
    write_part(new_attempt(made.output), "predictions", "a", pa.Table.from_pylist(rows, schema=PREDICTIONS))
    made.ingest()
    return made


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_curves(store: Store, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"curves.{ending}"
    assert main(["curves", "--db", str(store.path), "--out", str(out)]) == 0
    assert out.stat().st_size > 2000


def test_curves_show_the_level_of_a_camera(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "camera.json").write_text(report(name="phone").json_text())
    given = ["curves", "--db", str(store.path), "--out", str(tmp_path / "a.svg"), "--camera"]
    assert main([*given, str(tmp_path / "camera.json")]) == 0
    assert (tmp_path / "a.svg").read_text().count("<!-- phone -->") == 1  # of the panels only gaussian_rgb has it
    assert main([*given, str(tmp_path / "none.json")]) == 2
    assert "none.json cannot be read" in capsys.readouterr().err


def test_curves_hold_one_panel_per_degradation_with_levels(store: Store, tmp_path: Path) -> None:
    main(["curves", "--db", str(store.path), "--out", str(tmp_path / "a.svg")])
    text = (tmp_path / "a.svg").read_text()
    assert "<!-- gaussian_rgb -->" in text
    assert "<!-- flip_lr -->" not in text
    assert "<a>" not in text.replace("<!-- s/<a> -->", "")  # a hostile name is text


LONG = (
    "gaussian_intensity(4) + pepper(0.02) + albumentations:MotionBlur(blur_limit=(level, level), allow_shifted=False)"
)


@pytest.mark.parametrize("alone", [False, True])
def test_levels_of_any_sign_and_long_names(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    given = store.query("SELECT * FROM predictions WHERE degradation = 'gaussian_rgb' AND level = 4")
    levels = {"white_balance": (-4000.0, -1000.0, 2000.0), "saturation": (0.0, 4.0), LONG: (3.0, 7.0)}
    rows = [given.assign(degradation=name, level=level) for name, swept in levels.items() for level in swept]
    if alone:
        store = Store(tmp_path / "other")
        store.open()
        store.begin_run("r", "test", "p", {}, {})
        rows = [part.assign(dataset="d" * 60) for part in rows[-2:]]
    table = pa.Table.from_pandas(pd.concat(rows), schema=PREDICTIONS, preserve_index=False)
    write_part(new_attempt(store.output), "predictions", "more", table)
    store.ingest()
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, out: Path, **options: object) -> None:
        figures.append(figure)
        save(figure, out, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    assert main(["curves", "--db", str(store.path), "--out", str(tmp_path / "a.png")]) == 0
    [figure] = figures
    figure.draw_without_rendering()
    found = {}
    for axis in figure.axes:
        found[axis.get_title().replace("\n", "").replace(" ", "")] = axis.get_xscale()
        low, high = axis.get_xlim()
        assert all(low <= x <= high for x in axis.get_lines()[0].get_xdata())
    expected = {LONG.replace(" ", ""): "log"}
    if not alone:
        expected |= {"gaussian_rgb": "log", "saturation": "linear", "white_balance": "linear"}
    assert found == expected
    texts = [*(axis.title for axis in figure.axes), figure._suptitle]  # type: ignore[attr-defined]
    extents = [text.get_window_extent() for text in texts]
    assert all(extent.x0 >= 0 and extent.x1 <= figure.bbox.x1 and extent.y1 <= figure.bbox.y1 for extent in extents)
    for left, right in itertools.pairwise(sorted(extents[:-1], key=lambda extent: extent.x0)):
        assert left.x1 < right.x0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--db", "/nowhere/results.duckdb"], "there is no database"),
        (["--db", "DB", "--defense", "moat"], "no degradation with several levels for the defense 'moat'"),
    ],
)
def test_what_cannot_be_drawn(
    store: Store, tmp_path: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(store.path) if text == "DB" else text for text in arguments]
    assert main(["curves", *given, "--out", str(tmp_path / "a.png")]) == 2
    assert sentence in capsys.readouterr().err


def test_defenses_are_drawn_of_one_model(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "d.svg"
    command = ["defenses", "--db", str(store.path), "--out", str(out)]
    assert main(command) == 2
    assert "has 0 models with defenses" in capsys.readouterr().err
    rows = store.query("SELECT * FROM predictions").assign(defense="input_dropout(p=0.1) + median_filter(size=3)")
    for i, model in enumerate(("b", "<a>")):
        chosen = pa.Table.from_pandas(rows[rows["architecture"] == model], schema=PREDICTIONS, preserve_index=False)
        write_part(new_attempt(store.output), "predictions", f"more{i}", chosen)
        store.ingest()
        if i == 0:
            assert main(command) == 0
            text = out.read_text()
            assert "<!-- none -->" in text
            assert "<!-- input_dropout(0.1) + median_filter(3) -->" in text
            assert "<!-- gaussian_rgb -->" in text
    assert main(command) == 2
    assert "has 2 models with defenses: --model names one, s/<a> or s/b" in capsys.readouterr().err
    assert main([*command, "--model", "s/b"]) == 0
    assert main([*command, "--model", "moat"]) == 2
    assert "has no model 'moat': it has s/<a>, s/b" in capsys.readouterr().err


def test_protocols_are_not_drawn_together(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.begin_run("r2", "test", "another", {}, {})
    row = dict.fromkeys(PREDICTIONS.names[:7], "x") | {"run_id": "r2", "defense": "none", "level": 0.0, "trial": 0}
    write_part(new_attempt(store.output), "predictions", "b", pa.Table.from_pylist([row], schema=PREDICTIONS))
    store.ingest()
    assert main(["curves", "--db", str(store.path), "--out", str(tmp_path / "a.png")]) == 2
    assert "several protocols" in capsys.readouterr().err


def test_a_contact_sheet_of_any_data_set(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    assert main(["contact-sheet", "--dataset", "folder", "--root", str(pictures), "--out", str(out)]) == 0
    assert Image.open(out).size[0] > 600
    assert main(["contact-sheet", "--dataset", "cub200", "--out", str(out)]) == 2
