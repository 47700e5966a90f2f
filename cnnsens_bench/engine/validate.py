"""Accuracy of a network while it trains: held-out images through the same path as the sweep's."""

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from cnnsens_bench import images
from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.engine.evaluate import Evaluator, LoadedEntrant
from cnnsens_bench.engine.plan import Condition, Entrant, Sweep
from cnnsens_bench.images import decode_row
from cnnsens_bench.models import Classifier
from cnnsens_bench.models.base import best_device
from cnnsens_bench.utils.plugins import load_plugins


class Validation:
    """Accuracies of one model on the images of `rows` (a sample table) under `conditions`.

    Images are decoded once a process, their boxes held in memory; noise is the same at every call and for every
    trial of a search. Plain values until it is first used, so it travels.
    """

    def __init__(
        self, model: str, dataset: str, rows: pd.DataFrame, conditions: tuple[Condition, ...], seed: int,
        quantize: bool = False, precision: str = "float32", batch_size: int = 32, plugins: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.rows = rows
        self.sweep = Sweep(
            run_id="validation",
            dataset=dataset,
            entrants=(Entrant(model, model.partition("/")[2], "none", model),),
            conditions=conditions,
            seed=seed,
            quantize=quantize,
            precision=precision,
            batch_size=batch_size,
            plugins=plugins,
        )
        self._chunks: list[tuple[list[str], list[int], list[images.Decoded]]] | None = None

    def prepare(self) -> None:
        """Import the users' modules where this process has not yet."""
        load_plugins(self.sweep.plugins)

    def __call__(self, classifier: Classifier) -> dict[str, dict[float, float]]:
        """degradation → level → accuracy in [0, 1] ("none": undegraded). The classifier is left as it is."""
        if self._chunks is None:
            self._chunks = list(self._decoded(classifier.preprocessing.input_size))
        # A copy, for evaluation freezes weights and changes modes.
        entrant = LoadedEntrant(copy.deepcopy(classifier), parse_defense("none"))
        evaluator = Evaluator(self.sweep, [entrant], best_device())
        # What gives no finite logits counts as wrong.
        hits: dict[tuple[str, float], int] = {(cell.degradation, cell.level): 0 for cell in evaluator.cells}
        seen = dict.fromkeys(hits, 0)
        for ids, labels, decoded in self._chunks:
            for cell in evaluator.cells:
                seen[cell.degradation, cell.level] += len(ids)
            wanted = np.ones((len(ids), 1, len(evaluator.cells)), bool)
            for prediction in evaluator.evaluate(ids, labels, decoded, wanted):
                columns = prediction.columns
                if columns:
                    right = columns["prediction"] == np.array(labels)[columns["image"]]
                    for level in np.unique(columns["level"]):
                        hits[prediction.degradation, float(level)] += int(right[columns["level"] == level].sum())
        evaluator.pool.shutdown()
        scores: dict[str, dict[float, float]] = {}
        for (degradation, level), count in hits.items():
            scores.setdefault(degradation, {})[level] = count / max(1, seen[degradation, level])
        return scores

    def _decoded(self, input_size: int) -> Iterator[tuple[list[str], list[int], list[images.Decoded]]]:
        reach = self.sweep.reach(input_size)
        with ThreadPoolExecutor(4) as pool:
            for start in range(0, len(self.rows), self.sweep.batch_size):
                rows = self.rows.iloc[start : start + self.sweep.batch_size].to_dict("records")
                results = zip(rows, pool.map(lambda row: decode_row(row, reach), rows), strict=True)
                # What cannot be read was a failure of the training images already.
                good = [(row, image) for row, image in results if not isinstance(image, str)]
                if good:
                    ids = [str(row["image_id"]) for row, _ in good]
                    yield ids, [int(row["label"]) for row, _ in good], [image for _, image in good]
