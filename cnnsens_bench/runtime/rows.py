"""Tables of a worker's results for its part files. Their columns are those of `store.parts.SCHEMAS`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from cnnsens_bench import images
from cnnsens_bench.engine import predictions
from cnnsens_bench.engine.score import Scores
from cnnsens_bench.engine.sweep import Sweep
from cnnsens_bench.sensitivity.gradients import OUTPUTS
from cnnsens_bench.sensitivity.predictors import parse_predictor

Rows = Sequence[Mapping[str, Any]]
"""Rows of the sample table."""


def prediction_table(sweep: Sweep, rows: Rows, prediction: predictions.Prediction) -> pa.Table:
    """Return rows of `predictions`.

    Parameters
    ----------
    sweep
        The sweep.
    rows
        The rows of the images.
    prediction
        The results of one degradation.
    """
    columns = prediction.columns
    return pa.table(
        {
            **_keys(sweep, [row["image_id"] for row in rows], columns["image"], columns["entrant"]),
            "architecture": _spread([e.architecture for e in sweep.entrants], columns["entrant"]),
            "degradation": _spread([prediction.degradation], np.zeros_like(columns["image"])),
            "label": np.array([int(row["label"]) for row in rows], np.int32)[columns["image"]],
            **{name: columns[name] for name in ("level", "trial", *predictions.OUTPUTS)},
        }
    )


def score_tables(sweep: Sweep, image_ids: Sequence[str], scores: Scores) -> dict[str, pa.Table]:
    """Return rows of `sensitivity` and `sensitivity_predictions`, by table, where there are some."""
    found = {}
    if scores.sensitivity:
        columns = scores.sensitivity
        margin = columns["output"] == OUTPUTS.index("margin")
        found["sensitivity"] = pa.table(
            {
                **_keys(sweep, image_ids, columns["image"], columns["entrant"]),
                "output": _spread(OUTPUTS, columns["output"]),
                **{key: columns[key] for key in columns if key not in ("image", "entrant", "output")},
                # Every output's row of an image has its margin, which is among the last of the image's rows.
                "margin": np.repeat(columns["value"][margin], len(OUTPUTS)),
                "margin_grad_sq_norm": np.repeat(columns["grad_sq_norm"][margin], len(OUTPUTS)),
            }
        )
    if scores.predictions:
        columns = scores.predictions
        cells = sweep.predicted_cells()
        predictors = [parse_predictor(cell.predictor or "") for cell in cells]
        position = columns["predicted"]
        found["sensitivity_predictions"] = pa.table(
            {
                **_keys(sweep, image_ids, columns["image"], columns["entrant"]),
                "predictor": _spread([predictor.name for predictor in predictors], position),
                "passes": np.array([predictor.passes for predictor in predictors], np.int32)[position],
                "degradation": _spread([cell.degradation for cell in cells], position),
                "level": np.array([cell.level for cell in cells], np.float64)[position],
                "output": _spread(OUTPUTS, columns["output"]),
                **{name: columns[name] for name in ("mean_change", "deviation")},
            }
        )
    return found


def speed_table(sweep: Sweep, speeds: Mapping[int, tuple[int, float]], device: str, threads: int | None) -> pa.Table:
    """Return rows of `speed`.

    Parameters
    ----------
    sweep
        The sweep.
    speeds
        The position of an entrant → its images and seconds.
    device
        The device's name.
    threads
        The CPU threads, or None on a GPU.
    """
    run = {"run_id": sweep.run_id, "dataset": sweep.dataset, "precision": sweep.precision}
    rows = []
    for position, (count, seconds) in speeds.items():
        entrant = sweep.entrants[position]
        network = {"model": entrant.model, "defense": entrant.defense, "device": device, "threads": threads}
        rows.append({**run, **network, "images": count, "seconds": seconds})
    return pa.Table.from_pylist(rows)


def image_table(sweep: Sweep, rows: Rows, pictures: Sequence[images.Decoded], hues: Sequence[float]) -> pa.Table:
    """Return rows of `images`; `hues` are the hue entropies of the pictures."""
    boxes = np.array([picture.box for picture in pictures])
    frame = pd.DataFrame([dict(row) for row in rows])
    return pa.table(
        {
            "dataset": [sweep.dataset] * len(rows),
            **{key: frame[key].to_numpy() for key in ("split", "image_id", "uri", "label", "class_name")},
            **{key: boxes[:, i] for i, key in enumerate(("box_x", "box_y", "box_w", "box_h"))},
            "width": [picture.width for picture in pictures],
            "height": [picture.height for picture in pictures],
            "hue_entropy": hues,
        }
    )


def failure_table(run_id: str, dataset: str, failures: Sequence[tuple[str, str, str]]) -> pa.Table:
    """Return rows of `failures` from (image id, stage, sentence). A network's failure has an empty image id."""
    frame = pd.DataFrame(failures, columns=["image_id", "stage", "error"]).drop_duplicates()
    return pa.Table.from_pandas(frame.assign(run_id=run_id, dataset=dataset), preserve_index=False)


def _keys(sweep: Sweep, image_ids: Sequence[str], image: np.ndarray, entrant: np.ndarray) -> dict[str, Any]:
    same = np.zeros(len(image), np.int32)
    return {
        "run_id": _spread([sweep.run_id], same),
        "dataset": _spread([sweep.dataset], same),
        "image_id": _spread(image_ids, image),
        "model": _spread([e.model for e in sweep.entrants], entrant),
        "defense": _spread([e.defense for e in sweep.entrants], entrant),
    }


def _spread(values: Sequence[Any], positions: np.ndarray) -> pa.DictionaryArray:
    """Return `values[positions]` with each value held once."""
    return pa.DictionaryArray.from_arrays(pa.array(positions.astype(np.int32)), pa.array(values))
