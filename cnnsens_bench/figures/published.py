"""The numbers of the paper, each with its section, beside the same measured here."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from cnnsens_bench.figures.curves import MODELS, check_one_protocol
from cnnsens_bench.figures.evaluated import evaluated_caption
from cnnsens_bench.figures.fragile import compare_hues, sensitive_images
from cnnsens_bench.figures.sensitivity import scored_entrants
from cnnsens_bench.figures.summary import percent
from cnnsens_bench.figures.tables import write_table
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import plain

CUB, FLOWERS = "cub200", "flowers102"
UNDEGRADED = ("none", 0.0)
COMBINATION = "gaussian_intensity(4) + pepper(0.02)"
INTENSITY, PEPPER = ("gaussian_intensity", 4.0), ("pepper", 0.02)
"""Each noise of the combination alone, with its level."""
GAINS = """SELECT * FROM defense_gain
    WHERE dataset = ? AND defense = ? AND degradation IN ('gaussian_rgb', 'pepper') ORDER BY level"""


FIGURE_2 = {
    "pepper": "paper, p = 0.04: −20 points\n(AlexNet, GoogLeNet), −10 (VGG19)",
    "translation": "paper: almost unchanged\nup to σ = 16 px",
    "gaussian_intensity": "paper: the strongest of the\nGaussian noises",
    "saturation": "paper: the weakest of the\nGaussian noises",
}
FIGURE_4 = {
    "gaussian_rgb": "paper (AlexNet): the 3 × 3 filter pays\nabove a variance of 10",
    "pepper": "paper (AlexNet): the 3 × 3 filter pays\nabove p = 2 %",
}
"""Remarks on the panels of figures 2 and 4, by degradation."""
FIGURE_3 = {FLOWERS: [("gaussian_intensity", 16, 0.436, "☆ paper, AlexNet, intensity σ = 16: 43.6 %, half")]}
"""Points of figure 3 by data set: the degradation, its level, the accuracy between 0 and 1, and the remark."""
TABLE_1 = {"rotation": "46.44, 48.49", "flip_ud": "56.91, 39.17", "flip_lr": "9.89, 79.45"}
"""p_Δ and accuracy in % by degradation, from the one column that the text at hand has complete."""
TABLE_1_NOTE = (
    "* Numbers of the paper's Table 1, read as p_Δ, accuracy of one network: the text at hand keeps neither its "
    "headings nor the rest, but for 78.06 % and 75.87 %."
)
COMBINED, INTENSITY_LOSS, PEPPER_LOSS = 0.485, 0.12, 0.03
"""From section 5: the accuracy under both noises, and how much higher it is under intensity noise or pepper alone."""


def published(store: Store, out: Path) -> Figure | None:
    """Write a table of the numbers of the paper, each beside what was measured for each network.

    Parameters
    ----------
    store
        The results.
    out
        The file to write; see `write_table`.

    Raises
    ------
    UserError
        If the store has nothing that the paper gives a number of, or several protocols of one data set.
    """
    accuracy = store.query(MODELS, ["none"])
    if accuracy.empty:
        raise UserError(f"{store.path} has no predictions yet: python -m cnnsens_bench.run suite=paper makes them")
    check_one_protocol(store, accuracy)
    rows = []
    for section, subject, value, measure in STATEMENTS:
        given = {"paper": section, "what": subject, "it says": value}
        rows += [given | {"network": plain(network), "ours": ours} for network, ours in measure(store, accuracy)]
    if not rows:
        raise UserError(f"{store.path} has nothing that the paper gives a number of")
    table = pd.DataFrame(rows)
    if out.suffix != ".csv":  # people need not read the same sentence in every row
        again = table.duplicated(["paper", "what", "it says"])
        table.loc[again, ["paper", "what", "it says"]] = ""
    title = "; ".join(
        filter(None, ["What the paper says, and what was measured here", evaluated_caption(store, accuracy)])
    )
    return write_table(table, out, title, "points: of accuracy in %, against undegraded images")


Measured = list[tuple[str, str]]
"""Networks, and what was measured for each, as text."""
Measure = Callable[[Store, pd.DataFrame], Measured]
"""It takes the store and its undefended accuracies."""


def _accuracies(
    accuracy: pd.DataFrame, dataset: str, conditions: list[tuple[str, float]]
) -> Iterator[tuple[str, list[float]]]:
    """Yield each network that was evaluated under all of some conditions, and its accuracies under them."""
    for model, rows in accuracy[accuracy["dataset"] == dataset].groupby("model"):
        values = rows.set_index(["degradation", "level"])["value"].reindex(conditions)
        if values.notna().all():
            yield str(model), values.tolist()


def _drop(degradation: str, level: float) -> Measure:
    """Return the function that measures how much a condition changes the accuracy."""

    def measure(store: Store, accuracy: pd.DataFrame) -> Measured:
        found = _accuracies(accuracy, CUB, [(degradation, level), UNDEGRADED])
        return [(model, f"{100 * (value - first):+.1f} points".replace("-", "−")) for model, (value, first) in found]

    return measure


def _flowers(store: Store, accuracy: pd.DataFrame) -> Measured:
    """Measure the accuracy on flowers under intensity noise of σ = 16, and undegraded."""
    found = _accuracies(accuracy, FLOWERS, [("gaussian_intensity", 16.0), UNDEGRADED])
    return [(model, " % of ".join(map(percent, values)) + " %") for model, values in found]


def _both(store: Store, accuracy: pd.DataFrame) -> Measured:
    """Measure the accuracy under both noises at once and under each alone."""
    found = _accuracies(accuracy, CUB, [(COMBINATION, 0.0), INTENSITY, PEPPER])
    return [(model, " %, ".join(map(percent, values)) + " %") for model, values in found]


def _order(store: Store, accuracy: pd.DataFrame) -> Measured:
    """Find the Gaussian noises of most and of least influence."""
    kinds = ("gaussian_rgb", "gaussian_intensity", "saturation", "hue_global", "hue_local")
    found = []
    for model, rows in accuracy[accuracy["dataset"] == CUB].groupby("model"):
        means = rows[rows["degradation"].isin(kinds)].groupby("degradation")["value"].agg(["mean", "size"])
        if len(means) == len(kinds) and means["size"].nunique() == 1:
            found.append((str(model), f"most: {means['mean'].idxmin()}, least: {means['mean'].idxmax()}"))
    return found


def _filter(store: Store, accuracy: pd.DataFrame) -> Measured:
    """Find the levels at which the 3 × 3 filter raises the accuracy with a confidence of 95 %."""
    found = []
    for model, rows in store.query(GAINS, [CUB, "gaussian_filter(size=3, sigma=0.5)"]).groupby("model"):
        texts = []
        for sign, name in (("σ", "gaussian_rgb"), ("p", "pepper")):
            paying = rows[(rows["degradation"] == name) & (rows["low"] > 0)]["level"]
            levels = ", ".join(f"{level:g}" for level in sorted(paying))
            texts.append(f"{sign} = {levels}" if levels else f"no {sign} tried")
        found.append((str(model), "; ".join(texts)))
    return found


def _hues(store: Store, accuracy: pd.DataFrame) -> Measured:
    """Compare the hues of the least and the most sensitive images of each scored entrant."""
    found = []
    for entrant in scored_entrants(store):
        try:
            hues = compare_hues(sensitive_images(store, entrant, "gaussian_rgb", 1.0, "logit"))
        except (UserError, ValueError):
            continue
        text = f"{hues.least:.2f}, {hues.most:.2f} bits; p = {hues.p:.1g}"
        found.append((f"{entrant.model} ({entrant.dataset})", text))
    return found


STATEMENTS: tuple[tuple[str, str, str, Measure], ...] = (
    ("2, figure 2", "pepper, p = 0.04", "−20 points (AlexNet, GoogLeNet), −10 (VGG19)", _drop("pepper", 0.04)),
    ("2, figure 2", "translation, σ = 16 px", "almost unchanged", _drop("translation", 16.0)),
    ("2, Table 1", "left-right flip", "almost unchanged", _drop("flip_lr", 0.0)),
    ("2, figure 2", "Gaussian noises by influence", "most: intensity, least: saturation", _order),
    ("2, figure 3", "Flowers, intensity σ = 16", "43.6 %, half (AlexNet)", _flowers),
    ("3, figure 4", "3 × 3 filter of σ = 0.5 pays", "variance > 10 (σ > 3.2), p > 0.02 (AlexNet)", _filter),
    ("3, figure 5", "hue entropy: least, most", "6.12, 5.51 bits; p < 1e-10 (network not named)", _hues),
    ("5", "intensity σ = 4 and pepper p = 0.02; alone", "48.5 %, almost 60.5 %, above 51.5 % (not named)", _both),
)
"""What the paper states: the section, what the number is of, the number, and the function that measures the same."""
