"""What data sets of several files share: patterns of names, splits, lists of classes, and classes of labels."""

import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.reading import read_patiently, size_and_version
from cnnsens_bench.utils.registry import near
from cnnsens_bench.utils.storage import StoragePath, names_below, storage_path, storing

CLASS_LIST = "classnames.txt"
BRACES = re.compile(r"\{([^{}]*)\}")
NUMBERS = re.compile(r"(\d+)\.\.(\d+)")
MOST_FILES = 1_000_000
FILES_AT_ONCE = 8
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What folders and the beginnings of file names mean: the table's name of the split."""


def expand_braces(pattern: str) -> list[str]:
    """Return the names that a pattern with braces stands for.

    Parameters
    ----------
    pattern
        A text in which `{000..146}` stands for numbers of that many digits, and `{a,b}` for each of some texts.

    Raises
    ------
    UserError
        If the braces hold anything else, or too many names are meant.

    Examples
    --------
    >>> expand_braces("s3://b/{train,val}-{08..10}.tar")[:4]
    ['s3://b/train-08.tar', 's3://b/train-09.tar', 's3://b/train-10.tar', 's3://b/val-08.tar']
    """
    texts = BRACES.split(pattern)
    choices: list[Sequence[str]] = []
    count = 1
    for number, text in enumerate(texts):
        if number % 2 == 0:
            choices.append([text])
            continue
        if found := NUMBERS.fullmatch(text):
            first, last = int(found[1]), int(found[2])
            count *= max(0, last - first + 1)
            width = len(found[1]) if found[1].startswith("0") else 0
            choices.append([f"{i:0{width}d}" for i in range(first, last + 1)] if count <= MOST_FILES else [])
        elif "," in text:
            choices.append(text.split(","))
            count *= len(choices[-1])
        else:
            raise UserError(f"'{pattern}': {{{text}}} is no pattern: write {{000000..000146}} or {{a,b}}")
        if not 0 < count <= MOST_FILES:
            raise UserError(f"'{pattern}' stands for {count} files: it must be 1 to {MOST_FILES}")
    return ["".join(parts) for parts in itertools.product(*choices)]


def files_of(name: str, root: StoragePath | None, given: Any, option: str, ending: str, source: str) -> list[str]:
    """Return the paths or URIs of the files of a data set, in order.

    Parameters
    ----------
    name
        The name of the registered data set.
    root
        A folder, one file, or a pattern with braces. None where `given` names all.
    given
        What the user set the option to: a pattern or a list of patterns, below the root or absolute; None for all files
        of the root.
    option
        The name of the option.
    ending
        The ending of the files, with its dot.
    source
        What the data set is made of, for the error where nothing is named.

    Raises
    ------
    UserError
        If there are none, or the option is no text and no list of texts.
    """
    if given is not None:
        patterns = [given] if isinstance(given, str) else list(given) if isinstance(given, Sequence) else []
        if not patterns or not all(isinstance(one, str) and one for one in patterns):
            raise UserError(f"dataset '{name}': {option} is {given!r}: it must be a pattern, or a list of patterns")
        names = [one for pattern in patterns for one in expand_braces(pattern)]
        paths = [storage_path(one) if _is_absolute(one) or root is None else root / one for one in names]
        return [str(path.absolute()) for path in paths]
    if root is None:
        raise UserError(f"dataset '{name}' needs dataset.root=<folder, file or pattern>: {source}")
    if "{" in str(root):
        return expand_braces(str(root))
    if root.name.endswith(ending):
        return [str(root)]
    with storing(root):
        if not root.is_dir():
            raise UserError(
                f"dataset '{name}': the folder {root} does not exist; {source}; a folder of a web server cannot be "
                f"listed, so name a file or a pattern such as {root}/{{000000..000146}}{ending}"
            )
    below = names_below(root)
    files = [str(root / one) for one in below if one.endswith(ending) and not _is_hidden(one)]
    if not files:
        compressed = next((one for one in below if ending in one), None)
        hint = f" ({compressed} is compressed: unpack it)" if compressed else ""
        raise UserError(f"dataset '{name}': {root} has no {ending} files{hint}; {source}")
    return files


def _is_absolute(name: str) -> bool:
    return "://" in name or Path(name).expanduser().is_absolute()


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))


def splits_of(files: Sequence[str], root: StoragePath | None) -> tuple[list[str], bool]:
    """Return the split of each file, and whether the files say which images are for training.

    The split is what a folder below the root, or the beginning of a file's name up to `-`, `_` or `.`, says: `train`,
    `val`, `valid`, `validation` or `test`. Where none is for testing, those for validation are.

    Examples
    --------
    >>> splits_of(["/d/train-00000.parquet", "/d/validation-00000.parquet"], None)
    (['train', 'test'], True)
    >>> splits_of(["/d/0.tar", "/d/1.tar"], None)
    (['test', 'test'], False)
    """
    top = f"{str(root).rstrip('/')}/" if root is not None else ""
    found = []
    for file in files:
        folders = file.removeprefix(top).split("/")[:-1] if top and file.startswith(top) else []
        begin = re.split(r"[-_.]", file.rpartition("/")[2], maxsplit=1)[0]
        found.append(next((SPLITS[one] for one in [*folders, begin] if one in SPLITS), None))
    kinds = {one for one in found if one}
    if "train" not in kinds or len(kinds) == 1 or None in found:
        return ["test"] * len(files), False
    as_test = "test" if "test" in kinds else "val"
    return ["test" if one == as_test else str(one) for one in found], True


def class_list(name: str, given: Any, folders: Iterable[StoragePath]) -> tuple[list[str] | None, tuple[str, ...]]:
    """Return the names of the classes by label, None where they are unknown, and a note where a file was found.

    Parameters
    ----------
    name
        The name of the registered data set.
    given
        What the user set the option `classes` to: a list, or the path of a text file with a name in each line.
    folders
        Where `classnames.txt` is looked for if the option is None.

    Raises
    ------
    UserError
        If the option is something else, or the file cannot be read.
    """
    if given is not None and not isinstance(given, str):
        names = list(given) if isinstance(given, Sequence) else []
        if not names or not all(isinstance(one, str | int) for one in names):
            raise UserError(
                f"dataset '{name}': classes must be a list of names, or the path of a file with a name a line"
            )
        return [str(one) for one in names], ()
    candidates = [str(storage_path(given).absolute())] if given else [str(folder / CLASS_LIST) for folder in folders]
    for path in candidates:
        try:
            lines = read_patiently(path).decode("utf-8-sig").splitlines()
        except FileNotFoundError:
            continue
        except (ValueError, OSError) as error:
            raise UserError(f"dataset '{name}': the classes {path} cannot be read ({error})") from None
        while lines and not lines[-1].strip():
            lines.pop()
        names = [line.strip() for line in lines]
        if twice := next((one for one, count in Counter(names).items() if count > 1), None):
            raise UserError(
                f"dataset '{name}': {path} has the class '{twice}' twice: give its classes names of their own"
            )
        return names, () if given else (f"classes are named by {path}",)
    if given:
        raise UserError(f"dataset '{name}': the list of classes {given} does not exist")
    return None, ()


@dataclass(frozen=True)
class LabelCodes:
    """Which class each label of a data set means.

    Attributes
    ----------
    classes
        The names of the classes that have images.
    present
        Their numbers, in ascending order; None where labels are names.
    """

    classes: list[str]
    present: np.ndarray | None

    def __call__(self, labels: pd.Series) -> np.ndarray:
        """Return the positions of the labels' classes in `classes`."""
        if self.present is not None:
            return np.searchsorted(self.present, pd.to_numeric(labels).to_numpy(dtype="int64"))
        return pd.Index(self.classes).get_indexer(labels.astype(str))

    def complete(self, table: pd.DataFrame, labels: pd.Series) -> pd.DataFrame:
        """Return a table of images with the columns `label` and `class_name`."""
        codes = self(labels)
        return table.assign(label=codes, class_name=np.asarray(self.classes, object)[codes])


LabelledTables = Iterable[tuple[pd.DataFrame, pd.Series]]
"""Tables of images with the column `image_id`, and the labels of each one's images."""


def label_codes(
    name: str, labels: pd.Series, names: list[str] | None, tables: Callable[[], LabelledTables]
) -> LabelCodes:
    """Return which classes labels mean.

    Parameters
    ----------
    name
        The name of the registered data set.
    labels
        Every label that occurs, numbers or texts, in the order in which they occur; each may occur again.
    names
        The names of the classes by number; None takes the labels themselves.
    tables
        Returns the images, of which the error names the first with a wrong label.

    Raises
    ------
    UserError
        If a label is none of the classes.
    """
    numbers = pd.to_numeric(labels, errors="coerce")
    if numbers.notna().all():
        most = len(names) if names is not None else float("inf")
        wrong = ~((numbers >= 0) & (numbers < most) & (numbers == np.floor(numbers)))
        if wrong.any():
            label = labels[wrong].iloc[0]
            image = _image_of(label, tables())
            count = f"one of the {len(names)} classes, 0 to {len(names) - 1}" if names is not None else "0, 1, 2, …"
            raise UserError(f"dataset '{name}': image '{image}' has the label {label}: it must be {count}")
        present = np.unique(numbers.to_numpy(dtype="int64"))
        return LabelCodes([names[i] if names is not None else str(i) for i in present], present)
    texts = labels.astype(str)
    known = set(texts.unique())
    if names is not None and (unknown := sorted(known - set(names))):
        image = _image_of(labels[(texts == unknown[0]).to_numpy()].iloc[0], tables())
        raise UserError(
            f"dataset '{name}': image '{image}' has the label '{unknown[0][:80]}', which is no class"
            f"{near(unknown[0], names)}"
        )
    return LabelCodes([one for one in names if one in known] if names is not None else sorted(known), None)


def _image_of(label: Any, tables: LabelledTables) -> str:
    """Return the id of the first image with a label."""
    found = (table["image_id"][(labels == label).to_numpy()] for table, labels in tables)
    return str(next(ids.iloc[0] for ids in found if len(ids)))


def version_of(files: Sequence[str], facts: Sequence[Any]) -> str | None:
    """Return what tells these files, read with some options, from others; None where their storage does not tell.

    Parameters
    ----------
    files
        Paths or URIs.
    facts
        What else decides what is read.
    """
    try:
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            known = list(pool.map(size_and_version, files))
    except OSError:  # whoever reads them says what is wrong
        return None
    return json.dumps([files, known, facts]) if all(version for _, version in known) else None


def read_array(name: str, path: StoragePath | str) -> np.ndarray:
    """Return a small array from a `.npy` file without pickled objects. Raise `UserError` where it cannot be read."""
    try:
        found: np.ndarray = np.load(io.BytesIO(read_patiently(str(path))), allow_pickle=False)
    except (ValueError, EOFError, FileNotFoundError, IsADirectoryError, PermissionError) as error:
        reason = "it does not exist" if isinstance(error, FileNotFoundError) else str(error)
        raise UserError(f"dataset '{name}': {path} cannot be read ({reason})") from None
    return found
