"""What one worker does with a piece of work: evaluate it, write its part files. Knows neither Ray nor DuckDB."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import torch

from cnnsens_bench import images
from cnnsens_bench.defenses import parse_defense
from cnnsens_bench.degradations import Reach
from cnnsens_bench.engine.evaluate import Evaluator, LoadedEntrant
from cnnsens_bench.engine.oom_backoff import free_memory, out_of_memory
from cnnsens_bench.engine.plan import Sweep
from cnnsens_bench.engine.score import Scored, Scorer
from cnnsens_bench.engine.timing import device_words
from cnnsens_bench.images import decode_row
from cnnsens_bench.models import Checkpoint
from cnnsens_bench.runtime import rows
from cnnsens_bench.runtime.plan_store import Task
from cnnsens_bench.sensitivity.hue import hue_entropy
from cnnsens_bench.store.parts import write_part
from cnnsens_bench.utils.errors import ImageError, UserError, first_line
from cnnsens_bench.utils.plugins import load_plugins
from cnnsens_bench.utils.storage import StoragePath


@dataclass(frozen=True)
class Outcome:
    """What became of a piece of work: images computed (those that no group before this one computes), evaluations done,
    images that failed."""

    images: int = 0
    evaluations: int = 0
    failures: int = 0

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(self.images + other.images, self.evaluations + other.evaluations, self.failures + other.failures)


class Worker:
    """Holds the networks of a group of entrants and writes part files into `parts`.

    `sweep`: with the entrants of the group alone; `checkpoints`: theirs, by key (`Entrant.checkpoint`); `report`,
    `note`: see `Evaluator`.
    """

    def __init__(
        self,
        sweep: Sweep,
        checkpoints: Mapping[str, Checkpoint],
        parts: StoragePath,
        device: torch.device | str,
        threads: int | None = None,
        report: Callable[[int], None] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        load_plugins(sweep.plugins)
        if threads:
            torch.set_num_threads(threads)
        self.sweep, self.parts, self.note = sweep, parts, note
        self.most: int | None = None  # images at a time, once memory was short around the networks
        classifiers = {key: checkpoint.classifier() for key, checkpoint in checkpoints.items()}
        loaded = [LoadedEntrant(classifiers[e.checkpoint], parse_defense(e.defense)) for e in sweep.entrants]
        smallest = min(checkpoint.preprocessing.input_size for checkpoint in checkpoints.values())
        self.evaluator = Evaluator(sweep, loaded, device, report, self._calibration(sweep.reach(smallest)), note)
        on_cpu = self.evaluator.device.type == "cpu"
        self.device_words = (device_words(self.evaluator.device), torch.get_num_threads() if on_cpu else None)
        self.scorer: Scorer | None = None
        if sweep.sensitivity:
            scored = [Scored(e.network(), e.classifier.preprocessing.input_size) for e in self.evaluator.entrants]
            self.scorer = Scorer(
                sweep, scored, self.evaluator.device, self.evaluator.pool, report, note=note, unfit=self.evaluator.unfit
            )

    def __call__(
        self,
        item: Task,
        decoded: Sequence[images.Decoded | str],
        again: bool = False,
        step: Callable[[int], None] | None = None,
    ) -> Outcome:
        """Compute a piece of work. `decoded`: its images, or a sentence for one that cannot be read.

        `again`: parts of it may be there already under other names: the names end with `-retry`. `step(n)` is called as
        n conditions of the sweep are behind it. Where memory runs out beside the networks (they halve for themselves),
        fewer images are computed at a time from then on; one that does not fit alone is a failure.
        """
        outcome, start, count = Outcome(), 0, len(decoded)
        while start < count:
            size = min(self.most or count, count - start)
            here = range(start, start + size)
            part = item if size == count else item.part(here)
            try:
                # Parts of the whole may be there already.
                outcome += self._computed(part, decoded[start : start + size], again or size < count, step)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                reason = first_line(error, 200)
            else:
                start += size
                continue
            # Only here, where the exception holds no tensors any more.
            free_memory()
            self.evaluator.stopwatch.take()  # of passes that are done again
            if size > 1:
                self.most = size // 2
                if self.note:
                    self.note(f"note: memory is short: {self.most} images are computed at a time instead of {size}")
                continue
            sentence = f"it does not fit into the memory with one image at a time ({reason})"
            self.fail([(part.ids[0], "worker", sentence)], self.name_of(part.ids) + "-memory")
            outcome += Outcome(failures=1)
            start += 1
        return outcome

    def _computed(
        self, item: Task, decoded: Sequence[images.Decoded | str], again: bool, step: Callable[[int], None] | None
    ) -> Outcome:
        good = [i for i, image in enumerate(decoded) if not isinstance(image, str)]
        kept = item.part(good)
        failures = [
            (item.rows[i]["image_id"], "decode", image) for i, image in enumerate(decoded) if isinstance(image, str)
        ]
        evaluations = 0
        name, end = self.name_of(item.ids), "-retry" if again else ""
        if good:
            pictures = [image for image in decoded if not isinstance(image, str)]
            self._describe(kept, pictures, name + end)
            ids = kept.ids
            labels = [int(row["label"]) for row in kept.rows]
            behind = {condition.degradation: i for i, condition in enumerate(self.sweep.conditions, 2)}
            for prediction in self.evaluator.evaluate(ids, labels, pictures, kept.wanted):
                failures += [(ids[image], stage, sentence) for image, stage, sentence in prediction.failures]
                if prediction.columns:
                    table = rows.prediction_table(self.sweep, kept.rows, prediction)
                    part = f"{name}-{_file_safe(prediction.degradation)}{end}"
                    write_part(self.parts, "predictions", part, table)
                    evaluations += len(table)
                if step:
                    step(behind.get(prediction.degradation, 1))
            if speeds := self.evaluator.stopwatch.take():
                write_part(self.parts, "speed", name + end, rows.speed_table(self.sweep, speeds, *self.device_words))
            if self.scorer:
                cells = len(self.sweep.score_cells())
                scores = self.scorer.score(ids, pictures, kept.wanted[:, :, -cells:])
                failures += [(ids[image], stage, sentence) for image, stage, sentence in scores.failures]
                for kind, table in rows.score_tables(self.sweep, ids, scores).items():
                    write_part(self.parts, kind, name + end, table)
                evaluations += scores.cells
        if failures:
            self.fail(failures, name + end)
        return Outcome(int(kept.first.sum()), evaluations, len({image_id for image_id, _, _ in failures}))

    def fail(self, failures: Sequence[tuple[str, str, str]], name: str) -> None:
        """Write `failures`: (image id, stage, sentence)."""
        write_part(self.parts, "failures", name, rows.failure_table(self.sweep, failures))

    def _describe(self, item: Task, pictures: Sequence[images.Decoded], name: str) -> None:
        """The rows of `images`, of those that no group before describes."""
        of = [(row, picture) for row, picture, here in zip(item.rows, pictures, item.first, strict=True) if here]
        if of:
            with ThreadPoolExecutor(2) as pool:
                hues = list(pool.map(lambda pair: self._hue_entropy(*pair), of))
            table = rows.image_table(self.sweep, [row for row, _ in of], [picture for _, picture in of], hues)
            write_part(self.parts, "images", name, table)

    def close(self) -> None:
        """Let go of the networks and of the threads."""
        self.evaluator.close()

    def _calibration(self, reach: Reach) -> list[images.Decoded]:
        """Those of `Sweep.calibration`, which the driver could read. Raises `UserError`."""
        with ThreadPoolExecutor(2) as pool:
            rows = [asdict(image) for image in self.sweep.calibration]
            decoded = list(pool.map(lambda row: decode_row(row, reach), rows))
        for image in decoded:
            if isinstance(image, str):
                raise UserError(f"an image that batch norm is recalibrated on cannot be read by a worker: {image}")
        return [image for image in decoded if not isinstance(image, str)]

    def name_of(self, ids: Sequence[str]) -> str:
        """The same for the same work, so that a piece that is computed again replaces its own parts."""
        entrants = [text for entrant in self.sweep.entrants for text in (entrant.model, entrant.defense)]
        words = [self.sweep.run_id, *ids, "", *entrants]
        return hashlib.blake2b("\0".join(words).encode(), digest_size=12).hexdigest()

    def _hue_entropy(self, row: Mapping[str, Any], picture: images.Decoded) -> float:
        mask_uri = row.get("mask_uri")
        mask = None
        if isinstance(mask_uri, str) and mask_uri:
            try:
                mask = images.decode_mask(mask_uri, picture, self.sweep.mask_range)
            except ImageError:
                mask = None  # a mask only refines this figure: without it the whole box counts
        return hue_entropy(images.box_pixels(picture), mask)


def _file_safe(text: str) -> str:
    """A degradation's name as a part of a file name: readable, and unique by its hash where it is not plain."""
    plain = "".join(c if c.isalnum() or c in "_-" else "_" for c in text)[:40]
    return plain if plain == text else f"{plain}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"
