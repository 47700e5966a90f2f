"""The ledger: an image that is always there when a process dies is found, and nobody else is blamed."""

from pathlib import Path

from cnnsens_bench.runtime.crash_tracker import KILLS, CrashTracker, FileCrashTracker


def test_who_ends_is_never_suspected() -> None:
    crash_tracker = CrashTracker()
    for _ in range(5):
        assert crash_tracker.begin("s", ["a", "b"]) == [0, 0]
        crash_tracker.end("s", ["a", "b"])


def test_a_chunk_that_died_is_looked_into_one_by_one() -> None:
    crash_tracker = CrashTracker()
    crash_tracker.begin("s", ["a", "b"])
    assert crash_tracker.begin("s", ["a", "b", "c"]) == [1, 1, 0]
    assert crash_tracker.begin("s", ["a"], alone=True) == [1]
    crash_tracker.end("s", ["a"])
    crash_tracker.begin("s", ["b"], alone=True)  # dies
    assert crash_tracker.begin("s", ["a", "b"]) == [0, 2]
    crash_tracker.begin("s", ["b"], alone=True)  # dies
    assert crash_tracker.begin("s", ["a", "b"]) == [0, KILLS]
    assert crash_tracker.begin("another", ["b"]) == [KILLS]  # what kills is set aside for all


def test_a_process_that_dies_by_chance_at_one_place_after_the_other_blames_nobody() -> None:
    crash_tracker = CrashTracker()
    crash_tracker.begin("s", ["a"])
    for place in range(1, 9):
        assert crash_tracker.begin("s", ["a"], alone=True)[0] < KILLS
        crash_tracker.step("s", "a", place)
    assert crash_tracker.begin("s", ["a"], alone=True) == [2]


def test_it_dies_at_the_same_place() -> None:
    crash_tracker = CrashTracker()
    crash_tracker.begin("s", ["a"])
    for _ in range(2):
        assert crash_tracker.begin("s", ["a"], alone=True)[0] < KILLS
        crash_tracker.step("s", "a", 1)
        crash_tracker.step("s", "a", 2)
    assert crash_tracker.begin("s", ["a"]) == [KILLS]


def test_scopes_do_not_meet() -> None:
    crash_tracker = CrashTracker()
    crash_tracker.begin("decode", ["a"])
    assert crash_tracker.begin("compute", ["a"]) == [0]
    crash_tracker.end("compute", ["a"])
    assert crash_tracker.begin("decode", ["a"]) == [1]


def test_a_file_outlives_its_process(tmp_path: Path) -> None:
    path = tmp_path / "begun.json"
    FileCrashTracker(path).begin("s", ["a", "b"])  # killed
    again = FileCrashTracker(path)
    assert again.begin("s", ["a", "b"]) == [1, 1]
    again.begin("s", ["a"], alone=True)
    again.close()  # stopped by hand: not a kill
    third = FileCrashTracker(path)
    assert third.begin("s", ["a", "b"]) == [1, 1]
    third.end("s", ["a", "b"])
    third.close()
    assert not path.exists()


def test_a_file_that_was_cut_off_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "begun.json"
    path.write_text('{"under_way": [["s", ')
    assert FileCrashTracker(path).begin("s", ["a"]) == [0]
