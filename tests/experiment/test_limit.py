"""The images of a limited run: as many as asked for, by the hash of their ids, the smaller limits within the larger."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from cnnsens_bench.datasets import sample_table as room
from cnnsens_bench.datasets.sample_table import ImageSelection, MemoryTable, hash_rank

TABLE = pd.DataFrame({"image_id": [f"class_{i % 7}/{i}.jpg" for i in range(3000)], "split": "test"})
IMAGES = ImageSelection(MemoryTable(TABLE.assign(label=0)), ("test",))
DIGESTS = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in TABLE["image_id"]]


@pytest.mark.parametrize("frame", [700, 100_000])
@pytest.mark.parametrize("limit", [1, 10, 255, 2999, 3000, 5000])
def test_a_limit_gives_the_images_of_the_smallest_hashes(
    limit: int, frame: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some digests end with a zero byte, which is a part of them like any other."""
    monkeypatch.setattr(room, "FRAME_ROWS", frame)
    assert any(digest.endswith(b"\0") for digest in DIGESTS)
    chosen = sorted(range(len(TABLE)), key=DIGESTS.__getitem__)[:limit]
    expected = [TABLE["image_id"][i] for i in sorted(chosen)]
    chosen_images = IMAGES.limited(limit)
    ids = [image_id for rows in chosen_images.frames(("image_id",)) for image_id in rows["image_id"]]
    assert ids == expected
    assert len(chosen_images) == len(expected)
    assert IMAGES.limited(None) is IMAGES


def test_ranks_order_images_as_their_digests_do() -> None:
    assert hash_rank(TABLE["image_id"]).argsort().tolist() == np.argsort(np.array(DIGESTS, object)).tolist()
