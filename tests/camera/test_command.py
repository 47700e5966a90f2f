"""The command `camera`: what it measures of folders, what it says of odd ones, and its exit codes."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cnnsens_bench.camera import noise
from cnnsens_bench.camera.__main__ import main
from cnnsens_bench.camera.report import CameraReport, read_report
from tests.camera.drawn import folder_of, photographs, scene, with_noise

Capture = pytest.CaptureFixture[str]
Measure = Callable[..., CameraReport]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six drawn photographs with noise of 8 gray levels, stored without loss."""
    return folder_of(tmp_path_factory.mktemp("camera") / "phone", photographs(range(6), with_noise(8)))


@pytest.fixture(autouse=True)
def fewer_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at fewer blocks of each photograph, where the figures need not be precise."""
    if "data_root" not in request.fixturenames:
        monkeypatch.setattr(noise, "BLOCKS", 6000)


@pytest.fixture
def measure(tmp_path: Path, capsys: Capture) -> Measure:
    """Run the command, and return the report that it wrote."""

    def run(*words: object, code: int = 0) -> CameraReport:
        assert main([*map(str, words), "--json", str(tmp_path / "out.json")]) == code
        capsys.readouterr()
        return read_report(tmp_path / "out.json")

    return run


def noted(report: CameraReport, text: str) -> bool:
    return any(text in note for note in report.notes)


def test_the_table_has_figures_levels_and_what_cannot_be_told(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main([str(folder), "--json", str(tmp_path / "phone.json")]) == 0
    out = capsys.readouterr().out
    assert "phone: 6 photographs" in out
    for text in ("noise of red", "gaussian_rgb", "σ=…", "clipped highlights", "mix: gaussian_rgb("):
        assert text in out
    assert "note: JPEG quality cannot be told: no photograph is a JPEG file" in out
    report = read_report(tmp_path / "phone.json")
    assert (report.name, report.photographs, report.input_size, report.camera) == ("phone", 6, None, None)
    assert report.levels["gaussian_rgb"].value == pytest.approx(8, rel=0.1)
    assert [member.degradation for member in report.mix] == ["gaussian_rgb"]
    assert all("?" not in line for line in out.splitlines() if line.strip().startswith("gaussian"))


def test_json_alone_is_printed(folder: Path, capsys: Capture) -> None:
    assert main([str(folder / "00.png"), str(folder / "01.png"), "--json", "-", "--name", "pair"]) == 0
    given = json.loads(capsys.readouterr().out)
    assert (given["name"], given["photographs"]) == ("pair", 2)


def test_one_photograph_has_a_figure_and_a_warning(folder: Path, measure: Measure) -> None:
    report = measure(folder / "03.png")
    low, high = report.levels["gaussian_rgb"].span
    assert low < 8 < high < 9
    assert report.measurements["intensity"].low is None
    assert noted(report, "one photograph says nothing about how photographs differ")


def test_resized_photographs_have_less_noise(folder: Path, measure: Measure) -> None:
    report = measure(folder, "--resize", 96)
    assert report.input_size == 96
    assert report.levels["gaussian_rgb"].value == pytest.approx(8 * 96 / (180 * 240) ** 0.5, rel=0.25)
    assert "pepper" not in report.levels
    assert noted(report, "a resize averages them away")


def test_jpeg_files(tmp_path: Path, measure: Measure) -> None:
    files = folder_of(tmp_path / "files", photographs(range(6), with_noise(8)), "jpg", quality=85)
    report = measure(files)
    assert report.measurements["jpeg_quality"].span == (85, 85)
    assert report.mix[-1].expression == "jpeg(85)"
    assert noted(report, "black pixels cannot be told: the files are compressed")
    assert noted(report, "JPEG has taken fine noise away")
    left = [np.asarray(Image.open(files / f"{seed:02d}.jpg")) - scene(seed) for seed in range(6)]
    low, high = report.levels["gaussian_rgb"].span
    assert low < np.std(left) < 1.5 * high
    assert report.levels["gaussian_rgb"].value < 8
    halved = measure(files, "--resize", 90)
    assert "jpeg" not in halved.levels
    assert noted(halved, "JPEG quality is that of the files")


def test_repeated_shots_are_found_or_named(tmp_path: Path, measure: Measure) -> None:
    rng = np.random.default_rng(0)
    shots = [photographs([1], lambda picture, _: picture + rng.normal(0, 5, picture.shape))[0] for _ in range(2)]
    mixed = folder_of(tmp_path / "mixed", [*shots, *photographs([2, 3], with_noise(5))])
    found = measure(mixed)
    assert noted(found, "noise is that of 1 pair of shots of one scene")
    assert found.levels["gaussian_rgb"].value == pytest.approx(5, rel=0.1)
    others = folder_of(tmp_path / "others", photographs([4, 5], with_noise(9)))
    named = measure(others, "--repeated", folder_of(tmp_path / "s", shots))
    assert named.levels["gaussian_rgb"].value == pytest.approx(5, rel=0.1)
    alone = measure("--repeated", tmp_path / "s")
    assert (alone.photographs, alone.name) == (2, "s")


def test_repeated_shots_do_not_make_defects_of_what_they_show(tmp_path: Path, measure: Measure) -> None:
    rng, spotted = np.random.default_rng(0), scene(1).copy()
    spotted[60:120:20, 40:200:20] = 255
    shots = [np.clip(spotted + rng.normal(0, 5, spotted.shape), 0, 255).astype(np.uint8) for _ in range(6)]
    report = measure(folder_of(tmp_path / "shots", shots))
    assert noted(report, "defective pixels cannot be told: that takes five photographs of one size")
    others = photographs(range(2, 7), with_noise(5))
    for picture in others:
        picture[30, 30] = 255
    found = measure(folder_of(tmp_path / "others", others))
    assert found.measurements["bright_pixels"].value == pytest.approx(1 / others[0][..., 0].size, rel=0.01)


def with_camera(path: Path, picture: np.ndarray, model: str) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = model.split()[0], model
    Image.fromarray(picture).save(path, exif=exif, quality=97)


def test_several_cameras_are_told_apart(tmp_path: Path, measure: Measure) -> None:
    pictures = [*photographs([1, 2, 3], with_noise(6)), *photographs([4, 5, 6], with_noise(16))]
    for number, picture in enumerate(pictures):
        with_camera(tmp_path / f"{number}.jpg", picture, "Acme Quiet" if number < 3 else "Acme Noisy")
    both = measure(tmp_path)
    assert noted(both, "of several cameras (3 of Acme Quiet, 3 of Acme Noisy): --only MODEL measures one of them")
    assert both.camera is None
    Image.fromarray(photographs([7], with_noise(6))[0]).save(tmp_path / "unnamed.jpg", quality=97)
    quiet = measure(tmp_path / "0.jpg", tmp_path / "unnamed.jpg")
    assert noted(quiet, "may be of several cameras (1 of Acme Quiet, 1 of a camera that is not named): --only MODEL")
    (tmp_path / "unnamed.jpg").unlink()
    one, other = (measure(tmp_path, "--only", model) for model in ("quiet", "noisy"))
    assert (one.camera, other.camera) == ("Acme Quiet", "Acme Noisy")
    assert one.levels["gaussian_rgb"].span[1] < other.levels["gaussian_rgb"].span[0]


def test_copies_screenshots_and_damaged_files_are_left_out(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    bad = folder_of(tmp_path / "bad", photographs([0, 0, 1], with_noise(4)))
    screen = np.full((200, 300, 3), 240, np.uint8)
    cv2.putText(screen, "Settings", (20, 80), cv2.FONT_HERSHEY_SIMPLEX, 1, (20, 20, 20), 2)
    Image.fromarray(screen).save(bad / "screen.png")
    (bad / "damaged.jpg").write_bytes(b"\xff\xd8\xff no photograph")
    (bad / ".hidden.png").write_bytes(b"")
    (bad / "notes.txt").write_text("hello")
    assert main([str(bad)]) == 1
    written = capsys.readouterr()
    assert "bad: 2 photographs" in written.out
    assert "1 of 5 pictures are left out: they are copies of others" in written.out
    assert "1 of 5 pictures are left out: they look like screenshots or drawings" in written.out
    assert written.err.count("\n") == 1
    assert "damaged.jpg: not an image" in written.err


def test_deep_files_and_small_pictures_are_said(tmp_path: Path, measure: Measure) -> None:
    rng = np.random.default_rng(0)
    for seed in range(2):
        deep = (scene(seed) + rng.normal(0, 5, scene(seed).shape)).clip(0, 255) * 257
        cv2.imwrite(str(tmp_path / f"{seed}.png"), deep.astype(np.uint16))
    report = measure(tmp_path)
    assert noted(report, "2 of 2 photographs have 16 bits and are measured as 8")
    assert noted(report, "2 of 2 photographs were resized or cropped since they were taken")
    assert report.levels["gaussian_rgb"].value == pytest.approx(5, rel=0.1)


def test_the_colour_of_one_scene_is_no_white_balance(tmp_path: Path, measure: Measure) -> None:
    warm = [(picture * [0.95, 0.9, 0.6]).astype(np.uint8) for picture in photographs([1, 1, 1, 2, 3], with_noise(8))]
    noise = [np.random.default_rng(number).integers(0, 3, warm[0].shape, np.uint8) for number in range(len(warm))]
    shots = [picture + own for picture, own in zip(warm, noise, strict=True)]
    repeated, others = (measure(folder_of(tmp_path / name, own)) for name, own in (("a", shots[:3]), ("b", shots[2:])))
    assert repeated.levels["white_balance"].low is None
    assert noted(repeated, "white balance of one scene may be the colour of what it shows")
    assert others.levels["white_balance"].low is not None


def test_gray_photographs_have_no_white_balance(tmp_path: Path, measure: Measure) -> None:
    gray = [picture[..., 1] for picture in photographs(range(2), with_noise(6))]
    report = measure(folder_of(tmp_path, gray))
    assert noted(report, "white balance cannot be told: the photographs are gray")
    assert report.levels["gaussian_rgb"].value == pytest.approx(6, rel=0.1)
    assert [member.degradation for member in report.mix] == ["gaussian_intensity"]


def test_the_choice_of_many_is_said(folder: Path, measure: Measure) -> None:
    report = measure(folder, "--limit", 2)
    assert report.photographs == 2
    assert noted(report, "2 of 6 photographs were measured, evenly chosen: --limit takes more")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "no photographs are named"),
        (["/no/photos"], "there is no photograph or folder '/no/photos'"),
        (["{empty}"], "'{empty}' has no photographs: name a photograph"),
        (["{screens}"], "no photograph of 1 can be measured (1 look like screenshots"),
        (["{folder}", "--resize", "8"], "--resize is 8: it must be between 16 and 4096"),
        (["{folder}", "--resize", "224"], "6 are smaller than --resize 224"),
        (["{folder}", "--limit", "0"], "--limit is 0: it must be at least 1"),
        (["{folder}", "--only", "Leica"], "6 do not name 'Leica' as their camera"),
        (["{file}", "--repeated", "{empty}"], "has 0 photographs: it must have two at least"),
        (["{file}", "--repeated", "{broken}"], "--repeated: {broken}/b.jpg: not an image"),
        (["/" + "x" * 300], "there is no photograph or folder"),
        (["{file}", "--repeated", "{folder}"], "has no two shots of one scene and size"),
        (["{file}", "--json", "/no/folder/x.json"], "/no/folder/x.json cannot be written"),
    ],
)
def test_wrong_requests(words: list[str], sentence: str, folder: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "empty").mkdir()
    broken = folder_of(tmp_path / "broken", photographs([0]))
    (broken / "b.jpg").write_bytes(b"no image")
    folder_of(tmp_path / "screens", [np.full((90, 90, 3), 200, np.uint8)])
    names = {
        "folder": folder,
        "file": folder / "00.png",
        "empty": tmp_path / "empty",
        "screens": tmp_path / "screens",
        "broken": broken,
    }
    assert main([word.format(**names) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert sentence.format(**names) in error
    assert error.count("\n") == 1


DEGRADED = {
    "noise_2": (with_noise(2), "gaussian_rgb", 2.0),
    "noise_8": (with_noise(8), "gaussian_rgb", 8.0),
    "noise_16": (with_noise(16), "gaussian_rgb", 16.0),
    "pepper": (lambda p, rng: p * (rng.random(p.shape) >= 0.02), "pepper", 0.02),
    "pepper_pixel": (lambda p, rng: p * (rng.random((*p.shape[:2], 1)) >= 0.01), "pepper_pixel", 0.01),
    "blur": (lambda p, rng: cv2.GaussianBlur(p, (0, 0), 2.5), "blur", 2.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", DEGRADED)
@pytest.mark.parametrize("data", ["CUB_200_2011/images/*/*.jpg", "oxford-iiit-pet/images/*.jpg"])
def test_twenty_real_photographs_tell_what_was_done_to_them(
    change: str, data: str, data_root: Path, tmp_path: Path, measure: Measure
) -> None:
    degrade, name, level = DEGRADED[change]
    files = sorted(data_root.glob(data))
    rng = np.random.default_rng(0)
    pixels = [np.asarray(Image.open(file).convert("RGB")).astype(float) for file in files[:: len(files) // 20][:20]]
    degraded = [degrade(picture, rng).clip(0, 255).round().astype(np.uint8) for picture in pixels]
    report = measure(folder_of(tmp_path / "degraded", degraded, compress_level=1))
    found = {**report.measurements, **report.levels}[name]
    if name.startswith("pepper"):
        assert found.value == pytest.approx(level, abs=0.002)
    else:
        assert found.value == pytest.approx(level, rel=0.2 if name == "blur" else 0.15)
