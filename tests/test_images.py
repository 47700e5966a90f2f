"""Images: files of every kind, boxes of every kind, and the positions of views."""

import contextlib
import errno
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from cnnsens_bench import images
from cnnsens_bench.datasets import Samples
from cnnsens_bench.training.data import TrainingImages
from cnnsens_bench.utils import reading
from cnnsens_bench.utils.errors import ImageError, StorageError

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> str:
    image.save(path, **options)
    return str(path)


@pytest.mark.parametrize(
    ("mode", "name", "tolerance"),
    [
        ("RGB", "a.png", 0),
        ("L", "a.png", 0),
        ("CMYK", "a.tif", 1),
        ("P", "a.png", 0),
        ("1", "a.png", 0),
        ("LA", "a.png", 0),
    ],
)
def test_modes_become_rgb(tmp_path: Path, mode: str, name: str, tolerance: int) -> None:
    image = Image.fromarray(RGB).convert(mode)
    decoded = images.decode(save(tmp_path / name, image))
    assert decoded.pixels.shape == (40, 60, 3)
    assert decoded.pixels.dtype == np.uint8
    np.testing.assert_allclose(decoded.pixels.astype(int), np.asarray(image.convert("RGB")).astype(int), atol=tolerance)


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    red = Image.new("RGB", (32, 32), (220, 30, 40)).convert("CMYK")
    pixels = images.decode(save(tmp_path / "a.jpg", red, quality=95)).pixels
    np.testing.assert_allclose(pixels.reshape(-1, 3).mean(0), (220, 30, 40), atol=4)


def test_sixteen_bit_gray_is_scaled_not_cut(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 40 * 60).astype(np.uint16).reshape(40, 60)
    for name in ("a.png", "a.tif"):
        pixels = images.decode(save(tmp_path / name, Image.fromarray(values))).pixels
        np.testing.assert_allclose(pixels[..., 0], values / 257, atol=0.51)
        assert (pixels[..., 0] == pixels[..., 2]).all()


def test_alpha_is_laid_over_white(tmp_path: Path) -> None:
    layers = Image.new("RGBA", (20, 20), (200, 0, 0, 255))
    layers.paste((0, 0, 0, 0), (0, 0, 10, 20))
    for name, image in (("rgba.png", layers), ("palette.png", layers.quantize())):
        pixels = images.decode(save(tmp_path / name, image)).pixels
        np.testing.assert_allclose(pixels[:, :10].reshape(-1, 3).mean(0), 255, atol=1)
        np.testing.assert_allclose(pixels[:, 10:].reshape(-1, 3).mean(0), (200, 0, 0), atol=2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = np.zeros((30, 50, 3), np.uint8)
    picture[:10, :10] = 255  # the upper left corner of the upright picture
    turned = {
        1: picture, 2: picture[:, ::-1], 3: picture[::-1, ::-1], 4: picture[::-1],
        5: picture.swapaxes(0, 1), 6: np.rot90(picture), 7: np.rot90(picture, 2).swapaxes(0, 1),
        8: np.rot90(picture, -1),
    }[orientation]  # fmt: skip
    path = save(tmp_path / "a.png", Image.fromarray(np.ascontiguousarray(turned)), exif=exif)
    np.testing.assert_array_equal(images.decode(path).pixels, picture)


def test_damaged_files_say_so(tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(RGB).save(whole, "JPEG")
    files = {
        "truncated.jpg": whole.getvalue()[: len(whole.getvalue()) // 2],
        "empty.jpg": b"",
        "text.jpg": b"this is not an image\n" * 20,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=name):
            images.decode(str(tmp_path / name))
    with pytest.raises(ImageError, match="no such file"):
        images.decode(str(tmp_path / "missing.jpg"))
    with pytest.raises(ImageError, match="a folder, not an image"):
        images.decode(str(tmp_path))


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    def png_chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(b""))
        + png_chunk(b"IEND", b"")
    )
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(ImageError, match="bomb"):
        images.decode(str(tmp_path / "bomb.png"))


@given(
    data=st.binary(max_size=200),
    prefix=st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM"]),
)
@settings(max_examples=60, deadline=None)
def test_no_file_raises_anything_else(tmp_path_factory: pytest.TempPathFactory, data: bytes, prefix: bytes) -> None:
    path = tmp_path_factory.mktemp("wild") / "a.img"
    path.write_bytes(prefix + data)
    with contextlib.suppress(ImageError):
        images.decode(str(path))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (None, (0, 0, 60, 40)),
        ((float("nan"),) * 4, (0, 0, 60, 40)),
        ((10, 5, 20, 30), (10, 5, 20, 30)),
        ((-3, -2, 20, 30), (0, 0, 17, 28)),
        ((50, 30, 20.5, 11), (50, 30, 10, 10)),
    ],
)
def test_boxes_are_clipped(tmp_path: Path, box: images.Box | None, expected: images.Box) -> None:
    assert images.decode(save(tmp_path / "a.png", Image.fromarray(RGB)), box).box == pytest.approx(expected)


@pytest.mark.parametrize("box", [(5, 5, 0, 10), (5, 5, 10, 0), (5, 5, -4, 10), (60, 0, 10, 10), (-20, 0, 10, 10)])
def test_boxes_without_area_are_refused(tmp_path: Path, box: images.Box) -> None:
    with pytest.raises(ImageError, match="no area"):
        images.decode(save(tmp_path / "a.png", Image.fromarray(RGB)), box)


def smooth(height: int = 90, width: int = 120) -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=(height, width, 3))
    blurred = ndimage.gaussian_filter(noise, (4, 4, 0))
    return np.clip(128 + 60 * blurred / blurred.std(), 0, 255).astype(np.uint8)


def whole(pixels: np.ndarray, box: images.Box) -> images.Decoded:
    return images.Decoded(pixels, 0, 0, pixels.shape[1], pixels.shape[0], box)


def test_the_unmoved_view_is_the_resized_crop() -> None:
    picture = whole(smooth(), (30, 20, 50, 40))
    expected = np.asarray(Image.fromarray(picture.pixels[20:60, 30:80]).resize((64, 64), Image.Resampling.BICUBIC))
    inner = (slice(8, -8), slice(8, -8))  # at the border of a crop the neighbours are missing that the full image has
    assert np.abs(images.render(picture, 64)[inner].astype(int) - expected[inner]).max() <= 1


def test_a_shift_by_whole_pixels_is_a_slice() -> None:
    """In the scale of the image, a box that is moved by k pixels is a crop k pixels further."""
    pixels = smooth()
    picture = whole(pixels, (30, 20, 40, 40))
    for dx, dy in [(7, 0), (0, -9), (-5, 11)]:
        np.testing.assert_array_equal(images.render(picture, 40, dx, dy), pixels[20 + dy : 60 + dy, 30 + dx : 70 + dx])


@pytest.mark.parametrize(("dx", "dy"), [(0.5, 0.0), (-3.3, 2.7), (6.25, -8.6)])
def test_a_sub_pixel_shift_lands_where_it_should(dx: float, dy: float) -> None:
    """The centre of a blob moves by (−dx, −dy) pixels of the view, to 0.1 px, for boxes of every scale."""
    rows, columns = np.mgrid[:200, :300]
    blob = 20 + 200 * np.exp(-(((columns - 150) / 9) ** 2 + ((rows - 95) / 7) ** 2))
    pixels = np.repeat(blob[..., None], 3, 2).round().astype(np.uint8)
    for box in [(95, 45, 110, 100), (60, 20, 180, 150), (5, 3, 290, 190)]:
        picture = whole(pixels, box)
        still, moved = (
            ndimage.center_of_mass(np.clip(images.render(picture, 64, *shift)[..., 0].astype(float) - 40, 0, None))
            for shift in ((0.0, 0.0), (dx, dy))
        )
        assert moved[1] - still[1] == pytest.approx(-dx, abs=0.1)
        assert moved[0] - still[0] == pytest.approx(-dy, abs=0.1)


def test_edges_repeat_outside_the_full_image_only() -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, 0], pixels[:, 1:] = 200, 50
    picture = whole(pixels, (0, 0, 40, 40))
    assert (images.render(picture, 40, dx=-10)[:, :10] == 200).all()
    assert (images.render(picture, 40, dx=-10)[:, 13:] == 50).all()
    assert (images.render(picture, 40, dx=500) == 50).all()
    assert (images.render(picture, 40, dx=-500, dy=700) == 200).all()


@given(
    box=st.tuples(st.floats(-20, 100), st.floats(-20, 80), st.floats(0.6, 150), st.floats(0.6, 120)),
    shift=st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
    size=st.sampled_from([16, 64]),
)
@settings(max_examples=60, deadline=None)
def test_what_is_kept_is_enough(
    tmp_path_factory: pytest.TempPathFactory, box: images.Box, shift: tuple[float, float], size: int
) -> None:
    """A view within the reach is equal whether it comes from the kept part or from the full image."""
    path = tmp_path_factory.getbasetemp() / "smooth.png"
    if not path.exists():
        Image.fromarray(smooth()).save(path)
    try:
        full = images.decode(str(path), box)
    except ImageError:
        return
    reach = max(abs(shift[0]), abs(shift[1])) / size
    part = images.decode(str(path), box, reach)
    assert part.pixels.size <= full.pixels.size
    np.testing.assert_array_equal(images.render(part, size, *shift), images.render(full, size, *shift))


def test_rows_and_back() -> None:
    picture = images.Decoded(RGB, 3, 4, 100, 200, (5.0, 6.0, 20.5, 30.25))
    again = images.from_row(images.to_row(picture))
    np.testing.assert_array_equal(again.pixels, RGB)
    assert again.box == picture.box
    assert (again.left, again.top, again.width, again.height) == (3, 4, 100, 200)


def test_masks_are_cut_as_boxes_are(tmp_path: Path) -> None:
    mask = np.zeros((90, 120), np.uint8)
    mask[30:50, 40:60] = 255
    path = save(tmp_path / "mask.png", Image.fromarray(mask))
    picture = whole(smooth(), (35.5, 25.0, 30.0, 30.0))
    cut = images.decode_mask(path, picture, (128, 255))
    assert cut.shape == images.box_pixels(picture).shape[:2]
    assert cut.sum() == 400
    with pytest.raises(ImageError, match="size"):
        images.decode_mask(save(tmp_path / "small.png", Image.new("L", (5, 5))), picture, (128, 255))


def test_every_official_box_of_the_real_data_decodes(data_root: Path) -> None:
    from cnnsens_bench.datasets import load

    table = load("cub200", None, data_root, {}).table
    wide = table[table["image_id"].isin(table["image_id"].sample(20, random_state=0))]
    for row in wide.itertuples():
        decoded = images.decode(row.uri, (row.box_x, row.box_y, row.box_w, row.box_h), 0.3)
        assert images.render(decoded, 64, 3.0, -5.0).shape == (64, 64, 3)


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    with pytest.raises(ImageError, match="neither a file nor a folder"):
        images.decode(str(pipe))


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> list[OSError]:
    """Return a list of errors, which the next readings of files raise."""
    coming: list[OSError] = []

    def read(uri: str) -> bytes:
        if coming:
            raise coming.pop(0)
        return Path(uri).read_bytes()

    monkeypatch.setattr(reading, "_read", read)
    monkeypatch.setattr(reading, "WAITS", (0.0, 0.0, 0.0))
    return coming


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN])
def test_storage_that_does_not_answer_is_tried_again(number: int, tmp_path: Path, outage: list[OSError]) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(RGB))
    outage += [OSError(number, "it is gone")] * 3
    assert np.array_equal(images.decode(path).pixels, RGB)
    picture = images.decode(path)
    for read in (images.decode, lambda uri: images.decode_mask(uri, picture, (0, 255))):
        outage += [OSError(number, "it is gone")] * 4
        with pytest.raises(StorageError) as caught:
            read(path)
        assert str(caught.value) == f"{path} cannot be read now (it is gone)"
        assert not outage


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EISDIR, errno.EACCES, errno.ENAMETOOLONG, errno.ENOTDIR])
def test_a_files_own_fault_is_the_images(number: int, tmp_path: Path, outage: list[OSError]) -> None:
    outage.append(OSError(number, "its own"))
    with pytest.raises(ImageError):
        images.decode(save(tmp_path / "a.png", Image.fromarray(RGB)))
    assert not outage


def test_training_images_wait_for_storage_too(samples: Samples, tmp_path: Path, outage: list[OSError]) -> None:
    table = samples.table.head(3)
    outage.append(OSError(errno.EIO, "it is gone"))
    found = TrainingImages(table, 16, tmp_path)
    assert not found.failures
    found.close()
    outage += [OSError(errno.EIO, "it is gone")] * 12
    with pytest.raises(StorageError):
        TrainingImages(table, 16, tmp_path)
