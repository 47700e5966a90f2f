"""Images of many kinds in a user's folder are read as the same photograph, and the rest is counted."""

from pathlib import Path

import numpy as np
import pillow_heif  # noqa: F401  # `images` lets Pillow write HEIC with it
import pytest
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from cnnsens_bench.datasets import load
from cnnsens_bench.images import decode
from cnnsens_bench.utils.image_formats import photograph_endings

KINDS = {
    "jpg": ("JPEG", 12), "jfif": ("JPEG", 12), "png": ("PNG", 0), "gif": ("GIF", 40), "webp": ("WEBP", 30),
    "avif": ("AVIF", 20), "heic": ("HEIF", 20), "jp2": ("JPEG2000", 12), "tga": ("TGA", 0), "bmp": ("BMP", 0),
    "tiff": ("TIFF", 0), "qoi": ("QOI", 0), "ppm": ("PPM", 0),
}  # fmt: skip
"""For each ending its format, and how far pixels may be from the picture's."""


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    across, down = np.meshgrid(np.arange(48), np.arange(40))
    return Image.fromarray(np.stack([across * 5, down * 6, across + down], -1).astype(np.uint8))


@pytest.mark.parametrize("ending", KINDS)
def test_a_kind_is_read(ending: str, picture: Image.Image, tmp_path: Path) -> None:
    kind, far = KINDS[ending]
    (tmp_path / "cat").mkdir()
    picture.save(tmp_path / "cat" / f"1.{ending.upper()}", kind)
    [uri] = load("folder", tmp_path, None, {}).table["uri"]
    assert np.abs(decode(uri).pixels.astype(int) - np.asarray(picture)).max() <= far


@pytest.mark.parametrize("ending", ["gif", "webp", "apng", "tiff"])
def test_the_first_frame_of_several(ending: str, picture: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    black, path = Image.new("RGB", picture.size), tmp_path / "cat" / f"1.{ending}"
    options = {"lossless": True} if ending == "webp" else {}
    picture.save(path, "PNG" if ending == "apng" else None, save_all=True, append_images=[black], **options)
    [uri] = load("folder", tmp_path, None, {}).table["uri"]
    assert np.abs(decode(uri).pixels.astype(int) - np.asarray(picture)).max() <= 40


def test_documents_films_and_data_are_no_photographs() -> None:
    assert set(IMG_EXTENSIONS) < photograph_endings()
    no_photographs = {".pdf", ".eps", ".ps", ".mpo", ".psd", ".ico", ".cur", ".mpg", ".h5", ".fits", ".wmf", ".svg"}
    assert not no_photographs & photograph_endings()
