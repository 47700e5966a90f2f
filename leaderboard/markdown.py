"""Writes text of unknown origin into Markdown, so that it is read as it stands."""

import re
from collections.abc import Iterable, Sequence

from cnnsens_bench.utils.formatting import plain

_SIGNS = re.compile(r"([\\`*_{}\[\]<>#|~&$@]|(?<=\bwww)\.|:(?=//))")


def escaped(text: str) -> str:
    r"""Return a text with all signs escaped that Markdown, HTML or formulas in Markdown would take for their own.

    Examples
    --------
    >>> print(escaped("a|b <i>_c_</i>"), escaped("https://x"))
    a\|b \<i\>\_c\_\</i\> https\://x
    """
    return _SIGNS.sub(r"\\\1", plain(text))


def row(cells: Iterable[str]) -> str:
    """Return a row of a table. The cells must be escaped.

    Examples
    --------
    >>> row(["pepper", "1.0"])
    '| pepper | 1.0 |'
    """
    return f"| {' | '.join(cells)} |"


def bullets(sentences: Sequence[str]) -> str:
    """Return a list. The sentences must be escaped."""
    return "\n".join(f"- {sentence}" for sentence in sentences)
