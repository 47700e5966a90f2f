"""What the command `camera` does: photographs are read, measured and summed up."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from rich.console import Console

from cnnsens_bench import images
from cnnsens_bench.camera.defects import DefectFinder
from cnnsens_bench.camera.noise import NoiseFigures
from cnnsens_bench.camera.photograph import PhotographFigures, measure_pair, measure_photograph
from cnnsens_bench.camera.report import CameraReport
from cnnsens_bench.camera.shots import repeated_pairs, same_scene, thumbnail
from cnnsens_bench.camera.summary import summarise
from cnnsens_bench.figures.camera_table import print_camera
from cnnsens_bench.images.file_facts import FileFacts, file_facts
from cnnsens_bench.utils.atomic import write_atomically
from cnnsens_bench.utils.errors import ImageError, StorageError, UserError, first_line
from cnnsens_bench.utils.formatting import plain
from cnnsens_bench.utils.image_formats import photograph_endings
from cnnsens_bench.utils.progress import say, stage_progress
from cnnsens_bench.utils.reading import read_patiently
from cnnsens_bench.utils.storage import is_local, names_below, storage_path

FEW = 20
"""Up to so many photographs are measured without showing progress."""
SMALL = 1600
"""The longer side in pixels below which a picture is smaller than cameras take."""
STDOUT = "-"
DRAWN = "look like screenshots or drawings: large parts of them have no noise at all"
"""Why a picture is left out that is no photograph."""


@dataclass(frozen=True)
class CameraRequest:
    """What is asked about a camera.

    `photographs` are files and folders, `repeated` is a folder of shots of one scene. `resize` is the side of the
    network's input that photographs are resized to. `json` is the file to write, `-` for standard output. `only`
    chooses photographs by a part of their camera's model. At most `limit` photographs are measured.
    """

    photographs: Sequence[str]
    repeated: str | None = None
    resize: int | None = None
    json: str | None = None
    name: str | None = None
    only: str | None = None
    limit: int = 200


def measure_camera(request: CameraRequest, console: Console, error_console: Console) -> int:
    """Measure what is asked for and print it, with progress and errors on `error_console`.

    Returns
    -------
    int
        The number of photographs that could not be read.

    Raises
    ------
    UserError
        For a request that cannot be met.
    """
    if request.resize is not None and not 16 <= request.resize <= 4096:
        raise UserError(f"--resize is {request.resize}: it must be between 16 and 4096 pixels")
    if request.limit < 1:
        raise UserError(f"--limit is {request.limit}: it must be at least 1")
    given = list(request.photographs) or [request.repeated or ""]
    report, failed = camera_report(request, given, error_console)
    if request.json == STDOUT:
        console.file.write(report.json_text())
    else:
        print_camera(console, report)
        if request.json:
            _write(Path(request.json).expanduser(), report)
            path = plain(request.json)
            usage = f" (python -m cnnsens_bench.run degradations=camera:{path} degrades as this camera does)"
            say(console, f"written: {path}" + (usage if report.mix else ""))
    say(error_console, *(f"error: {plain(sentence)}" for sentence in failed))
    return len(failed)


def camera_report(
    request: CameraRequest, given: Sequence[str], error_console: Console
) -> tuple[CameraReport, list[str]]:
    """Return what was measured of the files and folders `given`, and why some photographs could not be read."""
    uris, notes = _chosen(given, request.limit)
    defects, kept, failed = DefectFinder(), _Kept(), []
    left_out: Counter[str] = Counter()
    seen: set[bytes] = set()
    stage = stage_progress(error_console, "measure", len(uris), "photographs")
    with stage if len(uris) > FEW else nullcontext() as progress:
        for uri in uris:
            try:
                image, facts, digest = _read(uri)
            except ImageError as error:
                failed.append(str(error))
                continue
            finally:
                if progress:
                    progress.advance()
            reason = _unwanted(image, facts, request, digest in seen)
            seen.add(digest)
            if reason:
                left_out[reason] += 1
                continue
            figures = measure_photograph(image, facts, request.resize)
            if figures.is_drawn:
                left_out[DRAWN] += 1
                continue
            if not any(_repeats(figures, other) for other in kept.figures):
                defects.add(image.pixels, figures.layout)
            kept.uris.append(uri)
            kept.figures.append(figures)
    notes += [f"{count} of {len(uris)} pictures are left out: they {reason}" for reason, count in left_out.items()]
    if not kept.figures:
        reasons = "; ".join([*failed[:1], *(f"{count} {reason}" for reason, count in left_out.items())])
        raise UserError(
            f"no photograph of {len(uris)} can be measured ({plain(reasons)}): name photographs of a camera"
        )
    notes += _warnings(kept.figures)
    pairs = _pairs(request, kept, notes)
    name = request.name or Path(given[0]).name or "camera"
    return summarise(kept.figures, pairs, defects, name, request.resize, notes), failed


def _repeats(photograph: PhotographFigures, other: PhotographFigures) -> bool:
    """Return whether both show one scene, whose small dark and bright spots could be taken for defective pixels."""
    return photograph.layout == other.layout and same_scene(photograph.thumbnail, other.thumbnail)


@dataclass
class _Kept:
    """The photographs that were measured, and where they lie."""

    uris: list[str] = field(default_factory=list)
    figures: list[PhotographFigures] = field(default_factory=list)


def _chosen(given: Sequence[str], limit: int) -> tuple[list[str], list[str]]:
    """Return the photographs in files and folders, at most so many, and what is to be said about the choice."""
    uris: list[str] = []
    for text in given:
        found = _photographs_in(text)
        if not found:
            raise UserError(f"'{plain(text)}' has no photographs: name a photograph, or a folder that has some")
        uris += found
    uris = list(dict.fromkeys(uris))
    if len(uris) <= limit:
        return uris, []
    step = len(uris) / limit
    chosen = [uris[int(step * index)] for index in range(limit)]
    return chosen, [f"{limit} of {len(uris)} photographs were measured, evenly chosen: --limit takes more"]


def _photographs_in(text: str) -> list[str]:
    """Return the paths or URIs of a folder's photographs, without hidden ones, or of one photograph."""
    folder = storage_path(text)
    if is_local(folder):
        if not os.path.exists(folder):
            raise UserError(f"there is no photograph or folder '{plain(text)}'")
        if not folder.is_dir():
            return [text]
    elif folder.suffix.lower() in photograph_endings():
        return [text]
    names = (name for name in names_below(folder) if not any(part.startswith(".") for part in name.split("/")))
    return [str(folder / name) for name in names if Path(name).suffix.lower() in photograph_endings()]


def _read(uri: str) -> tuple[images.Decoded, FileFacts, bytes]:
    """Return a photograph, what its file says, and a digest of the file."""
    try:
        content = read_patiently(uri)
    except (OSError, ValueError) as error:
        if isinstance(error, StorageError):
            raise
        raise ImageError(f"{uri}: cannot be read ({first_line(error)})") from None
    facts = file_facts(uri, content)
    return images.decode(uri, read=lambda: content), facts, hashlib.blake2b(content).digest()


def _unwanted(image: images.Decoded, facts: FileFacts, request: CameraRequest, is_copy: bool) -> str | None:
    """Return why a picture is left out: the end of a sentence about several; None for one that is measured."""
    if is_copy:
        return "are copies of others"
    if request.only and request.only.lower() not in (facts.camera or "").lower():
        return f"do not name '{request.only}' as their camera"
    if request.resize and min(image.width, image.height) < request.resize:
        return f"are smaller than --resize {request.resize}"
    return None


def _warnings(figures: Sequence[PhotographFigures]) -> list[str]:
    """Return what a user should know about these photographs."""
    facts = [photograph.facts for photograph in figures]
    found = []
    cameras = Counter(fact.camera for fact in facts)
    if len(cameras) > 1:
        are = "are" if len(cameras) - (None in cameras) > 1 else "may be"
        named = ", ".join(
            f"{count} of {plain(camera or 'a camera that is not named')}" for camera, count in cameras.most_common(4)
        )
        found.append(f"the photographs {are} of several cameras ({named}): --only MODEL measures one of them")
    resized = sum(fact.stated_size not in (None, fact.size, fact.size[::-1]) for fact in facts)
    small = sum(max(fact.size) < SMALL for fact in facts)
    if resized or small:
        found.append(
            f"{max(resized, small)} of {len(facts)} photographs were resized or cropped since they were taken: noise "
            "and blur are those of these pictures, not the sensor's"
        )
    deep = sum(fact.bits > 8 for fact in facts)
    if deep:
        found.append(
            f"{deep} of {len(facts)} photographs have 16 bits and are measured as 8 bits, as networks see them"
        )
    return found


def _pairs(request: CameraRequest, kept: _Kept, notes: list[str]) -> list[NoiseFigures]:
    """Return the noise of pairs of shots of one scene, in the folder `repeated` or else among the photographs."""
    if request.repeated is None:
        layouts = [photograph.layout for photograph in kept.figures]
        indices = repeated_pairs([photograph.thumbnail for photograph in kept.figures], layouts)
        pairs = [(_read(kept.uris[i])[0], _read(kept.uris[j])[0]) for i, j in indices]
        return [noise for pair in pairs if (noise := measure_pair(*pair, request.resize))]
    uris = _photographs_in(request.repeated)
    if len(uris) < 2:
        raise UserError(f"--repeated {plain(request.repeated)} has {len(uris)} photographs: it must have two at least")
    found, moved = [], 0
    for first, second in pairwise(map(_shot, uris)):
        if first.pixels.shape == second.pixels.shape and same_scene(*map(thumbnail, (first.pixels, second.pixels))):
            noise = measure_pair(first, second, request.resize)
            found += [noise] if noise else []
        else:
            moved += 1
    if moved:
        notes.append(f"{moved} of {len(uris) - 1} pairs of --repeated show different scenes, and are left out")
    if not found:
        raise UserError(
            f"--repeated {plain(request.repeated)} has no two shots of one scene and size: take them from a tripod"
        )
    return found


def _shot(uri: str) -> images.Decoded:
    """Return a photograph of the folder `--repeated`. Raise `UserError` where it cannot be read."""
    try:
        return _read(uri)[0]
    except ImageError as error:
        raise UserError(f"--repeated: {plain(str(error))}: take it out of the folder") from None


def _write(path: Path, report: CameraReport) -> None:
    try:
        write_atomically(path, report.json_text())
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): give --json another file") from None
