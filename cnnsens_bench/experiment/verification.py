"""Verifies results: computes a random sample of their rows again, and says which agree and which differ."""

import contextlib
import json
import secrets
import tempfile
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from cnnsens_bench import __version__
from cnnsens_bench.datasets import Samples
from cnnsens_bench.experiment.prepare import load_samples
from cnnsens_bench.experiment.recompute import KEY, recompute
from cnnsens_bench.experiment.recorded_config import given_keys, recorded_config, recorded_entry
from cnnsens_bench.store import Store, database_file, local_copy
from cnnsens_bench.store.read import results
from cnnsens_bench.store.schema import SQL
from cnnsens_bench.store.submission.card import CARD, digest
from cnnsens_bench.store.submission.transfer import import_submission
from cnnsens_bench.utils.atomic import write_atomically
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import level_text, plain
from cnnsens_bench.utils.plugins import load_plugins
from cnnsens_bench.utils.progress import say
from cnnsens_bench.utils.storage import storage_path

FORMAT = "cnnsens_bench verification"
FORMAT_VERSION = 1
ENTRANT = ["protocol", "dataset", "model", "defense"]
SHARES = ("confidence", "true_probability", "reference_probability")
TOLERANCES = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}
"""By precision: how far probabilities of two machines may lie apart, on any network."""
RANKS = 2
"""How far ranks of the true label on two machines may lie apart."""
SHOWN = 3
"""How many rows that differ are printed for an entrant."""


@dataclass(frozen=True)
class VerifyRequest:
    """What is verified, and how.

    Attributes
    ----------
    results
        A submission, a database, or the output of a run; a URI for the last two.
    sample
        The rows of each model and defense that are computed again, at least 1.
    seed
        The text that chooses the rows; "" draws one, which nobody could know before.
    given
        `key=value` words of the keys `recorded_config.GIVEN`.
    trust
        Whether code, files and folders are used that the runs name.
    report
        The file for a report in JSON, if any.
    """

    results: str
    sample: int
    seed: str = ""
    given: tuple[str, ...] = ()
    trust: bool = False
    report: Path | None = None


@dataclass
class EntrantVerification:
    """What came of the sample of one model with a defense. `total` counts all rows that it has."""

    protocol: str
    dataset: str
    model: str
    defense: str
    weights_sha256: str
    total: int
    sampled: int = 0
    agreed: int = 0
    differed: int = 0
    not_recomputed: int = 0
    reason: str = ""
    """Why rows could not be computed again."""
    examples: list[str] = field(default_factory=list)
    """Sentences about the first rows that differ."""


@dataclass(frozen=True)
class Verification:
    """What came of a sample of rows, by model and defense."""

    seed: str
    entrants: list[EntrantVerification]

    @property
    def differed(self) -> int:
        """The number of rows that differ from what is computed here."""
        return sum(one.differed for one in self.entrants)

    @property
    def not_recomputed(self) -> int:
        """The number of rows that could not be computed here."""
        return sum(one.not_recomputed for one in self.entrants)


def verify(request: VerifyRequest, console: Console) -> Verification:
    """Compute a sample of the rows of results again and compare them, one network at a time.

    Parameters
    ----------
    request
        What is verified.
    console
        Where a person reads what came of it.

    Raises
    ------
    UserError
        Where there are no such results, a submission is not as `leaderboard export` writes it, or a key is unknown.
    """
    given = given_keys(request.given)
    if request.sample < 1:
        raise UserError(f"--sample is {request.sample}: it must be at least 1")
    seed = request.seed or secrets.token_hex(8)
    with tempfile.TemporaryDirectory() as temporary, _opened(request.results, Path(temporary)) as store:
        rows = store.query(SQL["sample_predictions"], [seed, request.sample])
        totals = store.query(SQL["count_predictions"]).set_index(ENTRANT)["total"]
        configs = store.query(SQL["run_configs"]).set_index("run_id")["config"]
        if rows.empty:
            raise UserError(f"{request.results} has no predictions yet: a run brings them, cnnsens_bench.run")
        say(console, f"{request.results}: up to {request.sample} rows of each entrant, chosen by --seed {seed}")
        rows["weights_sha256"] = rows["weights_sha256"].fillna("")
        found: dict[Hashable, EntrantVerification] = {}
        for key, own in rows.groupby(ENTRANT, sort=False):
            protocol, dataset, model, defense = map(str, key)
            sizes = int(totals[key]), len(own)
            weights = own["weights_sha256"].iloc[0]
            found[key] = EntrantVerification(protocol, dataset, model, defense, weights, *sizes)
        for number, ((run_id, _), of_run) in enumerate(rows.groupby(["run_id", "dataset"], sort=False)):
            _verify_run(of_run, configs[run_id], found, given, request.trust, Path(temporary) / str(number))
    verification = Verification(seed, list(found.values()))
    _say(verification, console)
    if request.report:
        _write(verification, request, request.report)
    return verification


@contextlib.contextmanager
def _opened(text: str, temporary: Path) -> Iterator[Store]:
    """Give the store of a submission, a database or an output."""
    path = storage_path(text)
    if isinstance(path, Path) and (path / CARD).is_file():
        database = temporary / "submission.duckdb"
        import_submission(path, database)
        yield Store(temporary, path=database)
        return
    with local_copy(database_file(path)) as file:
        yield results(file)


def _verify_run(
    rows: pd.DataFrame,
    recorded: str,
    found: Mapping[Hashable, EntrantVerification],
    given: Mapping[str, str],
    trust: bool,
    folder: Path,
) -> None:
    """Compute the sampled rows of one run on one data set, and count what came of them in `found`.

    `recorded` is the config of the run as the database has it.
    """
    samples: Samples | None = None
    sentence = ""
    try:
        config = recorded_config(recorded, given, trust)
        load_plugins(config.plugins)
        samples = load_samples(config.dataset, config.data_root)
    except UserError as error:
        sentence = str(error)
    for number, (model, own) in enumerate(rows.groupby("model", sort=False)):
        computed, reason = own.iloc[:0], sentence
        if samples is not None:
            try:
                entry = recorded_entry(config, str(model), trust)
                computed = recompute(config, entry, own, samples, folder / str(number))
                reason = "some of its images cannot be read here"
            except UserError as error:
                reason = str(error)
        compared = compare(own, computed, TOLERANCES[config.precision] if samples is not None else 0.0)
        for key, part in compared.groupby(ENTRANT, sort=False):
            _count(found[key], part, reason)


def compare(claimed: pd.DataFrame, computed: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    """Compare rows with what was computed again.

    A row agrees where its prediction is the same, its probabilities differ by no more than the tolerance, its logit by
    no more than the tolerance times 1 + |logit|, and the true label's rank by no more than `RANKS`, where one of both
    ranks is among the first five. Two labels that are as probable as each other may change places on another machine:
    a row with another prediction agrees where one of the two predictions is the true label, whose probability shows
    that they are. The true label itself must be the same.

    Parameters
    ----------
    claimed
        Rows of `predictions` of one network.
    computed
        Those of them that could be computed again.
    tolerance
        The largest difference between probabilities.

    Returns
    -------
    pandas.DataFrame
        The claimed rows with the columns `status` (agreed, differed or missing), `here` and `confidence_here`, which
        are the prediction and its confidence on this machine.
    """
    columns = ["prediction", "label", *SHARES, "true_rank", "reference_logit"]
    both = claimed.merge(computed[[*KEY, *columns]], on=KEY, how="left", suffixes=("", "_here"))
    missing = both["prediction_here"].isna().to_numpy()
    pairs = {name: (both[name].astype(float), both[f"{name}_here"].astype(float)) for name in columns}
    close = pairs["label"][0] == pairs["label"][1]
    for name in SHARES:
        one, other = pairs[name]
        close &= one.isna() | ((one - other).abs() <= tolerance)
    (rank, rank_here), (logit, logit_here) = pairs["true_rank"], pairs["reference_logit"]
    close &= rank.isna() | ((rank - rank_here).abs() <= RANKS) | (np.minimum(rank, rank_here) > 5)
    close &= logit.isna() | ((logit - logit_here).abs() <= tolerance * (1 + logit_here.abs()))
    (ours, here), (confidence, confidence_here) = pairs["prediction"], pairs["confidence"]
    true, true_here = pairs["true_probability"]
    label = pairs["label"][0]
    tied = (ours == label) & ((true_here - confidence_here).abs() <= tolerance)
    tied |= (here == label) & ((true - confidence).abs() <= tolerance)
    agreed = close & ((ours == here) | tied)
    status = np.where(missing, "missing", np.where(agreed, "agreed", "differed"))
    return both.rename(columns={"prediction_here": "here"}).assign(status=status)


def _count(one: EntrantVerification, part: pd.DataFrame, reason: str) -> None:
    """Count the statuses of an entrant's rows, and keep sentences about those that differ."""
    counts = part["status"].value_counts()
    one.agreed += int(counts.get("agreed", 0))
    one.differed += int(counts.get("differed", 0))
    missing = int(counts.get("missing", 0))
    one.not_recomputed += missing
    if missing:
        one.reason = reason
    for row in part[part["status"] == "differed"].to_dict("records"):
        if len(one.examples) < SHOWN:
            condition = f"{row['degradation']} {level_text(row['degradation'], row['level'])}".strip()
            one.examples.append(
                f"{row['image_id']}, {condition}, trial {row['trial']}: the results say label {row['prediction']} "
                f"(confidence {row['confidence']:.3f}), here it is {int(row['here'])} ({row['confidence_here']:.3f})"
            )


def _say(verification: Verification, console: Console) -> None:
    """Say what came of each entrant, and of all together."""
    for one in verification.entrants:
        parts = [f"{one.agreed} of {one.sampled} rows agree"]
        if one.differed:
            parts.append(f"{one.differed} differ")
        if one.not_recomputed:
            parts.append(f"{one.not_recomputed} not recomputed ({one.reason})")
        name = one.model if one.defense == "none" else f"{one.model} with {one.defense}"
        say(console, plain(f"{name} on {one.dataset}: {', '.join(parts)}"))
        say(console, *(plain(f"  differs: {text}") for text in one.examples))
    entrants = verification.entrants
    differing = sum(one.differed > 0 for one in entrants)
    unknown = sum(one.not_recomputed > 0 and not one.differed for one in entrants)
    good = len(entrants) - differing - unknown
    say(
        console,
        f"{good} of {len(entrants)} entrants agree, {differing} differ, {unknown} could not be recomputed whole",
    )
    partly = [one for one in entrants if one.agreed == one.sampled < one.total]
    if partly:
        least = min(one.sampled for one in partly)
        # With none of n rows differing, 95 % confidence excludes shares above 1 - 0.05^(1/n).
        bound = 1 - 0.05 ** (1 / least)
        say(console, f"of an entrant that agrees, at most {100 * bound:.1f} % of the rows may differ (95 % confidence)")


def _write(verification: Verification, request: VerifyRequest, file: Path) -> None:
    """Write the report in JSON. For a submission it has the SHA-256 of its card, which fixes all of its files."""
    card = Path(request.results) / CARD
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "program_version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "card_sha256": digest(card) if card.is_file() else None,
        "seed": verification.seed,
        "sample": request.sample,
        "entrants": [asdict(one) for one in verification.entrants],
    }
    try:
        write_atomically(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"--json {file} cannot be written ({error.strerror}): name another file") from None
