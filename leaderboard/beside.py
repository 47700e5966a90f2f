"""Writes the folder `data` beside the page: the outcomes of each entrant, and the rows of each board."""

import re
from collections.abc import Sequence
from pathlib import Path

from cnnsens_bench.utils.atomic import write_atomically
from leaderboard.aggregate import Board
from leaderboard.ids import board_id, entrant_id
from leaderboard.outcomes import build_key, script_files
from leaderboard.read import LoadedResults
from leaderboard.rows import write_rows

OURS = re.compile(r"[0-9a-f]{8}(?:\.parquet|(?:-[0-9a-f]{8})?\.js)")
"""The names of the files that a build writes into the folder."""


def write_beside(results: LoadedResults, found: Sequence[Board], folder: Path) -> None:
    """Write the files beside the page, and remove those of an earlier build that this one does not have.

    Parameters
    ----------
    results
        What the databases hold.
    found
        The boards of the page.
    folder
        Where the files belong. It is made if it does not exist, and files with other names stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    members = results.entrants.set_index("entrant")
    written = set()
    for board in found:
        row = members[members["board"] == board.board].iloc[0]
        outcomes = {entrant_id(members.loc[one.entrant]): one.outcomes for one in board.entrants}
        key, short = build_key(board.conditions, board.images), board_id(row["protocol"], row["dataset"])
        for name, text in script_files(short, key, board.images, outcomes):
            write_atomically(folder / name, text)
            written.add(name)
        write_rows(results, board, folder / f"{short}.parquet")
        written.add(f"{short}.parquet")
    for file in folder.iterdir():
        if OURS.fullmatch(file.name) and file.name not in written:
            file.unlink()
