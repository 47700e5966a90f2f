"""The validation split that a search judges recipes by. It is cut from the training images, not from the test split."""

import hashlib

import pandas as pd

from cnnsens_bench.utils.errors import UserError


def hold_out(train: pd.DataFrame, share: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split a table of training samples into those to train on and those to validate on, class by class.

    Images are chosen by the hash of their id: the split is the same on every machine, and what a smaller share holds
    out, a larger share holds out too. Every class keeps at least one image to train on; a class of two images or more
    has at least one to validate on.

    Parameters
    ----------
    train
        Samples with the columns `image_id` and `label`.
    share
        About which part of each class is held out, in (0, 1).

    Returns
    -------
    tuple of DataFrame
        The samples to train on and the samples held out, each in the table's order.

    Raises
    ------
    UserError
        If no class has two images.

    Examples
    --------
    >>> table = pd.DataFrame({"image_id": [f"{n}.jpg" for n in range(10)], "label": 5 * [0, 1]})
    >>> fitted, held_out = hold_out(table, 0.4)
    >>> held_out["label"].value_counts().to_dict()
    {0: 2, 1: 2}
    """
    rank = train["image_id"].map(lambda text: hashlib.blake2b(f"held out {text}".encode(), digest_size=8).digest())
    order = rank.groupby(train["label"]).rank(method="first")
    count = train.groupby("label")["label"].transform("size")
    wanted = (count * share).round().clip(lower=1).clip(upper=count - 1)
    held = order <= wanted
    if not held.any():
        raise UserError("no class has two training images, so none can be held out: a search needs more images")
    return train[~held].reset_index(drop=True), train[held].reset_index(drop=True)
