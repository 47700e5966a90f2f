"""Load: many processes that ask the published database while a run writes and publishes without a pause."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cnnsens_bench.store import new_attempt, reading, write_part, writing
from tests.store.test_ingest import table

READER = """
import json, select, sys
import duckdb

path = sys.argv[1]
print("ready", flush=True)
sys.stdin.readline()
asked, counts = 0, [0]
while asked == 0 or not select.select([sys.stdin], [], [], 0)[0]:
    with duckdb.connect(path, read_only=True) as db:
        rows, images, counted = db.execute(
            "SELECT count(*), count(DISTINCT image_id), (SELECT coalesce(sum(rows), 0) FROM parts) FROM predictions"
        ).fetchone()
        db.execute("FROM leaderboard").fetchall()
    assert rows == images == counted, (rows, images, counted)
    assert rows >= counts[-1], "went back"
    counts.append(rows)
    asked += 1
print(json.dumps([asked, len(set(counts)), counts[-1]]))
"""


@pytest.mark.parametrize(("readers", "seconds"), [(10, 2), pytest.param(50, 45, marks=pytest.mark.slow)])
def test_readers_and_a_writer_do_not_disturb_each_other(readers: int, seconds: int, tmp_path: Path) -> None:
    with writing(tmp_path) as store:
        store.begin_run("r", "test", "p", {}, {})
        store.publish()
        command = [sys.executable, "-c", READER, str(store.path)]
        pipe = subprocess.PIPE
        asking = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(readers)]
        for process in asking:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        _send_line(asking)
        folder = new_attempt(tmp_path)
        rounds, until = 0, time.monotonic() + seconds
        while time.monotonic() < until or rounds < 5:
            for part in range(4):
                images = [f"{rounds}-{part}-{i}" for i in range(50)]
                write_part(folder, "predictions", f"{rounds}-{part}", table(images))
            store.ingest(keep=folder)
            store.publish()
            rounds += 1
            time.sleep(0.05)
        _send_line(asking)
    ended = [process.communicate(timeout=60) for process in asking]
    assert [error for _, error in ended if "Error" in error] == []
    assert all(process.returncode == 0 for process in asking)
    answers = [json.loads(text) for text, _ in ended]
    assert sum(changes for _, changes, _ in answers) > readers  # they saw more come in
    with reading(tmp_path / "results.duckdb") as last:
        assert last.query("SELECT count(*) AS n FROM predictions")["n"][0] == rounds * 200
    print(f"{readers} readers asked {sum(asked for asked, _, _ in answers)} times while {rounds} states were published")


def _send_line(processes: list[subprocess.Popen]) -> None:
    """Let the readers begin, or end."""
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
