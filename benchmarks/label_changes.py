"""How far predicted label changes are from measured ones: the second half of the benchmark `sensitivity.py`."""

import tempfile
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from cnnsens_bench.run import main as run
from cnnsens_bench.store import Store
from cnnsens_bench.utils.formatting import level_text

NETWORK = "{name: timm/test_resnet, weights: random, training: {epochs: 8, lr_head: 3.0e-3, lr_body: 3.0e-3}}"
PREDICTORS = (
    "noisy_gradients(copies=2)",
    "noisy_gradients(copies=4)",
    "smoothed(copies=4)",
    "smoothed(copies=8)",
    "smoothed(copies=8, covariance=True)",
    "smoothed_sigmoid(copies=4)",
    "smoothed_sampling(copies=6)",
    "smoothed_sampling(copies=15)",
    "sampling(copies=6)",
    "sampling(copies=15)",
    "cubature",
)
CONDITIONS = (
    ("gaussian_rgb", 4), ("gaussian_rgb", 16), ("pepper_pixel", 0.04), ("translation", 2),
    ("common:gaussian_noise", 1), ("common:shot_noise", 1), ("common:impulse_noise", 1),
)  # fmt: skip
LEVELS = {name: [level for one, level in CONDITIONS if one == name] for name, _ in CONDITIONS}
COMPARED = """
SELECT predictor, max(passes) AS passes, degradation, level, avg(abs(predicted - measured)) AS error,
    corr(predicted_rank, measured_rank) AS spearman, avg(measured) AS measured, count(*) AS images
FROM (
    SELECT *, rank() OVER (alike ORDER BY predicted) + (count(*) OVER (equal_1) - 1) / 2 AS predicted_rank,
        rank() OVER (alike ORDER BY measured) + (count(*) OVER (equal_2) - 1) / 2 AS measured_rank
    FROM predicted_label_change
    WHERE predictor <> 'paper'
    WINDOW alike AS (PARTITION BY predictor, degradation, level),
        equal_1 AS (PARTITION BY predictor, degradation, level, predicted),
        equal_2 AS (PARTITION BY predictor, degradation, level, measured)
)
GROUP BY predictor, degradation, level
ORDER BY passes, predictor
"""


def compare(photographs: Path | None, limit: int, trials: int) -> pd.DataFrame:
    """Return the error of every predictor under every condition, over the images of a run.

    Parameters
    ----------
    photographs
        A folder with a folder for each wnid, which EfficientNet-Lite0 with its published weights predicts. None: a
        small ResNet on the drawn birds, as in the benchmark of budgets.
    limit
        The number of images.
    trials
        The number of trials that the label change of an image is measured by.

    Returns
    -------
    pandas.DataFrame
        A row for each predictor and condition: `passes`, `error` (the mean absolute error of p_Δ over images),
        `spearman`, `measured` (the mean p_Δ) and `images`.
    """
    degradations = ", ".join(f"{{name: '{name}', levels: {levels}}}" for name, levels in LEVELS.items())
    predictors = ", ".join(f"'{name}'" for name in PREDICTORS)
    networks = (
        ["suite=quick", f"models=[{NETWORK}]"]
        if photographs is None
        else ["suite=published", f"dataset.root={photographs}"]
    )
    with tempfile.TemporaryDirectory() as folder:
        request = [
            *networks, "defenses=[none]", "figures=[]", f"degradations=[{degradations}]", f"trials={trials}",
            f"limit={limit}", "sensitivity=on", f"sensitivity.predictors=[{predictors}]", f"output={folder}",
            "tracking=off", "cluster.engine=local",
        ]  # fmt: skip
        if run(request):
            raise SystemExit("error: the run that is compared failed, see above")
        return Store(Path(folder)).query(COMPARED)


def show_errors(table: pd.DataFrame) -> None:
    """Print the errors, a line for each predictor and a column for each condition."""
    images = table["images"].max()
    title = f"mean absolute error of p_Δ in points, and Spearman's ρ, over {images} images"
    shown = Table("", "passes", title=title)
    conditions = [c for c in CONDITIONS if ((table["degradation"] == c[0]) & (table["level"] == c[1])).any()]
    for name, level in conditions:
        own = table[(table["degradation"] == name) & (table["level"] == level)]
        label = f"{name.removeprefix('common:')} {level_text(name, level)}"
        shown.add_column(f"{label}\np_Δ {100 * own['measured'].mean():.0f} %", justify="right")
    for (passes, predictor), rows in table.groupby(["passes", "predictor"]):
        by = rows.set_index(["degradation", "level"])
        cells = [f"{100 * by['error'][c]:.1f} ({by['spearman'][c]:.2f})" if c in by.index else "" for c in conditions]
        shown.add_row(str(predictor), str(passes), *cells)
    Console(width=160).print(shown)
