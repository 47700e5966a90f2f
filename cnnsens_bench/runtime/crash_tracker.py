"""Finds the image that makes processes die: which images were begun and never ended.

A crash in a library or the system's out-of-memory killer leaves no exception behind.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from cnnsens_bench.utils.atomic import replacing

MAX_DEATHS = 3
"""After so many deaths of a process an image is set aside: the first among other images, the later ones alone."""

Key = tuple[str, str]
"""A scope and an image id."""


class CrashTracker:
    """Images that are being processed, and how many processes died while each was.

    A scope names a kind of work, because an image can be decoded and computed at the same time, for different networks.
    The state is plain values, so it can lie in an actor that workers share, or in a file (`FileCrashTracker`).

    Examples
    --------
    >>> tracker = CrashTracker()
    >>> tracker.begin("compute", ["a", "b"])  # the process dies here, and another one begins the same images
    [0, 0]
    >>> tracker.begin("compute", ["a", "b"])
    [1, 1]
    """

    retry_hint = "the same command tries it again"
    """How what was set aside can be tried again, for the end of a sentence."""

    def __init__(self) -> None:
        self.begun: dict[Key, int] = {}
        self.deaths: dict[Key, tuple[int, int]] = {}
        self.set_aside: set[str] = set()

    def begin(self, scope: str, ids: Sequence[str], alone: bool = False) -> list[int]:
        """Begin images and return how many deaths each may have caused, `MAX_DEATHS` at most.

        Parameters
        ----------
        scope
            The kind of work.
        ids
            The images. They count as begun, unless one may have caused a death and they are not `alone`.
        alone
            Whether the images are begun whatever they may have caused.
        """
        self._count_deaths((scope, image_id) for image_id in ids)
        deaths = [MAX_DEATHS if each in self.set_aside else self.deaths.get((scope, each), (0, 0))[0] for each in ids]
        if alone or not any(deaths):
            self.begun.update({(scope, image_id): 0 for image_id in ids})
        self._save()
        return deaths

    def advance(self, scope: str, image_id: str, position: int) -> None:
        """Note that an image which is computed alone has reached a position, counted upwards in the work's order."""
        self.begun[scope, image_id] = position
        self._save()

    def end(self, scope: str, ids: Sequence[str]) -> None:
        """End images: the process has survived them."""
        for image_id in ids:
            self.begun.pop((scope, image_id), None)
            self.deaths.pop((scope, image_id), None)
        self._save()

    def _count_deaths(self, keys: Iterable[Key]) -> None:
        """Count a death for those of the keys that were begun and have not ended."""
        for key in keys:
            if key in self.begun:
                position = self.begun.pop(key)
                deaths, died_at = self.deaths.get(key, (0, 0))
                if position > died_at:
                    # It got past the position of the last death, so that one was an accident, such as a node that was
                    # taken away. The first death, among other images, stays.
                    deaths = min(deaths, 1)
                self.deaths[key] = (deaths + 1, position)
                if deaths + 1 >= MAX_DEATHS:
                    self.set_aside.add(key[1])

    def _save(self) -> None:
        """Keep the state after a change; nothing to do where it lives as long as this object."""


class FileCrashTracker(CrashTracker):
    """A crash tracker in a file, for a process that may be killed itself.

    Parameters
    ----------
    path
        The file. One that a killed process left is read; its images that were begun count as deaths.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.retry_hint = path, f"to try it again, delete {path}"
        try:
            content = json.loads(path.read_text())
            self.begun = {(scope, image_id): position for scope, image_id, position in content["under_way"]}
            self.deaths = {(scope, image_id): (n, position) for scope, image_id, n, position in content["killed"]}
            self.set_aside = set(content["poisoned"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            self.begun, self.deaths, self.set_aside = {}, {}, set()  # there is none, or a crash cut it off
        self._count_deaths(list(self.begun))

    def close(self) -> None:
        """Forget the images that are begun, because the process ends on its own and none of them is to blame."""
        self.begun = {}
        if self.deaths or self.set_aside:
            self._save()
        else:
            self.path.unlink(missing_ok=True)

    def _save(self) -> None:
        content = {
            "under_way": [[*key, position] for key, position in self.begun.items()],
            "killed": [[*key, *value] for key, value in self.deaths.items()],
            "poisoned": sorted(self.set_aside),
        }
        # It is not flushed to the disk: the system still writes what a killed process has written. The temporary name
        # is always the same, so that a kill leaves at most one such file.
        with replacing(self.path, self.path.with_name(self.path.name + ".partial")) as partial:
            partial.write_text(json.dumps(content))
