"""The same photographs as a folder, tar shards, Parquet files and arrays, for tests."""

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Sample = tuple[str, str, bytes]
"""The name of a class, an id, and an image file."""


def samples_below(folder: Path, side: int, most: int | None = None) -> list[Sample]:
    """Return the images of class folders, resized to a square and stored losslessly, in the order of their paths."""
    return [(path.parent.name, path.stem, resized(path, side)) for path in sorted(folder.glob("*/*"))[:most]]


def resized(path: Path, side: int) -> bytes:
    """Return an image as a PNG of a square."""
    content = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").resize((side, side)).save(content, "PNG", compress_level=1)
    return content.getvalue()


def as_folder(top: Path, samples: Sequence[Sample]) -> Path:
    for name, key, content in samples:
        (top / name).mkdir(parents=True, exist_ok=True)
        (top / name / f"{key}.png").write_bytes(content)
    return top


def tar(path: Path, members: Iterable[tuple[str, bytes]], form: int = tarfile.GNU_FORMAT, mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=form) as archive:  # type: ignore[call-overload]
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def as_shards(top: Path, samples: Sequence[Sample], count: int) -> Path:
    """Write shards whose keys are `<class>/<id>.png`'s paths, and whose labels are numbers in `.cls` files."""
    classes = sorted({name for name, _, _ in samples})
    for number, some in enumerate(np.array_split(np.arange(len(samples)), count)):
        members = []
        for i in some:
            name, key, content = samples[i]
            members += [(f"{name}/{key}.png", content), (f"{name}/{key}.cls", str(classes.index(name)).encode())]
        tar(top / f"shard-{number:06d}.tar", members)
    (top / "classnames.txt").write_text("\n".join(classes) + "\n")
    return top


def as_parquet(
    top: Path, samples: Sequence[Sample], count: int, rows: int = 5, paths: Sequence[str] | None = None
) -> Path:
    """Write files as Hugging Face does: a struct of bytes and path, and a label whose names are in the schema."""
    classes = sorted({name for name, _, _ in samples})
    feature = {"label": {"names": classes, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    metadata = {"huggingface": json.dumps({"info": {"features": feature}})}
    top.mkdir(parents=True, exist_ok=True)
    paths = paths or [f"{name}/{key}" for name, key, _ in samples]
    for number, some in enumerate(np.array_split(np.arange(len(samples)), count)):
        images = [{"bytes": samples[i][2], "path": paths[i]} for i in some]
        table = pa.table({"image": images, "label": [classes.index(samples[i][0]) for i in some]})
        file = top / f"test-{number:05d}-of-{count:05d}.parquet"
        pq.write_table(table.replace_schema_metadata(metadata), file, row_group_size=rows)
    return top


def as_arrays(top: Path, samples: Sequence[Sample]) -> Path:
    classes = sorted({name for name, _, _ in samples})
    top.mkdir(parents=True, exist_ok=True)
    pixels = [np.asarray(Image.open(io.BytesIO(content))) for _, _, content in samples]
    np.save(top / "images.npy", np.stack(pixels))
    np.save(top / "labels.npy", np.array([classes.index(name) for name, _, _ in samples]))
    (top / "classnames.txt").write_text("\n".join(classes))
    return top
