"""The validation split that a search judges by: cut from the training images, never from the test split."""

import hashlib

import pandas as pd

from cnnsens_bench.utils.errors import UserError


def hold_out(train: pd.DataFrame, share: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(fitted on, held out): of each class about `share` of its images are held out, in table order.

    Chosen by the hash of the image id, so that the split is the same on every machine and a larger share holds a
    smaller one. A class keeps at least one image to be fitted on; one of two images or more holds out at least one.
    Raises `UserError` where nothing can be held out.
    """
    rank = train["image_id"].map(lambda text: hashlib.blake2b(f"held out {text}".encode(), digest_size=8).digest())
    order = rank.groupby(train["label"]).rank(method="first")
    count = train.groupby("label")["label"].transform("size")
    wanted = (count * share).round().clip(lower=1).clip(upper=count - 1)
    held = order <= wanted
    if not held.any():
        raise UserError("no class has two training images, so none can be held out: a search needs more images")
    return train[~held].reset_index(drop=True), train[held].reset_index(drop=True)
