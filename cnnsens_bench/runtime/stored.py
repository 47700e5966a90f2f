"""The pre-made pictures of a task's images, as the engine asks for them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cnnsens_bench.images.stored import Decoded, StoredReader, StoredSet
from cnnsens_bench.utils.errors import ImageError

Failures = list[tuple[str, str, str]]
"""(image id, stage, sentence) of each failure."""


class StoredPictures:
    """Reads pre-made pictures by the ids of their images, and remembers which images have none.

    Parameters
    ----------
    stored
        The pre-made set.
    always
        The sample rows of images that are asked for beside those of any task.
    """

    def __init__(self, stored: StoredSet, always: Iterable[Mapping[str, Any]] = ()) -> None:
        self.reader = StoredReader(stored)
        self.always = {str(row["image_id"]): row for row in always}
        self.begin(())

    def begin(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Begin a task of these sample rows."""
        self.rows = {**self.always, **{str(row["image_id"]): row for row in rows}}
        self.found: set[str] = set()
        self.absent: dict[str, str] = {}

    def __call__(self, image_id: str, corruption: str, severity: int) -> Decoded | str:
        """Return the picture of an image, or the sentence that says why there is none. Raise `StorageError`."""
        row = self.rows[image_id]
        try:
            picture = self.reader.read(row, corruption, severity)
        except ImageError as error:
            self.found.add(image_id)
            return str(error)
        if picture is None:
            uris = self.reader.uris(row, corruption, severity)
            uri = uris[0] if uris else self.reader.stored.root
            self.absent.setdefault(image_id, uri)
            return f"{uri}: no such picture"
        self.found.add(image_id)
        return picture

    def summarize(self, failures: Failures) -> Failures:
        """Return the failures of a task, with one instead of many for each image that has no picture at all."""
        alone = {image_id: uri for image_id, uri in self.absent.items() if image_id not in self.found}
        kept = [failure for failure in failures if not (failure[0] in alone and failure[1] == "decode")]
        root = self.reader.stored.root
        return kept + [
            (image_id, "decode", f"{root} has no pre-made picture of it: the first that was looked for is {uri}")
            for image_id, uri in alone.items()
        ]
