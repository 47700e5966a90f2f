"""What the text of the paper says in numbers, each with where it says so, and the same measured here beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from cnnsens_bench.figures.curves import MODELS, one_protocol
from cnnsens_bench.figures.fragile import hue_test, sensitive_images
from cnnsens_bench.figures.sensitivity import SCORED
from cnnsens_bench.figures.summary import percent
from cnnsens_bench.figures.tables import DATA, write_table
from cnnsens_bench.store import Store
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import plain

CUB, FLOWERS = "cub200", "flowers102"
COMBINATION = "gaussian_intensity(4) + pepper(0.02)"
INTENSITY, PEPPER = ("gaussian_intensity", 4.0), ("pepper", 0.02)
"""The noises of the combination alone."""
GAINS = "SELECT * FROM defense_gain WHERE degradation <> 'none' ORDER BY level"


@dataclass(frozen=True)
class Note:
    """A number of the paper in a figure: where it belongs, and in words."""

    degradation: str
    level: float
    value: float
    text: str


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
FIGURE_3 = {
    FLOWERS: (Note("gaussian_intensity", 16, 0.436, "☆ paper, AlexNet, intensity σ = 16: 43.6 %, half"),),
}
TABLE_1 = {"rotation": "46.44, 48.49", "flip_ud": "56.91, 39.17", "flip_lr": "9.89, 79.45"}
"""Degradation → p_Δ and accuracy in %: numbers of the one column that is whole in the text at hand."""
TABLE_1_NOTE = (
    "* Numbers of the paper's Table 1, read as p_Δ, accuracy of one network: the text at hand keeps neither its "
    "headings nor the rest, but for 78.06 % and 75.87 %."
)
COMBINED, INTENSITY_LOSS, PEPPER_LOSS = 0.485, 0.12, 0.03
"""Section 5: accuracy with both noises; what intensity noise alone has more (almost), what pepper alone (above)."""


def published(store: Store, out: Path) -> Figure | None:
    """A table of the paper's numbers, each beside what the store has for each of its networks. Raises `UserError`."""
    accuracy = store.query(MODELS, ["none"])
    if accuracy.empty:
        raise UserError(f"{store.path} has no predictions yet: python -m cnnsens_bench.run suite=paper makes them")
    one_protocol(store, accuracy)
    rows = []
    for said in SAYINGS:
        for network, ours in said.ours(store, accuracy):
            rows.append(
                {"paper": said.where, "what": said.what, "it says": said.says, "network": plain(network), "ours": ours}
            )
    if not rows:
        raise UserError(f"{store.path} has nothing that the paper gives a number of")
    table = pd.DataFrame(rows)
    if out.suffix not in DATA:  # the same sentence need not stand in every row that a person reads
        again = table.duplicated(["paper", "what", "it says"])
        table.loc[again, ["paper", "what", "it says"]] = ""
    return write_table(
        table,
        out,
        "What the paper says, and what was measured here",
        "points: of accuracy in %, against undegraded images",
    )


Ours = list[tuple[str, str]]
"""(network, what was measured)."""


@dataclass(frozen=True)
class Saying:
    """One number of the paper. `ours(store, accuracy)`: the same from the store, a row a network."""

    where: str
    what: str
    says: str
    ours: Callable[[Store, pd.DataFrame], Ours]


def _drop(degradation: str, level: float) -> Callable[[Store, pd.DataFrame], Ours]:
    def ours(store: Store, accuracy: pd.DataFrame) -> Ours:
        found = []
        for model, rows in accuracy[accuracy["dataset"] == CUB].groupby("model"):
            still, there = (_value(rows, *condition) for condition in (("none", 0.0), (degradation, level)))
            if still is not None and there is not None:
                found.append((str(model), f"{100 * (there - still):+.1f} points".replace("-", "−")))
        return found

    return ours


def _flowers(store: Store, accuracy: pd.DataFrame) -> Ours:
    found = []
    for model, rows in accuracy[accuracy["dataset"] == FLOWERS].groupby("model"):
        still, there = _value(rows, "none", 0.0), _value(rows, "gaussian_intensity", 16.0)
        if still is not None and there is not None:
            found.append((str(model), f"{percent(there)} % of {percent(still)} %"))
    return found


def _combination(store: Store, accuracy: pd.DataFrame) -> Ours:
    found = []
    for model, rows in accuracy[accuracy["dataset"] == CUB].groupby("model"):
        values = [_value(rows, *condition) for condition in ((COMBINATION, 0.0), INTENSITY, PEPPER)]
        known = [percent(value) for value in values if value is not None]
        if len(known) == len(values):
            found.append((str(model), " %, ".join(known) + " %"))
    return found


def _order(store: Store, accuracy: pd.DataFrame) -> Ours:
    kinds = ("gaussian_rgb", "gaussian_intensity", "saturation", "hue_global", "hue_local")
    found = []
    for model, rows in accuracy[accuracy["dataset"] == CUB].groupby("model"):
        means = rows[rows["degradation"].isin(kinds)].groupby("degradation")["value"].agg(["mean", "size"])
        if len(means) == len(kinds) and means["size"].nunique() == 1:
            found.append((str(model), f"most: {means['mean'].idxmin()}, least: {means['mean'].idxmax()}"))
    return found


def _filter(store: Store, accuracy: pd.DataFrame) -> Ours:
    gains = store.query(GAINS)
    gains = gains[
        (gains["defense"] == "gaussian_filter(size=3, sigma=0.5)")
        & gains["degradation"].isin(["gaussian_rgb", "pepper"])
    ]
    found = []
    for model, rows in gains[gains["dataset"] == CUB].groupby("model"):
        texts = []
        for sign, name in (("σ", "gaussian_rgb"), ("p", "pepper")):
            paying = rows[(rows["degradation"] == name) & (rows["low"] > 0)]["level"]
            levels = ", ".join(f"{level:g}" for level in sorted(paying))
            texts.append(f"{sign} = {levels}" if levels else f"no {sign} tried")
        found.append((str(model), "; ".join(texts)))
    return found


def _hues(store: Store, accuracy: pd.DataFrame) -> Ours:
    found = []
    for which in store.query(SCORED).itertuples(index=False, name=None):
        try:
            test = hue_test(sensitive_images(store, which, "gaussian_rgb", 1.0, "logit"))
        except (UserError, ValueError):
            continue
        found.append((f"{which[2]} ({which[1]})", f"{test.least:.2f}, {test.most:.2f} bits; p = {test.p:.1g}"))
    return found


SAYINGS = (
    Saying("2, figure 2", "pepper, p = 0.04", "−20 points (AlexNet, GoogLeNet), −10 (VGG19)", _drop("pepper", 0.04)),
    Saying("2, figure 2", "translation, σ = 16 px", "almost unchanged", _drop("translation", 16.0)),
    Saying("2, Table 1", "left-right flip", "almost unchanged", _drop("flip_lr", 0.0)),
    Saying("2, figure 2", "Gaussian noises by influence", "most: intensity, least: saturation", _order),
    Saying("2, figure 3", "Flowers, intensity σ = 16", "43.6 %, half (AlexNet)", _flowers),
    Saying("3, figure 4", "3 × 3 filter of σ = 0.5 pays", "variance > 10 (σ > 3.2), p > 0.02 (AlexNet)", _filter),
    Saying("3, figure 5", "hue entropy: least, most", "6.12, 5.51 bits; p < 1e-10 (network not named)", _hues),
    Saying(
        "5",
        "intensity σ = 4 and pepper p = 0.02; alone",
        "48.5 %, almost 60.5 %, above 51.5 % (not named)",
        _combination,
    ),
)


def _value(rows: pd.DataFrame, degradation: str, level: float) -> float | None:
    found = rows[(rows["degradation"] == degradation) & (rows["level"] == level)]["value"]
    return float(found.iloc[0]) if len(found) else None
