"""The figures and tables of the paper, from a store that holds what `suite=paper` makes."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from cnnsens_bench.config.compose import compose
from cnnsens_bench.figures.__main__ import main
from cnnsens_bench.figures.architectures import family
from cnnsens_bench.figures.catalogue import FIGURES, draw_figures, endings, figure_names
from cnnsens_bench.figures.paper import NOISES
from cnnsens_bench.figures.style import COLOURS, MARKERS, architecture_styles
from cnnsens_bench.figures.tables import latex_table, latex_text
from cnnsens_bench.store import Store, new_attempt, write_part
from cnnsens_bench.utils.errors import UserError
from tests.figures.study import LEVELS, MODELS, paper_store
from tests.store.part_schemas import PREDICTIONS

SCORED = ("fig5", "fig6")
"""Figures of scores, which this store lacks; test_sensitivity_figures.py tests them."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return paper_store(Store(tmp_path_factory.mktemp("paper")))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, out: Path, **options: object) -> None:
        figures.append(figure)
        save(figure, out, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_a_figure_is_drawn_as_pdf_and_png(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["combination", "--db", str(store.path)]) == 0
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert files == [store.path.parent / "figures" / f"combination{ending}" for ending in (".pdf", ".png")]


@pytest.mark.slow
def test_the_paper_suite_draws_all_figures(store: Store, tmp_path: Path) -> None:
    names = figure_names(compose(["suite=paper"]).figures)
    assert set(names) == set(FIGURES) - {"stored"}  # which is of no degradation of the paper's
    out = io.StringIO()
    files = draw_figures(Console(file=out, width=200), store, names, tmp_path).files
    assert {file.stem for file in files} == set(names) - set(SCORED)
    starts = {".pdf": b"%PDF", ".png": b"\x89PNG"}
    for file in files:
        assert file.suffix in endings(file.stem)
        assert file.stat().st_size > (200 if file.suffix == ".csv" else 5000)
        assert file.read_bytes().startswith(starts.get(file.suffix, b""))
    lines = out.getvalue().splitlines()
    assert [line.partition(" is not drawn")[0] for line in lines[:2]] == list(SCORED)
    with pytest.raises(UserError, match="unknown figure 'fig22': did you mean 'fig2'"):
        figure_names(["fig22"])


def test_figure_2_has_a_panel_a_noise_and_a_curve_an_architecture(
    store: Store, tmp_path: Path, drawn: list[Figure]
) -> None:
    FIGURES["fig2"](store, tmp_path / "a.png")
    [figure] = drawn
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in panels] == list(NOISES)
    accuracy = store.query("SELECT * FROM accuracy WHERE dataset = 'cub200' AND defense = 'none' ORDER BY level")
    for axis in panels:
        curves = {line.get_label(): line for line in axis.get_lines() if not str(line.get_label()).startswith("_")}
        assert set(curves) == {"torchvision/alexnet", "torchvision/vgg19"}  # the other models lack most of these noises
        for model, line in curves.items():
            expected = accuracy[(accuracy["model"] == model) & (accuracy["degradation"] == axis.get_title())]
            assert np.allclose(line.get_ydata(), 100 * expected["value"])
            assert np.allclose(line.get_xdata(), LEVELS[axis.get_title()])
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert any("−20 points" in text for text in texts)


def test_an_architecture_keeps_its_colour_and_marker(store: Store, tmp_path: Path, drawn: list[Figure]) -> None:
    for name in ("fig2", "combination"):
        FIGURES[name](store, tmp_path / f"{name}.png")
    main(["curves", "--db", str(store.path), "--dataset", "cub200", "--out", str(tmp_path / "c.png")])
    drawn_styles = [
        {str(line.get_label()): (line.get_color(), line.get_marker()) for line in figure.axes[0].get_lines()}
        for figure in (drawn[0], drawn[2])
    ]
    bars = {str(bar.get_label()): bar.lines[0] for bar in drawn[1].axes[0].containers}
    for model, position in (("torchvision/alexnet", 0), ("torchvision/vgg19", 1)):
        expected = (COLOURS[position], MARKERS[position])
        assert drawn_styles[0][model] == drawn_styles[1][model] == expected
        assert (bars[model].get_color(), bars[model].get_marker()) == expected
    assert architecture_styles(["z", "vgg19", "a"])["vgg19"].position == 1
    assert architecture_styles(["z", "a"])["a"].position == 3


def test_table_1_has_the_stores_numbers(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    assert main(["table1", "--db", str(store.path), "--out", str(out), "--model", "torchvision/vgg19"]) == 0
    table = pd.read_csv(out, index_col=0)
    predictions = store.query(
        "SELECT * FROM predictions WHERE dataset = 'cub200' AND model = 'torchvision/vgg19' AND defense = 'none'"
    )
    still = predictions[predictions["degradation"] == "none"].set_index("image_id")["prediction"]
    for row, name in {"rotation ±45°": "rotation", "upside-down flip": "flip_ud", "left-right flip": "flip_lr"}.items():
        own = predictions[predictions["degradation"] == name].set_index("image_id")
        changed = 100 * (own["prediction"] != still.loc[own.index]).mean()
        right = 100 * (own["prediction"] == own["label"]).mean()
        assert table.loc[row, "torchvision/vgg19 p_Δ"].startswith(f"{changed:.1f} [")
        assert table.loc[row, "torchvision/vgg19 acc."].startswith(f"{right:.1f} [")
    assert table.loc["rotation ±45°"].iloc[-1] == "46.44, 48.49"


@pytest.mark.parametrize("name", ["table1", "published"])
def test_tables_in_latex_need_no_package(store: Store, tmp_path: Path, name: str) -> None:
    """A bare pdflatex compiles them: all characters are ASCII, and all commands are LaTeX's own."""
    out = tmp_path / "t.tex"
    assert main([name, "--db", str(store.path), "--out", str(out)]) == 0
    text = out.read_bytes().decode("ascii")
    assert "p_" not in text.replace(r"$p_\Delta$", "")
    check_latex(text)


def test_any_name_is_latex() -> None:
    names = [r"a_b&c%d$e#f{g}h\i~j^k<l>m|n", "é 鳥 p_Δ σρ±×−°–—… \u00a0", "[0.5]", "*", "line\nend", "\x7f"]
    table = pd.DataFrame({"first": names, "[second]": names[::-1]})
    text = latex_table(table, names[0])
    assert text.isascii()
    check_latex(text)
    assert [latex_text(name) for name in names[2:]] == ["{}[0.5]", "{}*", "line end", "U+007F"]
    assert latex_text(names[0]) == (
        r"a\_b\&c\%d\$e\#f\{g\}h\textbackslash{}i\textasciitilde{}j\textasciicircum{}k$<$l$>$m$|$n"
    )
    assert latex_text(names[1]) == (r"e U+9CE5 $p_\Delta$ $\sigma$$\rho$$\pm$$\times$$-$$^\circ$-----\ldots{} ~")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + len(names)
    assert not [row for row in rows if row[0] in "[*"]  # it would be an argument of the row before


LATEX_COMMANDS = {
    *("begin", "end", "caption", "hline", "ldots", "textbackslash", "textasciitilde", "textasciicircum"),
    *("Delta", "sigma", "rho", "pm", "times", "circ", "\\", "_", "&", "%", "$", "#", "{", "}"),
}
"""Commands of LaTeX's kernel; everything else needs a package."""


def check_latex(text: str) -> None:
    commands = re.findall(r"\\([A-Za-z]+|.)", text)
    assert set(commands) <= LATEX_COMMANDS
    bare = re.sub(r"\\([A-Za-z]+|.)", "", text)
    assert bare.count("$") % 2 == 0
    assert bare.count("{") == bare.count("}")
    assert not set(re.sub(r"\$[^$]*\$", "", bare)) & set("%#^_")
    assert [text.count(f"\\{edge}{{{name}}}") for name in ("table", "tabular") for edge in ("begin", "end")] == [1] * 4


def test_figure_3_is_of_the_other_data_sets(store: Store, tmp_path: Path, drawn: list[Figure]) -> None:
    FIGURES["fig3"](store, tmp_path / "a.png")
    labels = [axis.get_ylabel() for axis in drawn[0].axes if axis.get_ylabel()]
    assert [label.splitlines()[0] for label in labels] == ["flowers102", "oxford_pets"]
    assert "torchvision/alexnet" in drawn[0].get_suptitle()
    stars = [line for axis in drawn[0].axes for line in axis.get_lines() if line.get_marker() == "*"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in stars] == [(16, pytest.approx(43.6))]


def test_figure_4_is_of_the_noises_that_defenses_met(store: Store, tmp_path: Path, drawn: list[Figure]) -> None:
    FIGURES["fig4"](store, tmp_path / "a.png")
    assert [axis.get_title() for axis in drawn[0].axes] == ["gaussian_rgb", "pepper"]
    labels = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert labels == ["none", "gaussian_filter(3, 0.5)"]


def test_depths_of_an_architecture_are_joined_over_common_conditions(
    store: Store, tmp_path: Path, drawn: list[Figure]
) -> None:
    FIGURES["depth"](store, tmp_path / "a.png")
    left = drawn[0].axes[0]
    joined = [list(line.get_xdata()) for line in left.get_lines() if line.get_linestyle() != "None"]
    assert [MODELS["timm/resnet18"], MODELS["timm/resnet34"]] in joined
    accuracies = {line.get_label(): line.get_ydata()[0] for line in left.get_lines() if line.get_linestyle() == "None"}
    rows = store.query("SELECT * FROM accuracy WHERE model = 'timm/resnet18' AND degradation <> 'none'")
    assert accuracies["resnet18"] == pytest.approx(100 * rows.groupby("degradation")["value"].mean().mean())
    own = store.query(
        "SELECT * FROM accuracy WHERE dataset = 'cub200' AND architecture = 'alexnet' AND defense = 'none'"
    )
    own = own[own["degradation"].isin(rows["degradation"])]  # without the degradations that the ResNets lack
    assert accuracies["alexnet"] == pytest.approx(100 * own.groupby("degradation")["value"].mean().mean())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("resnet50.a1_in1k", "resnet"), ("resnet18", "resnet"), ("tf_efficientnet_lite0", "tf_efficientnet_lite"),
     ("vgg19", "vgg"), ("alexnet", "alexnet"), ("googlenet", "googlenet"), ("101", "101")],
)  # fmt: skip
def test_a_family_is_a_name_without_its_number(name: str, expected: str) -> None:
    assert family(name) == expected


def test_the_papers_numbers_stand_beside_ours(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    assert main(["published", "--db", str(store.path), "--out", str(out)]) == 0
    table = pd.read_csv(out).ffill()
    values = store.query("SELECT * FROM accuracy WHERE dataset = 'flowers102'").set_index(["degradation", "level"])[
        "value"
    ]
    [flowers] = table[table["what"] == "Flowers, intensity σ = 16"]["ours"]
    assert flowers == f"{100 * values['gaussian_intensity', 16.0]:.1f} % of {100 * values['none', 0.0]:.1f} %"
    drops = table[table["what"] == "pepper, p = 0.04"]
    assert sorted(drops["network"]) == sorted(MODELS)
    assert set(drops["it says"]) == {"−20 points (AlexNet, GoogLeNet), −10 (VGG19)"}
    assert set(table[table["what"].str.contains("pays")]["network"]) == {"torchvision/alexnet"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fig2", "--dataset", "birds"], "no predictions on 'birds': it has cub200, flowers102, oxford_pets"),
        (["fig2", "--model", "a/b"], "has no model 'a/b' on 'cub200': it has timm/resnet18"),
        (["fig3", "--dataset", "cub"], "has no predictions on 'cub': it has cub200, flowers102, oxford_pets"),
        (["fig3", "--model", "a/b"], "has no model 'a/b' on flowers102, oxford_pets: it has torchvision/alexnet"),
        (["fig4", "--model", "a/b"], "has no model 'a/b': it has timm/resnet18, timm/resnet34, torchvision/alexnet"),
        (["fig5"], "has no sensitivity scores"),
        (["table1", "--out", "t.docx"], "docx"),
    ],
)
def test_one_sentence_for_what_cannot_be_drawn(
    store: Store,
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--db", str(store.path)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_named_models_are_all_drawn(store: Store, tmp_path: Path, drawn: list[Figure]) -> None:
    arguments = ["--model", "torchvision/alexnet", "--model", "timm/resnet18", "--db", str(store.path)]
    assert main(["fig2", *arguments, "--out", str(tmp_path / "new" / "a.png")]) == 0
    labels = {str(line.get_label()) for axis in drawn[0].axes for line in axis.get_lines()}
    assert {"torchvision/alexnet", "timm/resnet18"} <= labels  # although it lacks some of the noises


def test_protocols_are_never_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = paper_store(Store(tmp_path / "out"))
    rows = made.query("SELECT * FROM predictions WHERE dataset = 'cub200' AND image_id = 'i0'").assign(run_id="other")
    made.begin_run("other", "paper", "another protocol", {}, {})
    part = pa.Table.from_pandas(rows, schema=PREDICTIONS, preserve_index=False)
    write_part(new_attempt(made.output), "predictions", "b", part)
    made.ingest()
    for name in ("published", "fig2", "table1", "combination", "depth"):
        assert main([name, "--db", str(made.path), "--out", str(tmp_path / "a.png")]) == 2
        assert "several protocols of 'cub200'" in capsys.readouterr().err


def test_a_name_is_no_formula(tmp_path: Path) -> None:
    made = paper_store(Store(tmp_path / "out"))
    rows = made.query("SELECT * FROM predictions WHERE model = 'torchvision/vgg19' AND dataset = 'cub200'")
    for column in ("model", "architecture"):
        rows[column] = r"a/$\frac{x}$" + 300 * "y"
    part = pa.Table.from_pandas(rows, schema=PREDICTIONS, preserve_index=False)
    write_part(new_attempt(made.output), "predictions", "b", part)
    made.ingest()
    known = rows[["model", "architecture", "dataset", "defense"]].drop_duplicates()
    made.put("models", known.assign(num_parameters=5, weights_sha256="w", input_size=224))
    for name in ("fig2", "combination", "depth"):
        FIGURES[name](made, tmp_path / "a.png")


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in SCORED])
def test_an_empty_store_is_one_sentence(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = Store(tmp_path / "out")
    empty.open()
    assert main([name, "--db", str(empty.path), "--out", str(tmp_path / "a.png")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
