"""The sweep in this process: the next chunk is decoded while one is computed."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from cnnsens_bench import images
from cnnsens_bench.engine.plan import Chunk, Sweep
from cnnsens_bench.engine.worker import Outcome, Worker, decode_row
from cnnsens_bench.models import Checkpoint
from cnnsens_bench.models.base import best_device
from cnnsens_bench.places import Place


def run_local(
    sweep: Sweep,
    chunks: Iterable[Chunk],
    checkpoints: Mapping[str, Checkpoint],
    parts: Place,
    threads: int | None = None,
    report: Callable[[int], None] | None = None,
) -> Iterator[Outcome]:
    """Compute the chunks one after the other; gives each one's outcome when its parts are written."""
    worker = Worker(sweep, checkpoints, parts, best_device(), threads, report)
    smallest = min(c.preprocessing.input_size for c in checkpoints.values())
    reach = sweep.reach(smallest)
    with ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2))) as pool:

        def submit(chunk: Chunk) -> tuple[Chunk, list[dict], list[Future[images.Decoded | str]]]:
            rows = chunk.rows.to_dict("records")
            return chunk, rows, [pool.submit(decode_row, row, reach) for row in rows]

        waiting = None
        for chunk in chunks:
            ahead = submit(chunk)
            if waiting:
                yield _finish(worker, *waiting)
            waiting = ahead
        if waiting:
            yield _finish(worker, *waiting)


def _finish(worker: Worker, chunk: Chunk, rows: list[dict], pending: list[Future[images.Decoded | str]]) -> Outcome:
    return worker(rows, [future.result() for future in pending], chunk.wanted)
