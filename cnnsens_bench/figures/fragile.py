"""Figure 5: the most and the least sensitive images, and the hues that set them apart."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import ranksums

from cnnsens_bench import images
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
"""Images at either end that the paper compares the hues of."""
FEWEST = 3
"""At either end, to compare anything."""
PUBLISHED = "paper: 6.12 and 5.51 bits, p < 1e-10"
SHOWN = 8
SIDE = 112


@dataclass(frozen=True)
class HueTest:
    """Mean hue entropies in bits of the `n` least and `n` most sensitive images (fewer than the paper's 100 where there
    are not six times as many: the outer sixths), and the p-value of Wilcoxon's rank-sum test."""

    n: int
    least: float
    most: float
    p: float

    def sentence(self) -> str:
        """For a figure or a table."""
        sixths = "" if self.n == ENDS else " (the outer sixths)"
        return (
            f"mean hue entropy of the {self.n} least sensitive{sixths}: {self.least:.2f} bits, of the {self.n} most: "
            f"{self.most:.2f} bits; Wilcoxon rank-sum p = {self.p:.2g}"
        )


def hue_test(table: pd.DataFrame) -> HueTest:
    """`table`: images by rising deviation, with `hue_entropy`. Raises `ValueError` for fewer than 18."""
    known = table.dropna(subset=["hue_entropy"])
    n = min(ENDS, len(known) // 6)
    if n < FEWEST:
        raise ValueError(f"{len(known)} images are too few to compare the hues of both ends")
    least, most = known["hue_entropy"].head(n), known["hue_entropy"].tail(n)
    return HueTest(n, float(least.mean()), float(most.mean()), float(ranksums(least, most).pvalue))


def sensitive_images(
    store: Store, which: tuple[str, str, str, str], degradation: str, level: float, output: str
) -> pd.DataFrame:
    """A row an image, by rising standard deviation of an `output` over trials. Raises `UserError` for none."""
    table = store.query(SENSITIVE, [*which, degradation, level, output])
    if table.empty:
        raise UserError(
            f"{store.path} has no trials of {degradation} {level_text(degradation, level)} for '{which[2]}'"
        )
    return table


def fig5(
    store: Store,
    out: Path,
    which: tuple[str, str, str, str],
    degradation: str = "gaussian_rgb",
    level: float = 1.0,
    output: str = "logit",
) -> Figure:
    """Figure 5: the boxes of the most and the least sensitive images, as the network sees them, with the standard
    deviation of the best class's `output` and its undegraded confidence. Raises `UserError`."""
    table = sensitive_images(store, which, degradation, level, output)
    shown = min(SHOWN, len(table) // 2)
    if not shown:
        raise UserError(f"{store.path} has but one image for '{which[2]}': nothing to compare")
    figure = Figure(figsize=(1.45 * shown + 0.8, 4.6), layout="constrained")
    axes = figure.subplots(2, shown, squeeze=False)
    rows = {"high sensitivity": table.iloc[::-1].head(shown), "low sensitivity": table.head(shown)}
    for line, (name, part) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name, fontsize=10)
        for axis, row in zip(line, part.to_dict("records"), strict=True):
            _tile(axis, row)
    where = f"{degradation} {level_text(degradation, level)}"
    title = f"{plain(which[1])}, {plain(which[2])}: standard deviation s of the best class's {output}, {where}"
    width = int(11 * figure.get_figwidth())
    figure.suptitle(textwrap.fill(f"{title} (c: confidence undegraded)", width), fontsize=10, parse_math=False)
    try:
        sentence = f"{hue_test(table).sentence()} ({PUBLISHED})"
    except ValueError:
        sentence = f"{len(table)} images are too few to compare hues"
    figure.supxlabel(textwrap.fill(sentence, width), fontsize=9)
    figure.savefig(out, dpi=160)
    return figure


def _tile(axis: Axes, row: dict) -> None:
    axis.set(xticks=[], yticks=[])
    name = plain(row["class_name"] or row["image_id"])
    axis.set_title(name if len(name) <= 20 else f"{name[:19]}…", fontsize=7)
    axis.set_xlabel(f"s = {row['deviation']:.3g}\nc = {row['confidence']:.2f}", fontsize=8)
    try:
        picture = images.decode(row["uri"], tuple(row[f"box_{key}"] for key in "xywh"))
        axis.imshow(images.render(picture, SIDE))
    except (ImageError, StorageError):
        axis.text(0.5, 0.5, "image\nnot here", ha="center", va="center", fontsize=8, transform=axis.transAxes)
