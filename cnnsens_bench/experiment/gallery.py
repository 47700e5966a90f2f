"""Makes the gallery of a leaderboard's page: each entrant's most and least fragile images, and what labels become.

The pictures are made again from the recorded config of the run: its seed, its protocol and the images of this machine.
"""

import json
import re
import tempfile
from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from cnnsens_bench.datasets import Samples
from cnnsens_bench.datasets.base import datasets
from cnnsens_bench.engine.sweep import NONE
from cnnsens_bench.experiment.gallery_content import (
    affected_classes,
    choose_images,
    label_transitions,
    mildest_changes,
    shown_images,
)
from cnnsens_bench.experiment.gallery_pictures import PictureFolder, picture_keys
from cnnsens_bench.experiment.prepare import load_samples
from cnnsens_bench.experiment.recompute import resolve_again
from cnnsens_bench.experiment.recorded_config import given_keys, recorded_config, recorded_entry
from cnnsens_bench.store import Store, database_file, local_copy
from cnnsens_bench.store.read import results
from cnnsens_bench.store.schema import SQL
from cnnsens_bench.utils.atomic import write_atomically
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import plain
from cnnsens_bench.utils.plugins import load_plugins
from cnnsens_bench.utils.progress import say
from cnnsens_bench.utils.registry import near
from cnnsens_bench.utils.storage import storage_path

FORMAT = "cnnsens_bench pictures"
FORMAT_VERSION = 1
SCRIPT = "gallery.js"
PICTURE = re.compile(r"[0-9a-f]{16}\.jpg")
"""The names of the pictures that a gallery has."""
SIDES = (32, 512)
MOST_IMAGES = 100
ENTRANT = ("protocol", "dataset", "model", "defense")


@dataclass(frozen=True)
class GalleryRequest:
    """What a gallery shows, and where it goes.

    Attributes
    ----------
    databases
        Databases, or the outputs of runs.
    out
        The folder of the gallery.
    count
        How many of the most and of the least fragile images are shown of each entrant.
    side
        The side of a picture in pixels.
    allow
        Data sets whose images may be shown, beside those that anybody may publish.
    given, trust
        As in `VerifyRequest`.
    """

    databases: tuple[str, ...]
    out: Path
    count: int = 6
    side: int = 96
    allow: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    trust: bool = False


def make_gallery(request: GalleryRequest, console: Console) -> int:
    """Write the pictures and the script file of a gallery, and return how many entrants are not shown whole.

    Entrants on data sets whose images may not be shown do not count.

    Parameters
    ----------
    request
        What the gallery shows.
    console
        Where a person reads what is left out, and why.

    Raises
    ------
    UserError
        Where there are no such results, no data set may be shown, or the folder cannot be written.
    """
    given = given_keys(request.given)
    for name, value, low, high in (("images", request.count, 1, MOST_IMAGES), ("side", request.side, *SIDES)):
        if not low <= value <= high:
            raise UserError(f"--{name} is {value}: it must be between {low} and {high}")
    with ExitStack() as stack:
        paths = [storage_path(text) for text in dict.fromkeys(request.databases)]
        stores = [results(stack.enter_context(local_copy(database_file(path)))) for path in paths]
        tables = [_entrants(store, request.allow) for store in stores]
        _say_not_allowed(pd.concat(tables), request.allow, console)
        try:
            request.out.mkdir(parents=True, exist_ok=True)
            folder = PictureFolder(request.out, request.side)
            makers = [_GalleryMaker(store, folder, request.count, given, request.trust, console) for store in stores]
            for maker, table in zip(makers, tables, strict=True):
                maker.add(table[table["allowed"]])
            entrants = [one for maker in makers for one in maker.entrants]
            if entrants:
                _write(entrants, folder)
        except OSError as error:
            raise UserError(f"{request.out} cannot be written ({error.strerror}): choose another --out") from None
    file = request.out / SCRIPT
    if entrants:
        plural = "" if len(entrants) == 1 else "s"
        say(console, f"{file}: {len(folder.names)} pictures of {len(entrants)} entrant{plural}")
    else:
        say(console, f"no entrant can be shown: {file} is not written")
    return sum(maker.incomplete for maker in makers)


def _entrants(store: Store, allow: Sequence[str]) -> pd.DataFrame:
    """Return the entrants of a database with the configs of their runs, and whether their images may be shown."""
    table = store.query(SQL["gallery_entrants"]).merge(store.query(SQL["run_configs"]), on="run_id")
    if table.empty:
        raise UserError(f"{store.path} has no predictions yet: a run brings them, cnnsens_bench.run")
    free = [_is_shareable(config) for config in table["config"]]
    return table.assign(allowed=table["dataset"].isin(allow) | np.array(free, bool))


def _is_shareable(config: str | None) -> bool:
    """Return whether anybody may publish the images of the data set that a recorded config names."""
    source = str((json.loads(config or "{}").get("dataset") or {}).get("name"))
    return source in datasets and datasets[source].shareable


def _say_not_allowed(entrants: pd.DataFrame, allow: Sequence[str], console: Console) -> None:
    """Name the data sets that are left out. Raise `UserError` where all are, or `allow` names one that is not there."""
    known = sorted(entrants["dataset"].unique())
    if unknown := [name for name in allow if name not in known]:
        raise UserError(f"--allow names '{unknown[0]}', which the results do not have{near(unknown[0], known)}")
    barred = sorted(set(known) - set(entrants.loc[entrants["allowed"], "dataset"]))
    if not barred:
        return
    sentence = (
        f"the images of {', '.join(map(plain, barred))} may have a licence that forbids showing them: where it allows "
        f"it, say --allow {plain(barred[0])}"
    )
    if len(barred) == len(known):
        raise UserError(sentence)
    say(console, f"left out: {sentence}")


class _GalleryMaker:
    """Collects what a gallery has of the entrants of one database, and writes their pictures."""

    def __init__(
        self, store: Store, folder: PictureFolder, count: int, given: dict[str, str], trust: bool, console: Console
    ) -> None:
        self.store, self.folder, self.count = store, folder, count
        self.given, self.trust, self.console = given, trust, console
        self.entrants: list[dict[str, Any]] = []
        self.incomplete = 0

    def add(self, table: pd.DataFrame) -> None:
        """Add entrants, the networks of a run one after the other."""
        for _, of_run in table.groupby(["run_id", "protocol", "dataset"], sort=False):
            samples: Samples | None = None
            for model, own in of_run.groupby("model", sort=False):
                try:
                    config = recorded_config(own["config"].iloc[0], self.given, self.trust)
                    load_plugins(config.plugins)
                    samples = samples or load_samples(config.dataset, config.data_root)
                    entry = recorded_entry(config, str(model), self.trust)
                    self._add_network(config, entry, own, samples)
                except UserError as error:
                    self.incomplete += len(own)
                    say(self.console, plain(f"{model} on {own['dataset'].iloc[0]}: left out ({error})"))

    def _add_network(self, config: Any, entry: Any, own: pd.DataFrame, samples: Samples) -> None:
        """Add a network with its defenses."""
        chosen = [self._choose(row) for row in own.to_dict("records")]
        if all(images.empty for images, *_ in chosen):
            raise UserError("its results have no image that is there undegraded and degraded")
        every = pd.concat([images.assign(degradation=NONE, level=0.0, trial=0) for images, *_ in chosen])
        changes = pd.concat([changes for _, changes, _ in chosen])
        rows = pd.concat([every, changes])[["image_id", "degradation", "level", "trial"]]
        rows = rows.assign(protocol=own["protocol"].iloc[0], defense=own["defense"].iloc[0])
        with tempfile.TemporaryDirectory() as temporary:
            study = resolve_again(config, entry, rows, samples, Path(temporary))
        keys = dict.fromkeys(picture_keys(every["image_id"], changes))
        names, failures = self.folder.add(study, keys)
        if failures:
            self.incomplete += len(own)
            model = own["model"].iloc[0]
            say(self.console, plain(f"{model}: {len(keys) - len(names)} pictures are not made ({failures[0]})"))
        for row, (images, own_changes, fragility) in zip(own.to_dict("records"), chosen, strict=True):
            self.entrants.append(
                {key: row[key] for key in ENTRANT}
                | {"weights": row["weights_sha256"] if isinstance(row["weights_sha256"], str) else None}
                | shown_images(images, own_changes, names, samples.classes)
                | affected_classes(fragility, samples.classes)
                | {"becomes": label_transitions(self._query("label_transitions", row), samples.classes)}
            )

    def _choose(self, row: dict[Hashable, Any]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Return the most and least fragile images of an entrant, cells that change their labels, and all images."""
        fragility = self._query("image_fragility", row)
        ends = choose_images(fragility, self.count)
        return ends, mildest_changes(self._query("changed_cells", row, ends["image_id"].tolist())), fragility

    def _query(self, statement: str, row: dict[Hashable, Any], *more: Any) -> pd.DataFrame:
        """Return the answer of a statement about an entrant."""
        return self.store.query(SQL[statement], [*(row[key] for key in ENTRANT), *more])


def _write(entrants: list[dict[str, Any]], folder: PictureFolder) -> None:
    """Write the script file, and remove the pictures of an earlier gallery that this one does not have."""
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "side": folder.side,
        "entrants": entrants,
    }
    # In ASCII, every name is a valid part of a script.
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    write_atomically(folder.folder / SCRIPT, f"receivePictures({text});\n")
    for file in folder.folder.iterdir():
        if PICTURE.fullmatch(file.name) and file.name not in folder.names:
            file.unlink()
