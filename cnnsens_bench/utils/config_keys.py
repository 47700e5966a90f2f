"""Which top-level keys of a run's config change no number, for all who compare, show or publish configs."""

MACHINE_KEYS = ("output", "cache", "resume", "tracking", "cluster")
"""Keys that say where a run is computed and by whom it is tracked. They leave a submission."""
SELECTION_KEYS = ("studies", "only", "study", "figures", "details")
"""Keys that choose studies, figures and tables of a suite. Each study's own config holds what they mean."""
ADDED_KEYS = {
    "view": "box", "fine_tune": "always", "frost": "generated", "stored_quality": None, "compile": False, "budget": 1.0,
    "until": None,
}  # fmt: skip
"""Keys that earlier versions did not have, and what these versions did. At that value a key enters no hash, so that
runs of an earlier version go on."""
FOLDER_KEYS = ("data_root", "stored_root")
"""Keys that say where data lies, beside `dataset.root`."""
UNHASHED_KEYS = (*MACHINE_KEYS, *SELECTION_KEYS, *FOLDER_KEYS, "estimate", "search", "recipe")
"""Keys that the hash of a config leaves out; what `search` and `recipe` change is hashed in another way."""
