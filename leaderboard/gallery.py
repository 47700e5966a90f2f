"""Takes up the gallery that `cnnsens-bench pictures` has made: its script file, and the pictures that this names."""

import json
import shutil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from cnnsens_bench.utils.atomic import replacing, write_atomically
from cnnsens_bench.utils.errors import UserError, first_line

FOLDER = "pictures"
"""The folder of a gallery beside the page."""
SCRIPT = "gallery.js"
BEGIN, END = "receivePictures(", ");"
"""What stands around the JSON of the script file."""

Picture = Annotated[str, Field(pattern=r"^[0-9a-f]{16}\.jpg$")]
"""The name of a file beside the script, which cannot lead elsewhere."""
Share = Annotated[float, Field(ge=0, le=1)]


class DegradedPicture(BaseModel):
    """An image in a cell that changed its label, and the label that it got."""

    degradation: str
    level: float
    text: str
    trial: int
    after: str
    right: bool
    picture: Picture | None


class GalleryImage(BaseModel):
    """An image with its class, the label that the undegraded image got, and what became of it."""

    image_id: str
    class_name: str
    before: str
    right: bool
    share: Share
    cells: int
    changes: int
    picture: Picture | None
    degraded: list[DegradedPicture]


class AffectedClass(BaseModel):
    """A class, and the mean share of changed labels of its images."""

    class_name: str
    share: Share
    images: int


class LabelTransition(BaseModel):
    """A label of undegraded images and another one that it became: how often, and as a share of all changes."""

    before: str
    after: str
    cells: int
    images: int
    share: Share


class GalleryEntrant(BaseModel):
    """What the gallery has of an entrant."""

    protocol: str
    dataset: str
    model: str
    defense: str
    weights: str | None
    most: list[GalleryImage]
    least: list[GalleryImage]
    least_classes: list[AffectedClass]
    most_classes: list[AffectedClass]
    becomes: list[LabelTransition]


class Gallery(BaseModel):
    """The content of the script file of `cnnsens-bench pictures`."""

    format: Literal["cnnsens_bench pictures"]
    format_version: Literal[1]
    created: str
    side: int
    entrants: list[GalleryEntrant]

    def pictures(self) -> set[str]:
        """Return the names of all pictures."""
        shown = [image for one in self.entrants for image in (*one.most, *one.least)]
        every = [image.picture for image in shown] + [cell.picture for image in shown for cell in image.degraded]
        return {name for name in every if name}


def take_up_gallery(given: Path | None, out: Path) -> str | None:
    """Check a gallery, and copy it beside a page where it lies elsewhere.

    Parameters
    ----------
    given
        The folder of the gallery; None for the one beside the page, if there is one.
    out
        The folder of the page.

    Returns
    -------
    str or None
        The folder as the page names it, or None where there is no gallery.

    Raises
    ------
    UserError
        Where the given folder has no gallery, or the gallery is damaged or lacks pictures.
    """
    beside = out / FOLDER
    folder = given or beside
    if given is None and not (beside / SCRIPT).is_file():
        return None
    gallery = _read(folder / SCRIPT)
    lacking = sorted(name for name in gallery.pictures() if not (folder / name).is_file())
    if lacking:
        raise UserError(
            f"{folder} lacks {len(lacking)} of its pictures, such as {lacking[0]}: make it again with cnnsens-bench "
            f"pictures --out {folder}"
        )
    if folder.resolve() != beside.resolve():
        beside.mkdir(parents=True, exist_ok=True)
        for name in gallery.pictures():
            with replacing(beside / name) as partial:
                shutil.copyfile(folder / name, partial)
        write_atomically(beside / SCRIPT, f"{BEGIN}{json.dumps(gallery.model_dump(), separators=(',', ':'))}{END}\n")
    return FOLDER


def _read(file: Path) -> Gallery:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{file.parent} has no gallery: cnnsens-bench pictures --out {file.parent} makes one") from None
    try:
        if not (text.startswith(BEGIN) and text.endswith(END)):
            raise ValueError("it is no call of receivePictures")
        return Gallery.model_validate(json.loads(text[len(BEGIN) : -len(END)]))
    except ValidationError as error:
        fault = error.errors()[0]
        reason = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    except (ValueError, RecursionError) as error:
        reason = first_line(error)
    raise UserError(f"{file} is not what cnnsens-bench pictures writes ({reason}): make it again")
