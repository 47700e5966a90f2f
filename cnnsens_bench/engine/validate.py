"""The accuracy of a network while it trains: held-out images take the same path as those of a sweep."""

import copy
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from cnnsens_bench import images
from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.engine.evaluate import Evaluator
from cnnsens_bench.engine.frost import GENERATED
from cnnsens_bench.engine.networks import LoadedEntrant
from cnnsens_bench.engine.sweep import Condition, Entrant, Sweep
from cnnsens_bench.models import Classifier
from cnnsens_bench.models.base import architecture_of
from cnnsens_bench.models.classifier import best_device
from cnnsens_bench.utils.plugins import load_plugins


class Validation:
    """Measures accuracies of one model on held-out images.

    Images are decoded once a process and their boxes held in memory. The noise is the same at every call and for every
    trial of a search. Until it is first called it holds plain values, so it can be pickled.

    Parameters
    ----------
    model
        The name of the model.
    dataset
        The name of the data set, which shapes the draws.
    rows
        The sample table of the held-out images.
    conditions
        The degradations to measure under.
    seed, quantize, precision, batch_size, plugins, frost, stored_quality
        As in `Sweep`.
    """

    def __init__(
        self, model: str, dataset: str, rows: pd.DataFrame, conditions: tuple[Condition, ...], seed: int,
        quantize: bool = False, precision: str = "float32", batch_size: int = 32, plugins: tuple[str, ...] = (),
        frost: str = GENERATED, stored_quality: int | None = None,
    ) -> None:  # fmt: skip
        self.rows = rows
        entrants = (Entrant(model, architecture_of(model), "none", model),)
        settings = seed, quantize, precision, batch_size
        self.sweep = Sweep(
            "validation", dataset, entrants, conditions, *settings, plugins=plugins, frost=frost,
            stored_quality=stored_quality,
        )  # fmt: skip
        self._batches: list[tuple[list[str], list[int], list[images.Decoded]]] | None = None

    def prepare(self) -> None:
        """Import the users' modules where this process has not done so yet, and check that needed files are here."""
        load_plugins(self.sweep.plugins)
        self.sweep.require_files()

    def __call__(self, classifier: Classifier) -> dict[str, dict[float, float]]:
        """Return degradation → level → accuracy in [0, 1], with "none" for the undegraded images.

        The classifier is left as it is. An image without finite logits counts as wrong.
        """
        if self._batches is None:
            self._batches = list(self._decoded(classifier.preprocessing.input_size))
        # It is a copy, because evaluation freezes weights and changes modes.
        entrant = LoadedEntrant(copy.deepcopy(classifier), parse_defense("none"))
        evaluator = Evaluator(self.sweep, [entrant], best_device())
        hits: Counter[tuple[str, float]] = Counter()
        for ids, labels, decoded in self._batches:
            wanted = np.ones((len(ids), 1, len(evaluator.cells)), bool)
            for prediction in evaluator.evaluate(ids, labels, decoded, wanted):
                columns = prediction.columns
                if columns:
                    right = columns["prediction"] == np.array(labels)[columns["image"]]
                    hits.update((prediction.degradation, level) for level in columns["level"][right].tolist())
        evaluator.close()
        seen = sum(len(ids) for ids, _, _ in self._batches)
        trials = Counter((cell.degradation, cell.level) for cell in evaluator.cells)
        scores: dict[str, dict[float, float]] = {}
        for (degradation, level), count in trials.items():
            scores.setdefault(degradation, {})[level] = hits[degradation, level] / max(1, seen * count)
        return scores

    def _decoded(self, input_size: int) -> Iterator[tuple[list[str], list[int], list[images.Decoded]]]:
        reach = self.sweep.reach(input_size)
        with ThreadPoolExecutor(4) as pool:
            for start in range(0, len(self.rows), self.sweep.batch_size):
                rows = self.rows.iloc[start : start + self.sweep.batch_size].to_dict("records")
                results = zip(rows, pool.map(lambda row: images.decode_row(row, reach), rows), strict=True)
                # An image that cannot be read has been reported with the training images.
                good = [(row, image) for row, image in results if not isinstance(image, str)]
                if good:
                    ids = [str(row["image_id"]) for row, _ in good]
                    yield ids, [int(row["label"]) for row, _ in good], [image for _, image in good]
