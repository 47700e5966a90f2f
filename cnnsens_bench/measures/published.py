"""Published error rates that mCE can be relative to, where the reference network itself was not evaluated."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cnnsens_bench.measures.spec import EntrantResults
from cnnsens_bench.utils.errors import UserError

PREFIX = "published:"
"""What the name of a published reference begins with, as in `published:alexnet`."""
COMMON, STORED = "common:", "stored:"
"""The prefixes of corruptions that are computed, and of those that pre-made pictures show."""
SEVERITIES = frozenset((1.0, 2.0, 3.0, 4.0, 5.0))


@dataclass(frozen=True)
class PublishedRates:
    """Error rates of a network that a paper states.

    Parameters
    ----------
    network
        The network as the paper calls it.
    models
        The models of this program that stand for the same network.
    source
        The paper.
    data
        The images that the rates are of.
    classes
        The number of classes among which the network chose.
    errors
        By degradation: the top-1 error rate in [0, 1], the mean over the five severities. That of `common:fog` is also
        that of `stored:fog`, which counts alone where a network has both.
    """

    network: str
    models: tuple[str, ...]
    source: str
    data: str
    classes: int
    errors: Mapping[str, float]


# The denominators of mCE in Hendrycks & Dietterich, "Benchmarking neural network robustness to common corruptions and
# perturbations", ICLR 2019, as their evaluation code has them. The macro mce of store/sql/views.sql has them too.
PUBLISHED = {
    "alexnet": PublishedRates(
        "AlexNet",
        ("torchvision/alexnet",),
        "Hendrycks & Dietterich 2019",
        "ImageNet-C",
        1000,
        {
            COMMON + "gaussian_noise": 0.886428,
            COMMON + "shot_noise": 0.894468,
            COMMON + "impulse_noise": 0.922640,
            COMMON + "defocus_blur": 0.819880,
            COMMON + "glass_blur": 0.826268,
            COMMON + "motion_blur": 0.785948,
            COMMON + "zoom_blur": 0.798360,
            COMMON + "snow": 0.866816,
            COMMON + "frost": 0.826572,
            COMMON + "fog": 0.819324,
            COMMON + "brightness": 0.564592,
            COMMON + "contrast": 0.853204,
            COMMON + "elastic_transform": 0.646056,
            COMMON + "pixelate": 0.717840,
            COMMON + "jpeg_compression": 0.606500,
        },
    )
}


def published_rates(reference: str) -> PublishedRates | None:
    """Return the error rates that the name of a reference asks for; None where it names a model.

    Raises
    ------
    UserError
        If it begins with `published:`, and there are no rates of that name.

    Examples
    --------
    >>> published_rates("published:alexnet").errors["common:fog"], published_rates("torchvision/alexnet")
    (0.819324, None)
    """
    if not reference.startswith(PREFIX):
        return None
    name = reference.removeprefix(PREFIX)
    if name not in PUBLISHED:
        known = ", ".join(PREFIX + one for one in PUBLISHED)
        raise UserError(f"there are no published error rates '{reference}': there are {known}")
    return PUBLISHED[name]


def published_reference(entrant: EntrantResults, rates: PublishedRates) -> EntrantResults:
    """Return published error rates as the results of a reference network, for one entrant.

    A paper states the mean over five severities, so only degradations count that the entrant's means have at all five;
    of `stored:fog` and `common:fog` the former.
    Label changes and undegraded errors are not stated: what is relative to them has no value.

    Parameters
    ----------
    entrant
        The entrant that is compared.
    rates
        The published rates.
    """
    shape = entrant.accuracy.shape
    accuracy, unknown = np.full(shape[1], np.nan), np.broadcast_to(np.nan, shape)
    for corruption, error in rates.errors.items():
        for prefix in (STORED, COMMON):  # the rates are of pre-made pictures, which count alone where there are both
            name = prefix + corruption.removeprefix(COMMON)
            here = entrant.averaged & (entrant.degradation == name) & ~np.isnan(entrant.accuracy[0])
            if set(entrant.level[here].tolist()) == SEVERITIES:
                accuracy[here] = 1 - error
                break
    return dataclasses.replace(
        entrant,
        accuracy=np.broadcast_to(accuracy, shape),
        label_change=unknown,
        top5=unknown,
        class_accuracy=unknown,
        nll=unknown,
        ece=np.full_like(entrant.ece, np.nan),
        intervals={},
        images_per_second=(float("nan"),) * 3,
        num_parameters=float("nan"),
        reference=None,
    )
