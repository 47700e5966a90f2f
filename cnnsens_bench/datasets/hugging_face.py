"""Data sets of the Hugging Face hub, prepared as Parquet files by the package `datasets`. `parquet.py` reads them."""

import hashlib
import logging
from pathlib import Path

from cnnsens_bench.utils.cache import cache_dir
from cnnsens_bench.utils.errors import UserError, first_line


def parquet_files(name: str, config: str | None) -> Path:
    """Return the folder with the Parquet files of a data set, which are made in the cache folder where they are not.

    Parameters
    ----------
    name
        A name on the hub, such as `uoft-cs/cifar10`, or a folder that the package `datasets` reads.
    config
        The configuration of the data set; None for its only one.

    Raises
    ------
    UserError
        If the package `datasets` is not installed, or the data set cannot be prepared.
    """
    if not isinstance(name, str) or not name:
        raise UserError(f"dataset 'parquet': hf is {name!r}: it must be a name such as uoft-cs/cifar10")
    try:
        import datasets as hub
    except ImportError:
        raise UserError(
            f"dataset 'parquet': hf={name} needs the package datasets (pip install datasets); Parquet files of the hub "
            f"are also read without it, by dataset.root=hf://datasets/{name}"
        ) from None
    logging.getLogger("datasets").setLevel(logging.ERROR)
    try:
        builder = hub.load_dataset_builder(name, config)
        digest = hashlib.blake2b(repr((name, config, builder.hash)).encode(), digest_size=6).hexdigest()
        folder = cache_dir() / "hf" / f"{name.strip('/').replace('/', '--')[-80:]}-{digest}"
        done = folder / "done"
        if not done.is_file():
            builder.download_and_prepare(str(folder), file_format="parquet")
            for split in builder.info.splits or ():
                (folder / split).mkdir(exist_ok=True)
                for file in folder.glob(f"{builder.dataset_name}-{split}*.parquet"):
                    file.rename(folder / split / file.name)
            done.touch()
    except Exception as error:  # the hub, its libraries and scripts of data sets raise errors of many types
        raise UserError(
            f"dataset 'parquet': hf={name} cannot be prepared ({type(error).__name__}: {first_line(error, 200)}): "
            "check the name and the network, or name its Parquet files by dataset.root"
        ) from None
    return folder
