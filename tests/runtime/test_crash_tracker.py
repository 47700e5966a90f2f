"""The crash tracker finds an image that is always there when a process dies, and blames no other."""

from pathlib import Path

from cnnsens_bench.runtime.coordinator import Coordinator
from cnnsens_bench.runtime.crash_tracker import MAX_DEATHS, CrashTracker, FileCrashTracker


def test_an_image_that_ends_is_never_suspected() -> None:
    crash_tracker = CrashTracker()
    for _ in range(5):
        assert crash_tracker.begin("s", ["a", "b"]) == [0, 0]
        crash_tracker.end("s", ["a", "b"])


def test_images_whose_process_died_are_computed_one_by_one() -> None:
    crash_tracker = CrashTracker()
    crash_tracker.begin("s", ["a", "b"])
    assert crash_tracker.begin("s", ["a", "b", "c"]) == [1, 1, 0]
    assert crash_tracker.begin("s", ["a"], alone=True) == [1]
    crash_tracker.end("s", ["a"])
    crash_tracker.begin("s", ["b"], alone=True)  # dies
    assert crash_tracker.begin("s", ["a", "b"]) == [0, 2]
    crash_tracker.begin("s", ["b"], alone=True)  # dies
    assert crash_tracker.begin("s", ["a", "b"]) == [0, MAX_DEATHS]
    assert crash_tracker.begin("another", ["b"]) == [MAX_DEATHS]  # an image that is set aside is so in every scope


def test_a_process_that_dies_at_one_position_after_the_other_blames_no_image() -> None:
    crash_tracker = CrashTracker()
    crash_tracker.begin("s", ["a"])
    for position in range(1, 9):
        assert crash_tracker.begin("s", ["a"], alone=True)[0] < MAX_DEATHS
        crash_tracker.advance("s", "a", position)
    assert crash_tracker.begin("s", ["a"], alone=True) == [2]


def test_it_dies_at_the_same_position() -> None:
    crash_tracker = CrashTracker()
    crash_tracker.begin("s", ["a"])
    for _ in range(2):
        assert crash_tracker.begin("s", ["a"], alone=True)[0] < MAX_DEATHS
        crash_tracker.advance("s", "a", 1)
        crash_tracker.advance("s", "a", 2)
    assert crash_tracker.begin("s", ["a"]) == [MAX_DEATHS]


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


def test_a_task_that_is_computed_again_counts_once() -> None:
    coordinator = Coordinator()
    coordinator.count(1, 4)
    coordinator.count(1, 9)  # its worker dies
    coordinator.count(2, 3)
    for done in (5, 9, 10):
        coordinator.count(1, done)
    assert coordinator.news() == (13, [])
