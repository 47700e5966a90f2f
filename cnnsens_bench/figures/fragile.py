"""Figure 5: the most and the least sensitive images, and the hues that set them apart."""

import textwrap
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import ranksums

from cnnsens_bench import images
from cnnsens_bench.figures.curves import save_figure
from cnnsens_bench.figures.sensitivity import ScoredEntrant
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import ImageError, StorageError, UserError
from cnnsens_bench.utils.formatting import level_text, plain

SENSITIVE = """
    SELECT e.image_id, e.deviation, i.uri, i.class_name, i.hue_entropy, i.box_x, i.box_y, i.box_w, i.box_h, u.confidence
    FROM empirical_sensitivity AS e
    JOIN images AS i USING (dataset, image_id)
    JOIN protocol_predictions AS u USING (protocol, dataset, image_id, model, defense)
    WHERE e.protocol = ? AND e.dataset = ? AND e.model = ? AND e.defense = ?
        AND e.degradation = ? AND e.level = ? AND e.output = ? AND u.degradation = 'none'
    ORDER BY e.deviation, e.image_id"""
ENDS = 100
"""The numbers of least and of most sensitive images whose hues the paper compares."""
FEWEST = 3
"""The least number of images at either end with which hues are compared."""
PUBLISHED = "paper: 6.12 and 5.51 bits, p < 1e-10"
SHOWN = 8
"""The largest number of images in a row of figure 5."""
SIDE = 112
"""The side of an image in pixels."""


class HueComparison(NamedTuple):
    """The hues of the least and of the most sensitive images.

    Attributes
    ----------
    n : int
        How many images of either kind are compared: 100 as in the paper, or a sixth of all where that is fewer.
    least, most : float
        The mean hue entropy of the least and of the most sensitive images in bits.
    p : float
        The p-value of Wilcoxon's rank-sum test.
    """

    n: int
    least: float
    most: float
    p: float

    def sentence(self) -> str:
        """Return the comparison as a sentence for a figure or a report."""
        sixths = "" if self.n == ENDS else " (the outer sixths)"
        return (
            f"mean hue entropy of the {self.n} least sensitive{sixths}: {self.least:.2f} bits, of the {self.n} most: "
            f"{self.most:.2f} bits; Wilcoxon rank-sum p = {self.p:.2g}"
        )


def compare_hues(table: pd.DataFrame) -> HueComparison:
    """Compare the hue entropies of the least and the most sensitive images (figure 5 of the paper).

    Parameters
    ----------
    table
        Images by rising deviation, with the column `hue_entropy`.

    Raises
    ------
    ValueError
        If fewer than 18 images have a hue entropy.

    Examples
    --------
    >>> comparison = compare_hues(pd.DataFrame({"hue_entropy": [6.0] * 9 + [5.0] * 9}))
    >>> comparison.n, comparison.least, comparison.most
    (3, 6.0, 5.0)
    """
    known = table.dropna(subset=["hue_entropy"])
    n = min(ENDS, len(known) // 6)
    if n < FEWEST:
        raise ValueError(f"{len(known)} images are too few to compare the hues of both ends")
    least, most = known["hue_entropy"].head(n), known["hue_entropy"].tail(n)
    return HueComparison(n, float(least.mean()), float(most.mean()), float(ranksums(least, most).pvalue))


def sensitive_images(store: Store, entrant: ScoredEntrant, degradation: str, level: float, output: str) -> pd.DataFrame:
    """Return the images of a scored entrant by rising standard deviation of an output over trials.

    Parameters
    ----------
    store
        The results.
    entrant
        The scored entrant.
    degradation, level
        The condition of the trials.
    output
        `logit` or `probability`.

    Raises
    ------
    UserError
        If there are no trials of this condition.
    """
    table = store.query(SENSITIVE, [*entrant, degradation, level, output])
    if table.empty:
        condition = f"{degradation} {level_text(degradation, level)}"
        raise UserError(f"{store.path} has no trials of {condition} for '{entrant.model}'")
    return table


def fig5(
    store: Store,
    out: Path,
    entrant: ScoredEntrant,
    degradation: str = "gaussian_rgb",
    level: float = 1.0,
    output: str = "logit",
) -> Figure:
    """Draw figure 5: the boxes of the most and of the least sensitive images as the network sees them.

    Each has the standard deviation of the output for its predicted class, and its undegraded confidence.

    Parameters
    ----------
    store
        The results.
    out
        The image file to write.
    entrant
        The scored entrant.
    degradation, level
        The condition of the trials.
    output
        `logit` or `probability`.

    Raises
    ------
    UserError
        If there are no trials of this condition, or of one image only.
    """
    table = sensitive_images(store, entrant, degradation, level, output)
    shown = min(SHOWN, len(table) // 2)
    if not shown:
        raise UserError(f"{store.path} has but one image for '{entrant.model}': nothing to compare")
    figure = Figure(figsize=(1.45 * shown + 0.8, 4.6), layout="constrained")
    axes = figure.subplots(2, shown, squeeze=False)
    rows = {"high sensitivity": table.iloc[::-1].head(shown), "low sensitivity": table.head(shown)}
    for line, (name, part) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name, fontsize=10)
        for axis, row in zip(line, part.to_dict("records"), strict=True):
            _draw_image(axis, row)
    condition = f"{degradation} {level_text(degradation, level)}"
    subject = f"{plain(entrant.dataset)}, {plain(entrant.model)}"
    title = f"{subject}: standard deviation s of the best class's {output}, {condition} (c: confidence undegraded)"
    try:
        sentence = f"{compare_hues(table).sentence()} ({PUBLISHED})"
    except ValueError:
        sentence = f"{len(table)} images are too few to compare hues"
    figure.supxlabel(textwrap.fill(sentence, int(11 * figure.get_figwidth())), fontsize=9)
    return save_figure(figure, out, title, per_inch=11)


def _draw_image(axis: Axes, row: dict) -> None:
    """Draw the box of an image, its class above it, and its sensitivity and confidence below."""
    axis.set(xticks=[], yticks=[])
    name = plain(row["class_name"] or row["image_id"])
    axis.set_title(name if len(name) <= 20 else f"{name[:19]}…", fontsize=7)
    axis.set_xlabel(f"s = {row['deviation']:.3g}\nc = {row['confidence']:.2f}", fontsize=8)
    try:
        image = images.decode(row["uri"], tuple(row[f"box_{key}"] for key in "xywh"))
        axis.imshow(images.render(image, SIDE))
    except (ImageError, StorageError):
        axis.text(0.5, 0.5, "image\nnot here", ha="center", va="center", fontsize=8, transform=axis.transAxes)
