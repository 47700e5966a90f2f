"""What degradations are expected to do to images that a caller of the Python interface hands over."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cnnsens_bench.degradations import parse_degradations
from cnnsens_bench.engine.photo_prediction import GRADIENT, LabelChangePredictor, NamedImage, RejectedPhoto
from cnnsens_bench.engine.sweep import Condition
from cnnsens_bench.experiment.benchmark import named_networks, unchanged_process
from cnnsens_bench.images.memory import decoded_in_memory
from cnnsens_bench.models.base import split_name
from cnnsens_bench.models.classifier import best_device
from cnnsens_bench.models.loading import LoadedNetwork, load_network
from cnnsens_bench.models.preprocessing import PUBLISHED, GivenInput
from cnnsens_bench.models.sources.python import held
from cnnsens_bench.sensitivity.gradients import FIRST_ORDER
from cnnsens_bench.sensitivity.predictors import parse_predictor
from cnnsens_bench.utils.errors import UserError

COLUMNS = (
    "image", "label", "label_index", "confidence", "margin", "degradation", "level", "label_change", "predictor",
    "logit_std", "probability_std", "error",
)  # fmt: skip


def predict_label_changes(
    network: Any,
    images: Any,
    degradations: Sequence[str],
    levels: Sequence[float] | Mapping[str, Sequence[float]] | None,
    given: Mapping[str, Any],
    predictor: str,
    batch_size: int,
) -> pd.DataFrame:
    """Return a row for each image and condition, with the columns `COLUMNS`.

    The parameters are those of `cnnsens_bench.sensitivity`; `given` is as in `named_networks`.

    Raises
    ------
    UserError
        For a wrong request.
    """
    conditions = _conditions(degradations, levels, predictor)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UserError(f"batch_size is {batch_size!r}: it must be at least 1")
    photographs = _named(images)
    named = named_networks(network, given)
    if len(named.entries) > 1:
        raise UserError(f"{len(named.entries)} networks are given: sensitivity takes one at a time")
    with held(named.in_memory), unchanged_process():
        ready = _loaded(named.entries[0], given)
        predict = LabelChangePredictor(ready, conditions, predictor, batch_size=batch_size, device=best_device())
        rows: list[tuple[Any, ...]] = []
        for result in predict(photographs):
            if isinstance(result, RejectedPhoto):
                rows.append((result.path, *[None] * (len(COLUMNS) - 2), result.sentence))
                continue
            known = (result.path, ready.classes[result.label], result.label, result.confidence, result.margin)
            for effect in result.effects:
                deviations = effect.logit_std, effect.probability_std
                condition = effect.degradation, effect.level, effect.label_change, effect.predictor
                rows.append((*known, *condition, *deviations, None))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _conditions(degradations: Sequence[str], levels: Any, predictor: str) -> list[Condition]:
    if isinstance(degradations, str):
        degradations = [degradations]
    known = FIRST_ORDER if predictor == GRADIENT else (*FIRST_ORDER, *parse_predictor(predictor).degradations)
    conditions = []
    for degradation in [one for text in degradations for one in parse_degradations(text)]:
        if degradation.name not in known:
            raise UserError(
                f"'{degradation.name}' cannot be predicted by '{predictor}', which knows "
                f"{', '.join(dict.fromkeys(known))}: benchmark() measures the others"
            )
        own = levels.get(degradation.name) if isinstance(levels, Mapping) else levels
        conditions.append(Condition(degradation.name, degradation.resolve_levels(own), 1))
    if not conditions:
        raise UserError("degradations is empty: name at least one, such as gaussian_rgb")
    return conditions


def _named(images: Any) -> list[str | NamedImage]:
    """Return images with a name for each: paths are their own, others are numbered."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        several = list(images)
    else:
        several = list(images) if isinstance(images, list | tuple | pd.Series) else [images]
    if not several:
        raise UserError("there is no image: give at least one")
    return [
        os.fspath(image) if isinstance(image, str | os.PathLike) else (str(number), decoded_in_memory(image))
        for number, image in enumerate(several)
    ]


def _loaded(entry: Any, given: Mapping[str, Any]) -> LoadedNetwork:
    """Return the network of a config's entry. Raise `UserError` where it gives no gradients."""
    name = entry if isinstance(entry, str) else entry["name"]
    known = {} if isinstance(entry, str) else entry
    own = {key: known[key] for key in ("mean", "std", "resize", "interpolation") if key in known}
    size, names = given["input_size"], given["classes"]
    ready = load_network(name, input_size=size, classes=names, view=PUBLISHED, given=GivenInput(**own))
    source, architecture = split_name(ready.model)
    head = source.outputs(architecture)
    if given["classes"] is None and head and len(head.names) == len(ready.classes):
        ready = dataclasses.replace(ready, classes=head.names)
    if not ready.classifier.gives_gradients():
        raise UserError(
            f"'{name}' gives no gradients, which sensitivity is computed from: give a differentiable torch.nn.Module, "
            "or measure with benchmark()"
        )
    return ready
