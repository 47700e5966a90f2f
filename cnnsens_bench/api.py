"""One function call each: `benchmark`, `degrade` and `sensitivity`. The work is done in `experiment` and `engine`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cnnsens_bench.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from cnnsens_bench.results import Results


def benchmark(
    network: Any,
    data: Any,
    degradations: Sequence[Any] | None = None,
    *,
    trials: int | None = None,
    limit: int | None = None,
    seed: int | None = None,
    defenses: Sequence[str] | None = None,
    view: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    resize: int | None = None,
    interpolation: str | None = None,
    classes: Sequence[str] | None = None,
    output: Any = None,
    progress: bool = True,
    options: Mapping[str, Any] | None = None,
    **keys: Any,
) -> "Results":
    """Measure how often networks are right, and how often their label changes, when images get worse.

    Everything runs in this process, by `suite=custom`. What was computed is kept: the same call returns at once, one
    that was stopped goes on, and other networks, data or settings have a folder of their own.

    Parameters
    ----------
    network
        A name (`timm/resnet18`, `my_module:function`), a `torch.nn.Module`, any function from normalised images
        (N, 3, S, S) float32 to outputs (N, classes), a `Network`, or several of these in a list, or by name in a dict.
        A module is copied, and stays as it is.
    data
        The name of a data set, a folder with a folder for each class, `Samples`, a table with the columns `uri` and
        `label` (and those of `make_samples`), or `(images, labels)`: (N, H, W, 3) uint8 or a list of Pillow's images or
        arrays. Labels that are whole numbers are outputs of the network; others are names of classes.
    degradations
        As the config key of that name, such as `["gaussian_rgb", {"name": "pepper", "levels": [0.04]}, "common:*"]`,
        or one of them alone.
        None: those of the suite `custom`.
    trials, limit, seed, defenses, view, precision, batch_size
        As the config keys of these names.
    mean, std
        What the networks expect of each RGB channel, for values in [0, 1]. timm's networks know it.
    size
        The side of their input in pixels.
    resize, interpolation
        What the shorter side of an image is resized to before its middle is cropped, in pixels, and how (`bilinear`,
        `bicubic`, …). None: to `size`, bicubic, or what is known of the network.
    classes
        The names of the networks' outputs, and of the classes that labels in memory are the numbers of.
    output
        The folder of the results. None: one in the cache, whose name is printed and which `results.database` has.
    progress
        Whether progress is shown: a bar on a terminal and in a notebook that has ipywidgets, lines elsewhere.
    options
        Further config keys by name, such as `{"training.epochs": 3}`; these may also be given as keyword arguments.
        Networks are fine-tuned only where one of `training.*`, `recipe` or `fine_tune` is given.
    **keys
        The same, for keys without a dot.

    Returns
    -------
    Results
        The results: `summary()`, `accuracy`, `label_change`, `plot("curves")`, `page("site/")` and all tables.

    Raises
    ------
    UserError
        For a wrong request, in one sentence.

    Examples
    --------
    ::

        results = benchmark(network, "photos/", ["gaussian_rgb", "common:*"], trials=2, mean=mean, std=std, size=224)
        results.summary()
    """
    from cnnsens_bench.experiment.benchmark import run_benchmark
    from cnnsens_bench.results import open_results

    named = {
        "degradations": degradations, "trials": trials, "limit": limit, "seed": seed, "defenses": defenses,
        "view": view, "precision": precision, "batch_size": batch_size, "output": output,
    }  # fmt: skip
    changes = {key: value for key, value in named.items() if value is not None}
    for key in ("degradations", "defenses"):
        if isinstance(changes.get(key), str):
            changes[key] = [changes[key]]
    for key, value in {**(options or {}), **keys}.items():
        if key in changes:
            raise UserError(f"{key} is given twice: leave it out of the options")
        changes[key] = value
    given = {
        "mean": mean, "std": std, "input_size": size, "resize": resize, "interpolation": interpolation,
        "classes": classes,
    }  # fmt: skip
    return open_results(run_benchmark(network, data, given, changes, progress))


def degrade(
    image: Any,
    degradation: Any,
    level: float | None = None,
    *,
    seed: int = 0,
    trial: int = 0,
    image_id: str | Sequence[str] | None = None,
    dataset: str = "degrade",
) -> Any:
    """Return an image as a run would degrade it.

    The draw depends on the seed, the trial, the image's id and the data set's name alone, so that the pixels are those
    of a run that has the same four, and an input as large as the image. An image that is not square is degraded within
    the smallest square around it, whose rest mirrors the image.

    Parameters
    ----------
    image
        An image of Pillow's; an array (H, W, 3) or (N, H, W, 3); or a tensor (3, H, W) or (N, 3, H, W); uint8, or
        floating-point in [0, 255].
    degradation
        The name of a degradation, an expression such as `pepper(0.02) + flip_lr`, or what else the config key
        `degradations` takes.
    level
        The level; None for a degradation that has none.
    seed, trial
        The seed and the number of the draw, both from 0.
    image_id
        The id of the image, or one for each of several. None: their numbers from 0.
    dataset
        The name of the data set.

    Returns
    -------
    object
        The same type, dtype, shape and device that was given, in RGB. uint8 is rounded, floats are not; a geometric
        degradation resamples 8-bit pixels, so it rounds floats first.

    Raises
    ------
    UserError
        If the image or the degradation is not understood.

    Examples
    --------
    >>> import numpy as np
    >>> gray = np.full((4, 6, 3), 128, np.uint8)
    >>> degrade(gray, "pepper", level=1).max(), degrade(gray, "flip_lr").shape
    (np.uint8(0), (4, 6, 3))
    """
    from cnnsens_bench.camera.entries import with_cameras
    from cnnsens_bench.degradations import write_expression
    from cnnsens_bench.engine.degrade_pixels import degrade_pixels
    from cnnsens_bench.images.memory import pixel_batch

    batch = pixel_batch(image)
    count = len(batch.pixels)
    if image_id is None:
        ids = [str(number) for number in range(count)]
    else:
        ids = [image_id] if isinstance(image_id, str) else list(map(str, image_id))
    if len(ids) != count:
        raise UserError(f"image_id names {len(ids)} images, and there are {count}: give an id for each")
    named = {"seed": seed, "trial": trial, "image_ids": ids, "dataset": dataset}
    [expression] = map(write_expression, with_cameras([degradation]))
    return batch.restored(degrade_pixels(batch.pixels, expression, level, **named))  # type: ignore[arg-type]


def sensitivity(
    network: Any,
    images: Any,
    degradations: Sequence[str] = ("gaussian_rgb",),
    levels: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    *,
    predictor: str = "gradient",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    resize: int | None = None,
    interpolation: str | None = None,
    classes: Sequence[str] | None = None,
    batch_size: int = 4,
) -> "pd.DataFrame":
    """Predict from gradients how likely degradations change a network's label of each image. None is degraded for it.

    Parameters
    ----------
    network
        One network, as `benchmark` takes it. It must give gradients, which a `torch.nn.Module` does.
    images
        Paths, Pillow's images and arrays (H, W, 3) uint8 in a list, one of them, or an array (N, H, W, 3) uint8.
    degradations
        Names among `gaussian_rgb`, `pepper_pixel` and `translation`, or of those that the predictor knows.
    levels
        Their levels, or a mapping of names to levels. None: each degradation's own.
    predictor
        `gradient` for the paper's first-order score (section 4), or a registered predictor.
    mean, std, size, resize, interpolation, classes
        As in `benchmark`.
    batch_size
        Images of a forward pass.

    Returns
    -------
    pandas.DataFrame
        A row for each image and condition: `image`, `label` (the class, by name where it is known), `label_index`,
        `confidence`, `margin` (logits), `degradation`, `level`, `label_change` (the predicted probability that the
        label changes), `predictor`, `logit_std`, `probability_std`, and `error` where an image cannot be computed.

    Raises
    ------
    UserError
        For a wrong request, in one sentence.

    Examples
    --------
    ::

        scores = sensitivity(network, ["a.png", "b.png"], ["gaussian_rgb"], levels=[4, 16])
        scores.sort_values("label_change")
    """
    from cnnsens_bench.experiment.own_images import predict_label_changes

    given = {
        "mean": mean, "std": std, "input_size": size, "resize": resize, "interpolation": interpolation,
        "classes": classes,
    }  # fmt: skip
    return predict_label_changes(network, images, degradations, levels, given, predictor, batch_size)
