"""The rows that wait until a forward pass is full, and the passes. `evaluate.py` degrades what is put into a queue."""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cnnsens_bench.engine.degrade import digitize
from cnnsens_bench.engine.oom_backoff import fewer_images
from cnnsens_bench.engine.predictions import CollectedRows, outputs_of
from cnnsens_bench.engine.timing import Mark
from cnnsens_bench.utils.transfer import upload

if TYPE_CHECKING:
    from cnnsens_bench.engine.evaluate import Evaluator


class PassQueue:
    """The rows that wait for a forward pass, and the results of passes, of networks that want the same cells.

    The undegraded rows of the images come first, so the reference class of an image is known once its other rows are
    evaluated, even where they share a pass.
    """

    def __init__(
        self,
        evaluator: "Evaluator",
        size: int,
        labels: Tensor,
        wanted: np.ndarray,
        positions: Sequence[int],
        results: CollectedRows,
    ) -> None:
        self.evaluator, self.labels, self.wanted, self.device = evaluator, labels, wanted, evaluator.device
        self.members = [(i, evaluator.entrants[i]) for i in positions]
        # The statistics of a network whose batch norm is recalibrated depend on the cell.
        self.cell_by_cell = any(i in evaluator.recalibrated for i in positions)
        # Members → the name of what does not fit even with one image.
        unfit = [(member, i) for member, i in enumerate(positions) if i in evaluator.unfit]
        self.too_large = {member: evaluator.sweep.entrants[i].model for member, i in unfit}
        self.reference = torch.zeros(len(self.members), len(wanted), dtype=torch.long, device=self.device)
        shape = (evaluator.sweep.batch_size, 3, size, size)
        self.buffer = torch.zeros(shape, device=self.device).contiguous(memory_format=torch.channels_last)
        self.filled = 0
        self.held: list[tuple[np.ndarray, int]] = []
        self.results = results

    def add(self, pixels: Tensor, rows: np.ndarray, cell: int, digital: bool = False) -> None:
        """Put clamped pixels into the buffer. Run it when it is full, and before another cell where networks differ.

        `digital` says whether they become what a camera would store, where the sweep asks for that.
        """
        if self.cell_by_cell and self.held and self.held[-1][1] != cell:
            self.flush()
        done = 0
        while done < len(rows):
            room = min(len(rows) - done, len(self.buffer) - self.filled)
            target = self.buffer[self.filled : self.filled + room]
            torch.clamp(pixels[done : done + room].to(target.dtype), 0, 255, out=target)
            if digital:
                digitize(target, self.evaluator.sweep)
            self.held.append((rows[done : done + room], cell))
            self.filled += room
            done += room
            if self.filled == len(self.buffer):
                self.flush()

    def flush(self) -> None:
        """Run the buffer through every network, if there is a row in it."""
        if not self.filled:
            return
        rows = np.concatenate([rows for rows, _ in self.held])
        cells = np.concatenate([np.full(len(rows), cell) for rows, cell in self.held])
        asked = self.wanted[rows, cells]
        undegraded = int(np.count_nonzero(cells == 0))
        image = upload(rows, self.device)
        broken = self.buffer[: self.filled].sum((1, 2, 3)).isnan()
        clock = self.evaluator.stopwatch
        filtered: dict[str, Tensor | None] = {}
        filtering: dict[str, list[tuple[Mark, Mark]]] = {}  # done once, but counted in each entrant's pass
        for member, (position, entrant) in enumerate(self.members):
            name, prefilter = entrant.defense.name, entrant.defense.prefilter
            if name not in filtered:
                began = clock.mark()
                filtered[name] = self._in_parts(name, name, prefilter, self.buffer) if prefilter else self.buffer
                filtering[name] = [(began, clock.mark())] if prefilter else []
            began = clock.mark()
            logits = self._logits(member, filtered[name], int(cells[0]))
            if logits is not None:
                clock.add(position, int(asked.sum()), len(self.buffer), [*filtering[name], (began, clock.mark())])
            self.evaluator.reporter.evaluations(int(asked.sum()))
            if logits is None:
                sentence = f"{self.too_large[member]} does not fit into the memory with one image at a time"
                self.results.fail(rows[asked], cells[asked], sentence)
                continue
            logits = logits[: self.filled].float()
            if undegraded:
                self.reference[member, image[:undegraded]] = logits[:undegraded].argmax(1)
            outputs = outputs_of(logits, self.labels[image], self.reference[member, image], broken)
            self.results.add(position, rows, cells, asked, outputs)
        self.filled = 0
        self.held = []

    def _in_parts(self, key: Hashable, name: str, apply: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor | None:
        """Run pixels through a filter or network; None where memory does not suffice for one image."""
        parts = self.evaluator.backoff.run(key, len(pixels), lambda part: apply(pixels[part]), fewer_images(name))
        if parts is None:
            return None
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _logits(self, member: int, pixels: Tensor | None, cell: int) -> Tensor | None:
        """Return the logits of the buffer; None where memory does not suffice for one image.

        Such a network is not tried again with this image batch, whose reference classes it may lack.
        """
        evaluator, (position, entrant) = self.evaluator, self.members[member]
        if pixels is None:
            self.too_large.setdefault(member, evaluator.sweep.entrants[position].defense)
        if pixels is None or member in self.too_large:
            return None

        def forward(part: Tensor) -> Tensor:
            network = evaluator.compiled.get(position, entrant.classifier)
            if position in evaluator.recalibrated:
                network = evaluator.recalibrated[position].at(cell, evaluator.autocast())
            with evaluator.autocast():
                return network(part)

        model = evaluator.sweep.entrants[position].model
        logits = self._in_parts(position, model, forward, pixels)
        if logits is None:
            self.too_large[member] = model
        return logits
