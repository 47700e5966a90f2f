"""A contact sheet of a data set: what a person would learn its classes from."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cnnsens_bench import images
from cnnsens_bench.datasets import Samples

matplotlib.rcParams["svg.hashsalt"] = "cnnsens_bench"  # the same picture gives the same file


def contact_sheet(samples: Samples, out: Path, columns: int = 6, rows: int = 12, size: int = 224) -> None:
    """The first `columns` training images of the first `rows` classes, with their boxes, written to `out`."""
    classes = samples.classes[:rows]
    train = samples.split("train")
    figure = Figure(figsize=(1.25 * columns + 1.6, 1.25 * len(classes)), dpi=110, layout="constrained")
    axes = figure.subplots(len(classes), columns, squeeze=False)
    for row, name in zip(axes, classes, strict=True):
        shown = train[train["class_name"] == name].head(columns)
        for axis in row:
            axis.set_axis_off()
        row[0].set_axis_on()
        row[0].set(xticks=[], yticks=[])
        row[0].set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center")
        row[0].spines[:].set_visible(False)
        for axis, sample in zip(row, shown.itertuples(), strict=False):
            picture = images.decode(sample.uri, (sample.box_x, sample.box_y, sample.box_w, sample.box_h))
            axis.imshow(images.resample(picture, (0, 0, picture.width, picture.height), size))
            x, y, w, h = picture.box
            across, down = size / picture.width, size / picture.height
            frame = Rectangle((x * across, y * down), w * across, h * down, fill=False, color="white", lw=0.8)
            axis.add_patch(frame)
    figure.savefig(out)
