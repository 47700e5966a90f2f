"""Who is under way: how it is known that an image, and which, kills the process that computes it.

A crash in a library or the system's out-of-memory killer leaves no exception. What was begun and never ended tells.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

KILLS = 3
"""After so many an image is set aside: the first in company, the others alone."""

Key = tuple[str, str]


class CrashTracker:
    """Images that are under way, and how often each took its process with it.

    `scope` names the work (an image is decoded and computed at the same time for different networks). All state is
    plain, so that it can lie on a desk that workers share or in a file that survives (`FileCrashTracker`).
    """

    def __init__(self) -> None:
        self.under_way: dict[Key, int] = {}
        self.killed: dict[Key, tuple[int, int]] = {}
        self.poisoned: set[str] = set()

    def begin(self, scope: str, ids: Sequence[str], alone: bool = False) -> list[int]:
        """How many kills each image is under suspicion of, `KILLS` at most. They count as under way from now on,
        unless one is suspected and they are not `alone`."""
        self._settle((scope, image_id) for image_id in ids)
        kills = [
            KILLS if image_id in self.poisoned else self.killed.get((scope, image_id), (0, 0))[0] for image_id in ids
        ]
        if alone or not any(kills):
            self.under_way.update({(scope, image_id): 0 for image_id in ids})
        return kills

    def step(self, scope: str, image_id: str, place: int) -> None:
        """An image that is computed alone has reached a `place`, counted upwards in the order of the work."""
        self.under_way[scope, image_id] = place

    def end(self, scope: str, ids: Sequence[str]) -> None:
        """They survived."""
        for image_id in ids:
            self.under_way.pop((scope, image_id), None)
            self.killed.pop((scope, image_id), None)

    def _settle(self, keys: Iterable[Key]) -> None:
        """What was begun and not ended has died."""
        for key in keys:
            if key not in self.under_way:
                continue
            place = self.under_way.pop(key)
            kills, died_at = self.killed.get(key, (0, 0))
            if place > died_at:
                # It got past where it died before: that was a chance (a node that was taken away). The first stays.
                kills = min(kills, 1)
            self.killed[key] = (kills + 1, place)
            if kills + 1 >= KILLS:
                self.poisoned.add(key[1])


class FileCrashTracker(CrashTracker):
    """A ledger in a file, for a process that itself is killed. `close` forgets who was under way."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        try:
            content = json.loads(path.read_text())
            self.under_way = {(scope, image_id): place for scope, image_id, place in content["under_way"]}
            self.killed = {(scope, image_id): (n, place) for scope, image_id, n, place in content["killed"]}
            self.poisoned = set(content["poisoned"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            self.under_way, self.killed, self.poisoned = {}, {}, set()  # cut off by the crash: nothing is known
        self._settle(list(self.under_way))

    def begin(self, scope: str, ids: Sequence[str], alone: bool = False) -> list[int]:
        return self._kept(lambda: super(FileCrashTracker, self).begin(scope, ids, alone))

    def step(self, scope: str, image_id: str, place: int) -> None:
        self._kept(lambda: super(FileCrashTracker, self).step(scope, image_id, place))

    def end(self, scope: str, ids: Sequence[str]) -> None:
        self._kept(lambda: super(FileCrashTracker, self).end(scope, ids))

    def close(self) -> None:
        """The process ends of itself: nothing that is under way kills it."""
        self.under_way = {}
        if self.killed or self.poisoned:
            self._write()
        else:
            self.path.unlink(missing_ok=True)

    def _kept(self, change: Callable[[], Any]) -> Any:
        result = change()
        self._write()
        return result

    def _write(self) -> None:
        # Not flushed to the disk: what a killed process has written the system still writes.
        content = {
            "under_way": [[*key, place] for key, place in self.under_way.items()],
            "killed": [[*key, *value] for key, value in self.killed.items()],
            "poisoned": sorted(self.poisoned),
        }
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps(content))
        partial.replace(self.path)
