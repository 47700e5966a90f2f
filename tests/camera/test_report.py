"""The report: its file, its intervals, its mix, and the configs, figures and functions that take it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from cnnsens_bench import degrade
from cnnsens_bench.camera.entries import with_cameras
from cnnsens_bench.camera.mix import mix_of
from cnnsens_bench.camera.report import CameraReport, Measurement, MixMember, json_schema, read_mix, read_report
from cnnsens_bench.camera.spread import mean_over, median_over, share_over
from cnnsens_bench.config.compose import compose
from cnnsens_bench.degradations import parse_degradation
from cnnsens_bench.experiment.camera_mix import camera_notes, with_camera_mixes
from cnnsens_bench.experiment.degradation_sheet import choose_conditions
from cnnsens_bench.experiment.stored_pictures import settle_pictures
from cnnsens_bench.figures.camera_band import draw_camera_band
from cnnsens_bench.figures.curves import format_level_axis
from cnnsens_bench.utils.errors import UserError
from tests.camera.drawn import report


def written(folder: Path, name: str = "camera.json", **changes: object) -> Path:
    path = folder / name
    path.write_text(report(**changes).json_text(), "utf-8")
    return path


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_report(written(tmp_path)) == report()
    assert read_mix(written(tmp_path)) == "gaussian_rgb(8) + jpeg(80)"


def test_the_schema_names_every_part() -> None:
    assert set(json_schema()["properties"]) == set(CameraReport.model_fields)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda given: given.pop("levels"), "levels: Field required"),
        (lambda given: given.update(version=2), "version.*it is 2, and this program reads version 1"),
        (lambda given: given.update(colour="red"), "colour: Extra inputs are not permitted"),
        (lambda given: given["levels"].update(jpeg={"value": "80"}), "levels.jpeg.value"),
        (lambda given: given["levels"].update(jpeg={"value": 5.0, "low": 6.0}), "does not have the value 5 in it"),
        (lambda given: given["levels"].update(jpeg={"value": float("nan")}), "no file of a camera"),
        (lambda given: given.update(mix={}), "mix"),
    ],
)
def test_other_files_are_refused(change: object, sentence: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    given = json.loads(path.read_text())
    change(given)  # type: ignore[operator]
    path.write_text(json.dumps(given))
    with pytest.raises(UserError, match=rf"(?s)camera\.json is no file of a camera.*{sentence}|{sentence}"):
        read_report(path)


@pytest.mark.parametrize("content", [b"", b"no json", b"[]", b"\xff\xfe", b"{}"])
def test_what_is_no_report_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is no file of a camera") as caught:
        read_report(path)
    assert str(caught.value).isprintable()


def test_absent_files_and_empty_mixes_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json cannot be read \(No such file or directory\): write one with"):
        read_report(tmp_path / "none.json")
    with pytest.raises(UserError, match="has an empty mix"):
        read_mix(written(tmp_path, mix=[]))


def test_entries_of_a_config_get_the_mix(tmp_path: Path) -> None:
    file, mix = f"camera:{written(tmp_path)}", "gaussian_rgb(8) + jpeg(80)"
    given = ["pepper", file, {"name": file, "trials": 3}, ["flip_lr", file], {"name": "pepper", "levels": [0.1]}]
    assert with_cameras(given) == ["pepper", mix, {"name": mix, "trials": 3}, ["flip_lr", mix], given[4]]
    for key, value in {"level": 3, "levels": [1], "arguments": {"a": 1}}.items():
        with pytest.raises(UserError, match=f"has the levels of its file: leave {key} out"):
            with_cameras([{"name": file, key: value}])


def test_a_run_takes_the_file_and_another_mix_is_another_run(tmp_path: Path) -> None:
    path = written(tmp_path, "my cam, 'new' [1]=2.json")
    config = compose([f"degradations=camera:{path}"])
    assert config.degradations == [f"camera:{path}"]
    settled = settle_pictures(config).config
    assert settled.degradations == ["gaussian_rgb(8) + jpeg(80)"]
    written(tmp_path, path.name, mix=[MixMember(degradation="jpeg", level=50.0)])
    assert settle_pictures(config).config.hash() != settled.hash()


def test_a_camera_of_another_size_is_said(tmp_path: Path) -> None:
    files = [written(tmp_path, f"{size}.json", input_size=size) for size in (64, None)]
    entries = ["pepper", [f"camera:{files[0]}"], {"name": f"camera:{files[1]}", "trials": 3}, f"camera:{files[0]}"]
    [unresized] = camera_notes(entries, {64})
    assert unresized.startswith(
        f"camera:{files[1]} was measured without --resize, and networks see 64 px: a resize changes"
    )
    resized, _ = camera_notes(entries, {64, 224})
    assert "was measured at 64 px, and networks see 224 px" in resized
    assert resized.endswith("with --resize 224")
    assert camera_notes(["pepper", {"name": "camera"}], {64}) == ()


def test_a_search_takes_the_file(tmp_path: Path) -> None:
    config = compose(["suite=cub", f"search.degradations=['camera:{written(tmp_path)}']"])
    assert with_camera_mixes(config).search.degradations == ["gaussian_rgb(8) + jpeg(80)"]


def test_degrade_and_contact_sheets_take_the_file(tmp_path: Path) -> None:
    file, gray = f"camera:{written(tmp_path)}", np.full((32, 32, 3), 128, np.uint8)
    assert (degrade(gray, file) == degrade(gray, "gaussian_rgb(8) + jpeg(80)")).all()
    [(condition, _)] = choose_conditions([file], None)
    assert condition.degradation == "gaussian_rgb(8) + jpeg(80)"


LEVELS = {"gaussian_rgb": Measurement.of(8, 7, 9), "gaussian_intensity": Measurement.of(8 / 3**0.5)}


@pytest.mark.parametrize(
    ("measurements", "levels", "mix"),
    [
        ({}, {}, ""),
        ({}, LEVELS, "gaussian_rgb(8)"),
        ({}, {**LEVELS, "gaussian_intensity": Measurement.of(7.9)}, "gaussian_intensity(8)"),
        ({}, {**LEVELS, "gaussian_intensity": Measurement.of(6)}, "gaussian_intensity(4.69) + gaussian_rgb(6.48)"),
        ({}, {**LEVELS, "gaussian_rgb": Measurement.of(8, 0.3, 9)}, ""),
        ({"blur": Measurement.of(0.9)}, {}, ""),
        ({"blur": Measurement.of(1.234)}, {}, "albumentations:GaussianBlur(blur_limit=0, sigma_limit=(1.23, 1.23))"),
        ({}, {"white_balance": Measurement.of(-3000, -3500, -400)}, ""),
        ({}, {"white_balance": Measurement.of(-3000, -3500, -600)}, "white_balance(-3000)"),
        ({}, {"white_balance": Measurement.of(2000, 600, 4000)}, "white_balance(2000)"),
        ({}, {"white_balance": Measurement.of(2000)}, ""),
        ({}, {"pepper_pixel": Measurement.of(0.01, 0.0004, 0.02)}, ""),
        ({}, {"pepper_pixel": Measurement.of(0.1, 0.01), "jpeg": Measurement.of(7)}, "pepper_pixel(0.1) + jpeg(7)"),
        ({}, {"pepper": Measurement.of(0.01, 0.009, 0.02)}, "pepper(0.01)"),
        ({}, {"jpeg": Measurement.of(96)}, ""),
        ({}, {"shot_noise": Measurement.of(300)}, ""),
    ],
)  # fmt: skip
def test_the_mix_has_what_surely_degrades(
    measurements: dict[str, Measurement], levels: dict[str, Measurement], mix: str
) -> None:
    members = mix_of(measurements, levels)
    found = report(mix=members).expression
    assert found == mix
    if mix:
        assert parse_degradation(found).name == mix  # the database has the name that the file tells


@pytest.mark.parametrize("count", [6, 20, 51])
def test_the_interval_of_a_median_holds(count: int) -> None:
    rng = np.random.default_rng(0)
    draws = rng.lognormal(0, 1, (400, count))
    spans = [median_over(row).span for row in draws]
    assert np.mean([low <= 1 <= high for low, high in spans]) >= 0.94
    rank = int(median_over(range(1, count + 1)).span[0])
    outside = 2 * stats.binom.cdf([rank - 1, rank], count, 0.5)
    assert outside[0] <= 0.05 < outside[1]  # the next narrower interval would not hold


def test_few_values_have_wide_intervals() -> None:
    assert median_over([5]) == Measurement(value=5)
    low, high = median_over([4, 5, 7], least=0).span
    assert low == 1.205
    assert high > 8
    assert mean_over([0.1, 0.3], least=0).low == 0
    assert median_over([80, 96, 96], 1, 100).span[1] == 100
    assert median_over([3, np.nan, 4, 5, np.nan]).value == 4


def test_shares_have_the_wider_of_two_intervals() -> None:
    alike, different = share_over([10, 10, 10], [1000] * 3), share_over([0, 0, 30], [1000] * 3)
    assert alike.value == different.value == 0.01
    assert different.span[1] > alike.span[1] > 0.013
    assert share_over([0], [5000]).span[1] == pytest.approx(3.84 / 5000, rel=0.02)


@pytest.mark.parametrize(
    ("degradation", "ticks", "level", "span"),
    [
        ("gaussian_rgb", [1.0, 2.0, 4.0, 8.0, 16.0], Measurement.of(5, 4, 6), (4, 6)),
        ("gaussian_rgb", [1.0, 2.0, 4.0], Measurement.of(30, 20, 40), None),
        ("white_balance", [-4000.0, 2000.0], Measurement.of(-300, -900, 200), (-900, 200)),
        ("gaussian_rgb", [1.0, 2.0, 4.0], Measurement.of(0.0), None),
    ],
)
def test_curves_show_the_level_as_a_band(
    degradation: str, ticks: list[float], level: Measurement, span: tuple[float, float] | None
) -> None:
    axis = Figure().subplots()
    axis.plot(ticks, ticks)
    format_level_axis(axis, degradation, ticks)
    limits = axis.get_xlim()
    draw_camera_band(axis, report(levels={degradation: level}, name="my $cam"), degradation)
    assert axis.get_xlim() == limits
    [text] = [one.get_text() for one in axis.texts]
    if span:
        [band] = axis.patches
        x = band.get_path().vertices if not hasattr(band, "get_x") else [band.get_x(), band.get_x() + band.get_width()]
        assert np.allclose([np.min(x), np.max(x)], span)
        assert text == "my $cam"
    else:
        assert re.fullmatch("[←→] my [$]cam", text)


def test_other_panels_have_no_band() -> None:
    axis = Figure().subplots()
    draw_camera_band(axis, report(), "pepper")
    assert not axis.patches
    assert not axis.lines
