"""What the scatter of two measures needs to know of entrants: families of architectures, and undefended networks."""

import re

import pandas as pd

PREFIX = re.compile(r"^(?:tf|dm|wide|legacy)_")
"""Prefixes of names that say where weights come from or how wide a network is, and not which family it is of."""


def family(architecture: str | None) -> str | None:
    """Return the family of an architecture: its name without its version, size and variant.

    The family is guessed from the name alone: its first letters, without the `v` of a version.

    Examples
    --------
    >>> [family(name) for name in ("resnet18", "wide_resnet50_2", "tf_efficientnetv2_s", "vit_base_patch16_224")]
    ['resnet', 'resnet', 'efficientnet', 'vit']
    """
    if not architecture:
        return None
    name = PREFIX.sub("", architecture.lower())
    letters = re.match(r"[a-z]+", name)
    if letters is None:
        return architecture
    return re.sub(r"(?<=[a-z]{2})v$", "", letters[0]) if name[letters.end() :][:1].isdigit() else letters[0]


def undefended(members: pd.DataFrame) -> dict[int, int]:
    """Return the entrant that each defended entrant of a board is without its defense.

    That is the undefended entrant with the same network and weights, or else the only one with the same network: a
    defense that changes the training has weights of its own.

    Parameters
    ----------
    members
        The entrants of one board, indexed by their numbers: model, defense, weights.

    Returns
    -------
    dict
        By the number of a defended entrant: that of the undefended one. Entrants without one are left out.
    """
    plain = members[members["defense"] == "none"]
    of_model = dict(iter(plain.groupby("model")))
    found = {}
    for entrant, row in members[members["defense"] != "none"].iterrows():
        candidates = of_model.get(row["model"], plain.iloc[:0])
        same_weights = candidates.index[candidates["weights"] == row["weights"]]
        chosen = same_weights if len(same_weights) else candidates.index
        if len(chosen) == 1:
            found[int(entrant)] = int(chosen[0])
    return found
