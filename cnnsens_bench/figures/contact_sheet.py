"""A contact sheet of a data set: training images of each class, as a person would learn the classes from them."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cnnsens_bench import images
from cnnsens_bench.datasets import Samples

matplotlib.rcParams["svg.hashsalt"] = "cnnsens_bench"  # the same picture gives the same file


def contact_sheet(samples: Samples, out: Path, columns: int = 6, rows: int = 12, size: int = 224) -> None:
    """Draw training images of a data set with their boxes, one class a row.

    Parameters
    ----------
    samples
        The samples of the data set.
    out
        The file to write.
    columns, rows
        The largest numbers of images of a class, and of classes; the first ones are shown.
    size
        The side in pixels that images are resized to.
    """
    classes = samples.classes[:rows]
    train = samples.split("train")
    figure = Figure(figsize=(1.25 * columns + 1.6, 1.25 * len(classes)), dpi=110, layout="constrained")
    axes = figure.subplots(len(classes), columns, squeeze=False)
    for row, name in zip(axes, classes, strict=True):
        for axis in row:
            axis.set_axis_off()
        row[0].set_axis_on()
        row[0].set(xticks=[], yticks=[])
        row[0].set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center")
        row[0].spines[:].set_visible(False)
        shown = train[train["class_name"] == name].head(columns)
        for axis, sample in zip(row, shown.to_dict("records"), strict=False):
            _draw_image(axis, sample, size)
    figure.savefig(out)


def _draw_image(axis: Axes, sample: dict, size: int) -> None:
    """Draw an image, resized to a square, and the frame of its box."""
    image = images.decode(sample["uri"], tuple(sample[f"box_{key}"] for key in "xywh"))
    axis.imshow(images.resample(image, (0, 0, image.width, image.height), size))
    x, y, w, h = image.box
    across, down = size / image.width, size / image.height
    axis.add_patch(Rectangle((x * across, y * down), w * across, h * down, fill=False, color="white", lw=0.8))
