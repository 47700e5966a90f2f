"""What a gallery says of an entrant: which images it shows, which classes are affected, and what labels become."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cnnsens_bench.engine.sweep import NONE
from cnnsens_bench.experiment.gallery_pictures import PictureKey, picture_keys
from cnnsens_bench.measures.failure_points import is_falling
from cnnsens_bench.utils.formatting import level_text

MOST_CHANGES = 3
"""The largest number of degraded pictures of an image."""
CLASSES = 8
"""The number of classes that are listed as least affected, and as most affected."""
TRANSITIONS = 12
"""The number of pairs of labels that are listed."""


def choose_images(fragility: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the most fragile images, then the least fragile ones, no image in both.

    Images that are equally fragile come in the order of their ids among the most fragile. Among the least fragile,
    those come first of whose labels the network is more certain when they are degraded.

    Parameters
    ----------
    fragility
        A row for each image: image_id, share, confidence.
    count
        The largest number of images of either end.

    Returns
    -------
    pandas.DataFrame
        The chosen rows with the column `end`, "most" or "least".

    Examples
    --------
    >>> images = pd.DataFrame({"image_id": ["a", "b", "c"], "share": [0.0, 0.5, 0.0], "confidence": [0.6, 0.9, 0.8]})
    >>> choose_images(images, 1)[["image_id", "end"]].to_numpy().tolist()
    [['b', 'most'], ['c', 'least']]
    """
    most = fragility[fragility["share"] > 0].sort_values(["share", "image_id"], ascending=[False, True])
    most = most.head(min(count, (len(fragility) + 1) // 2))
    rest = fragility[~fragility["image_id"].isin(most["image_id"])]
    least = rest.sort_values(["share", "confidence", "image_id"], ascending=[True, False, True]).head(count)
    return pd.concat([most.assign(end="most"), least.assign(end="least")], ignore_index=True)


def mildest_changes(cells: pd.DataFrame) -> pd.DataFrame:
    """Return for each image the weakest cells that change its label, at most `MOST_CHANGES`, each of its degradation.

    Parameters
    ----------
    cells
        Rows of the statement `changed_cells`.

    Examples
    --------
    >>> columns = ["image_id", "degradation", "level", "trial", "rank", "levels"]
    >>> rows = [("a", "pepper", 0.1, 0, 2, 2), ("a", "jpeg", 10.0, 0, 1, 3), ("a", "jpeg", 50.0, 1, 2, 3)]
    >>> mildest_changes(pd.DataFrame(rows, columns=columns))[["degradation", "level"]].to_numpy().tolist()
    [['jpeg', 50.0], ['pepper', 0.1]]
    """
    pairs = zip(cells["degradation"], cells["level"], strict=True)
    falling = np.array([level >= 0 and is_falling(name, level) for name, level in pairs], bool)
    rank, levels = cells["rank"], cells["levels"]
    cells = cells.assign(strength=np.where(falling, levels + 1 - rank, rank) / levels)
    mildest = cells.sort_values(["image_id", "degradation", "strength", "trial"])
    mildest = mildest.drop_duplicates(["image_id", "degradation"])
    return mildest.sort_values(["image_id", "strength", "degradation"]).groupby("image_id").head(MOST_CHANGES)


def shown_images(
    images: pd.DataFrame, changes: pd.DataFrame, names: Mapping[PictureKey, str], classes: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Return what the page shows of images: their labels, their shares of changed labels, and their pictures.

    Parameters
    ----------
    images
        What `choose_images` returns.
    changes
        What `mildest_changes` returns for these images.
    names
        The files of the pictures; a picture without one was not made.
    classes
        The names of the classes by label.

    Returns
    -------
    dict
        Under `most` and `least` a mapping for each image.
    """
    of_image = dict(list(changes.groupby("image_id")))
    shown: dict[str, list[dict[str, Any]]] = {"most": [], "least": []}
    for row in images.to_dict("records"):
        image_id = row["image_id"]
        own = of_image.get(image_id, changes.iloc[:0])
        degraded = [
            {
                "degradation": key.degradation,
                "level": key.level,
                "text": level_text(key.degradation, key.level),
                "trial": key.trial,
                "after": _class_name(classes, prediction),
                "right": bool(prediction == row["label"]),
                "picture": names.get(key),
            }
            for key, prediction in zip(picture_keys([], own), own["prediction"], strict=True)
        ]
        shown[row["end"]].append(
            {
                "image_id": image_id,
                "class_name": _class_name(classes, row["label"]),
                "before": _class_name(classes, row["reference"]),
                "right": bool(row["reference"] == row["label"]),
                "share": float(row["share"]),
                "cells": int(row["cells"]),
                "changes": int(row["changes"]),
                "picture": names.get(PictureKey(image_id, NONE, 0.0, 0)),
                "degraded": degraded,
            }
        )
    return shown


def affected_classes(fragility: pd.DataFrame, classes: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the classes whose images are least and most affected, no class in both lists.

    Parameters
    ----------
    fragility
        A row for each image: label, share.
    classes
        The names of the classes by label.

    Examples
    --------
    >>> found = affected_classes(pd.DataFrame({"label": [0, 0, 1], "share": [0.5, 0.0, 0.0]}), ["auk", "wren"])
    >>> found["least_classes"], found["most_classes"][0]["share"]
    ([{'class_name': 'wren', 'share': 0.0, 'images': 1}], 0.25)
    """
    table = fragility.groupby("label")["share"].agg(["mean", "size"]).reset_index().sort_values(["mean", "label"])
    least = min(CLASSES, (len(table) + 1) // 2)
    ends = {"least_classes": table.head(least), "most_classes": table.iloc[least:].tail(CLASSES).iloc[::-1]}
    return {
        name: [
            {"class_name": _class_name(classes, row["label"]), "share": float(row["mean"]), "images": int(row["size"])}
            for row in end.to_dict("records")
        ]
        for name, end in ends.items()
    }


def label_transitions(table: pd.DataFrame, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the pairs of labels that become each other most often, with their share of all changes.

    Parameters
    ----------
    table
        The rows of the statement `label_transitions`.
    classes
        The names of the classes by label.
    """
    total = int(table["cells"].sum())
    return [
        {
            "before": _class_name(classes, one["reference"]),
            "after": _class_name(classes, one["prediction"]),
            "cells": int(one["cells"]),
            "images": int(one["images"]),
            "share": int(one["cells"]) / total,
        }
        for one in table.head(TRANSITIONS).to_dict("records")
    ]


def _class_name(classes: Sequence[str], label: Any) -> str:
    return classes[int(label)] if 0 <= label < len(classes) else f"class {label:g}"
