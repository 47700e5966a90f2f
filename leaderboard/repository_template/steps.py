"""The steps of this leaderboard: check submissions, verify a sample of each, and build the page.

python steps.py check [folder]
python steps.py publish
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent
SUBMISSIONS, VERIFIED, SITE, WORK = (ROOT / name for name in ("submissions", "verified", "site", "work"))
WORDS = shlex.split(os.environ.get("VERIFY_WORDS", ""))
"""Further arguments of `verify`, such as `data_root=/data` or `--sample 200`."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
AGREES, NOT_COMPUTED = 0, 1
"""Exit codes of `verify` that take a submission; one that could not be computed gets no badge."""


def main(arguments: list[str]) -> int:
    """Run a step and return its exit code: 0, 1 where a submission is refused, 2 for a wrong command line."""
    if arguments[:1] == ["check"] and len(arguments) <= 2:
        folder = Path(arguments[1]) if len(arguments) == 2 else SUBMISSIONS
        if not folder.is_dir():
            print(f"error: there is no folder {folder}", file=sys.stderr)
            return 2
        good, refused = sort_out(folder, WORK / "reports")
        refused += added_reports(folder.parent / VERIFIED.name)
    elif arguments == ["publish"]:
        good, refused = sort_out(SUBMISSIONS, VERIFIED)
        if good:
            build(good)
    else:
        print(__doc__, file=sys.stderr)
        return 2
    print(f"good submissions: {len(good)}, refused: {len(refused)}", *refused, sep="\n  ")
    return 1 if refused else 0


def sort_out(folder: Path, reports: Path) -> tuple[list[Path], list[str]]:
    """Return the submissions below a folder that are good, and the names of the others.

    Parameters
    ----------
    folder
        The folder of the submissions.
    reports
        Where the reports of verifications go that are not in `verified` yet.
    """
    good: list[Path] = []
    refused: list[str] = []
    for submission in sorted(path for path in folder.iterdir() if path.name != "README.md"):
        print(f"--- {submission.name}", flush=True)
        if is_good(submission, reports):
            good.append(submission)
        else:
            refused.append(submission.name)
    return good, refused


def added_reports(proposed: Path) -> list[str]:
    """Return the reports in a folder that are not those of this repository: only `publish` writes reports."""
    files = (path for path in sorted(proposed.rglob("*")) if path.is_symlink() or path.is_file())
    added = [path for path in files if path.is_symlink() or not same(path, VERIFIED / path.relative_to(proposed))]
    for path in added:
        print(f"error: {path}: reports are written by the workflow alone: leave it out", flush=True)
    return [f"{VERIFIED.name}/{path.relative_to(proposed)}" for path in added]


def same(one: Path, other: Path) -> bool:
    """Return whether two files have the same content."""
    return other.is_file() and one.read_bytes() == other.read_bytes()


def is_good(submission: Path, reports: Path) -> bool:
    """Check a submission, and verify it where no report has its files."""
    if not NAME.fullmatch(submission.name) or submission.is_symlink() or not submission.is_dir():
        sentence = "a submission is a folder whose name has letters, digits, dots, hyphens and underscores"
        print(f"error: {sentence}", flush=True)
        return False
    if call("leaderboard", "check", str(submission)):
        return False
    if report_of(submission, VERIFIED).exists():
        return True
    reports.mkdir(parents=True, exist_ok=True)
    report = report_of(submission, reports)
    code = call("cnnsens_bench.verify", str(submission), "--json", str(report), *WORDS)
    if code not in (AGREES, NOT_COMPUTED):
        report.unlink(missing_ok=True)
        return False
    return True


def build(submissions: list[Path]) -> None:
    """Build the page. Each submission has a database of its own, since they may have other weights of one name."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    words = ["build", "--out", str(SITE), "--history"]
    for submission in submissions:
        database = WORK / f"{submission.name}.duckdb"
        if call("leaderboard", "import", str(submission), "--db", str(database)):
            raise SystemExit(f"{submission} was good and cannot be imported")
        report = report_of(submission, VERIFIED)
        words += ["--db", str(database), *(["--verified", str(report)] if report.exists() else [])]
    if call("leaderboard", *words):
        raise SystemExit("the page cannot be built")


def report_of(submission: Path, reports: Path) -> Path:
    """Return the file of the report about a submission, which the digest of its card ties to its files."""
    digest = hashlib.sha256((submission / "card.json").read_bytes()).hexdigest()
    return reports / f"{submission.name}-{digest[:16]}.json"


def call(module: str, *arguments: str) -> int:
    """Run a module of the program, and return its exit code."""
    return subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
