"""Writes the template of a repository that keeps submissions, checks them, and publishes their leaderboard."""

import tempfile
from importlib import resources
from pathlib import Path

from cnnsens_bench import __version__
from cnnsens_bench.utils.errors import UserError

FILES = {
    "README.md": "README.md",
    "steps.py": "steps.py",
    "requirements.txt": "requirements.txt",
    "gitignore": ".gitignore",
    "workflow.yml": ".github/workflows/leaderboard.yml",
    "submissions.md": "submissions/README.md",
}
"""The files of the template by their names in the package, and where each goes."""


def write_template(folder: Path) -> Path:
    """Write the template, whole or not at all.

    Parameters
    ----------
    folder
        The folder to write, which must not exist or be empty.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    UserError
        Where the folder has files already, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists: name a new folder, or remove it")
    source = resources.files("leaderboard").joinpath("repository_template")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            made = Path(temporary) / "repository"
            for name, target in FILES.items():
                file = made / target
                file.parent.mkdir(parents=True, exist_ok=True)
                text = source.joinpath(name).read_text("utf-8").replace("@version@", __version__)
                file.write_text(text, encoding="utf-8")
            made.rename(folder)  # over an empty folder too
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}): name another folder") from None
    return folder
