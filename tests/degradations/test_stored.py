"""`stored:<corruption>` as configs write it: names, levels, chains, and what is refused."""

import pytest
import torch

from cnnsens_bench.degradations import parse_degradation, parse_degradations, write_expression
from cnnsens_bench.degradations.base import StoredPicture
from cnnsens_bench.degradations.stored import stored_degradation
from cnnsens_bench.utils.errors import UserError

FOUND = {f"stored:{name}": stored_degradation(f"stored:{name}", levels) for name, levels in
         {"fog": (1, 3), "frost": (1, 2, 3, 4, 5)}.items()}  # fmt: skip


def test_its_level_is_the_severity() -> None:
    fog = parse_degradation("stored:fog")
    assert (fog.name, fog.levels, fog.level_name) == ("stored:fog", (1.0, 2.0, 3.0, 4.0, 5.0), "severity")
    assert not fog.random
    assert fog.as_stored
    assert fog.picture(4.0) == StoredPicture("fog", 4)
    assert parse_degradation("pepper").picture(0.1) is None
    pixels = torch.rand(1, 3, 4, 4)
    assert fog.apply(pixels, None, 4.0) is pixels


def test_a_pattern_takes_what_was_found_alone() -> None:
    assert [d.name for d in parse_degradations("stored:*", FOUND)] == ["stored:fog", "stored:frost"]
    assert [d.levels for d in parse_degradations("stored:fo*", FOUND)] == [(1.0, 3.0)]
    assert not [d for d in parse_degradations("*", FOUND) if d.as_stored]
    with pytest.raises(UserError, match="no name matches 'stored:x"):
        parse_degradations("stored:x*", FOUND)


def test_it_comes_first_in_a_chain() -> None:
    swept = parse_degradation("stored:fog + pepper(0.02)", FOUND)
    assert (swept.name, swept.levels) == ("stored:fog + pepper(0.02)", (1.0, 3.0))
    assert swept.picture(3.0) == StoredPicture("fog", 3)
    assert not swept.as_stored
    fixed = parse_degradation(write_expression([{"name": "stored:fog", "level": 2}, "pepper"]))
    assert fixed.name == "stored:fog(2) + pepper"
    assert fixed.picture(0.3) == StoredPicture("fog", 2)
    alone = parse_degradation("stored:fog(2)")
    assert (alone.levels, alone.as_stored, alone.picture(0.0)) == ((), True, StoredPicture("fog", 2))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("pepper(0.1) + stored:fog", "'stored:fog' takes the place of the image: put it first"),
        ("stored:fog(1) + stored:frost", "'stored:frost' takes the place of the image"),
        ("rotation(4) + stored:fog", "no motion of the view beside it"),
        ("stored:fog + rotation(4)", "'rotation' moves the view over the undegraded photograph, which 'stored:fog' re"),
        ("stored:fog(6)", "level 6 is out of range: it must be between 1 and 5"),
        ("stored:fog(1.5)", "level 1.5 must be a whole number"),
        ("stored:fog(1, 2)", "takes one number"),
    ],
)
def test_what_cannot_be_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        parse_degradation(text)
    assert sentence in str(error.value)
