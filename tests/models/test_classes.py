"""Outputs and classes: what is matched, by what, and what is refused in one sentence because it would be a guess."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnsens_bench.models import split_name
from cnnsens_bench.models.classes import ClassMatch, OutputClasses, describe_matches, match_classes
from cnnsens_bench.utils.errors import UserError


def head(model: str) -> OutputClasses:
    source, architecture = split_name(model)
    found = source.outputs(architecture)
    assert found is not None
    return found


TIMM, TORCHVISION = head("timm/resnet18"), head("torchvision/alexnet")
LARGE = {
    name: head(f"timm/{name}")
    for name in ("convnext_tiny.in12k", "convnext_tiny.fb_in22k", "resnetv2_50x1_bit.goog_in21k")
}
NAMELESS = OutputClasses(10)


def refusal(outputs: OutputClasses, classes: list[str]) -> str:
    with pytest.raises(UserError) as caught:
        match_classes("lab/net", outputs, classes)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


def check_wordnet_ids(outputs: OutputClasses, classes: list[str]) -> None:
    """Check that the output of each class has the class's WordNet id."""
    match = match_classes("lab/net", outputs, classes)
    assert (match.by, match.count) == ("wnid", outputs.count)
    kept = range(outputs.count) if match.outputs is None else match.outputs
    assert [outputs.wnids[output] for output in kept] == classes


@given(kept=st.lists(st.integers(0, 999), min_size=2, max_size=60, unique=True))
def test_any_classes_by_wordnet_id_get_their_own_outputs(kept: list[int]) -> None:
    for outputs in (TIMM, TORCHVISION):
        check_wordnet_ids(outputs, [outputs.wnids[output] for output in kept])


@pytest.mark.parametrize("name", LARGE)
def test_networks_of_all_of_imagenet(name: str) -> None:
    rng = np.random.default_rng(0)
    assert LARGE[name].count > 10_000
    check_wordnet_ids(LARGE[name], list(LARGE[name].wnids))
    for count in (2, 40, 9000):
        check_wordnet_ids(LARGE[name], rng.choice(LARGE[name].wnids, count, replace=False).tolist())


def test_all_wordnet_ids_keep_all_outputs_in_their_order() -> None:
    assert match_classes("lab/net", TIMM, list(TIMM.wnids)) == ClassMatch(1000, None, "wnid")
    assert match_classes("lab/net", TIMM, list(TIMM.wnids[::-1])).outputs == tuple(range(999, -1, -1))


def test_a_wordnet_id_that_is_no_output() -> None:
    said = (
        "class 'n99999999' (one of 2) is not among the 1000 outputs of 'lab/net': leave the class out, or take another"
    )
    assert refusal(TIMM, ["n01440764", "n99999999"]).startswith(said)
    assert refusal(TIMM, ["n99999998", "n99999999"]).startswith("class 'n99999998' (one of 2) is not among")


def test_a_name_among_wordnet_ids_is_the_one_that_is_refused() -> None:
    said = refusal(TIMM, ["n01440764", "goldfish"])
    assert said.startswith("class 'goldfish' (one of 2) is not among the 1000 outputs")
    assert "did you mean 'goldfish, Carassius auratus' (then name the folder n01443537; case" in said


def test_names_are_matched_letter_by_letter() -> None:
    assert match_classes("lab/net", TORCHVISION, ["goldfish", "tench"]) == ClassMatch(1000, (1, 0), "name")
    assert match_classes("lab/net", OutputClasses(2, names=("b", "a")), ["a", "b"]).outputs == (1, 0)


@pytest.mark.parametrize(
    ("outputs", "classes", "meant"),
    [
        (TORCHVISION, ["tench", "Goldfish"], "'goldfish' (then name the folder 'goldfish';"),
        (TORCHVISION, ["tench", "hen_of_the_woods"], "'hen-of-the-woods' (then name the folder 'hen-of-the-woods';"),
        (TIMM, ["tench", "goldfish"], "'tench, Tinca tinca' (then name the folder n01440764;"),
        (TIMM, ["Carassius auratus", "x"], "'goldfish, Carassius auratus' (then name the folder n01443537;"),
        (OutputClasses(2, names=("café", "bar")), ["cafe\u0301", "bar"], "'café' (then name the folder 'café';"),
    ],
)  # fmt: skip
def test_case_and_synonyms_are_told(outputs: OutputClasses, classes: list[str], meant: str) -> None:
    assert f"did you mean {meant} case and synonyms are not guessed)?" in refusal(outputs, classes)


def test_a_name_of_two_outputs() -> None:
    said = refusal(TIMM, ["crane", "x"])
    assert said.startswith(
        "class 'crane' is the name of 2 outputs of 'lab/net', 134 and 517: name the class folders by"
    )
    assert "n02012849 or n03126707" in said
    assert "this one a WordNet id" in refusal(OutputClasses(3, names=("a", "a", "b")), ["a", "b"])


@pytest.mark.parametrize("text", ["{}", "{:03d}", "{:05d}"])
@pytest.mark.parametrize("outputs", [TIMM, OutputClasses(1000)], ids=["named", "nameless"])
def test_numbers_of_all_outputs(outputs: OutputClasses, text: str) -> None:
    """A class's number is its output, padded or not, and in whatever order the classes are."""
    numbers = [text.format(i) for i in range(1000)]
    assert match_classes("lab/net", outputs, numbers) == ClassMatch(1000, None, "number")
    assert match_classes("lab/net", outputs, sorted(numbers)).outputs in (None, tuple(sorted(range(1000), key=str)))
    assert match_classes("lab/net", outputs, numbers[::-1]).outputs == tuple(range(999, -1, -1))


@pytest.mark.parametrize(
    ("outputs", "numbers", "low", "high"),
    [
        (TIMM, range(200), 0, 199), (TIMM, range(1, 1001), 1, 1000), (NAMELESS, range(1, 11), 1, 10),
        (NAMELESS, range(9), 0, 8), (NAMELESS, [0, 1, 2, 3, 4, 5, 6, 7, 8, 10], 0, 10), (TIMM, range(1001), 0, 1000),
    ],
)  # fmt: skip
def test_other_numbers_are_refused(outputs: OutputClasses, numbers: list[int], low: int, high: int) -> None:
    said = refusal(outputs, list(map(str, numbers)))
    assert said.startswith(
        f"the classes are {len(numbers)} numbers from {low} to {high}, and 'lab/net' has {outputs.count}"
    )
    assert f"only where they are 0 to {outputs.count - 1}, one for each output" in said
    assert ("WordNet" in said) == bool(outputs.wnids)


def test_a_number_that_is_written_twice() -> None:
    assert "numbers are matched only where" in refusal(OutputClasses(3), ["1", "01", "2"])


def test_outputs_without_names_are_matched_by_order() -> None:
    assert match_classes("lab/net", OutputClasses(3), ["a", "b", "c"]) == ClassMatch(3, None, "order")
    assert match_classes("lab/net", OutputClasses(3), ["0", "1", "cat"]) == ClassMatch(3, None, "order")
    # These numbers have one order only. That of 1 to 10 as text is another, and which one was trained is not known.
    assert match_classes("lab/net", NAMELESS, [f"{i:02d}" for i in range(1, 11)]) == ClassMatch(10, None, "order")
    assert match_classes("lab/net", OutputClasses(9), [str(i) for i in range(1, 10)]) == ClassMatch(9, None, "order")
    said = refusal(OutputClasses(3), ["a", "b"])
    assert said.startswith("'lab/net' has 3 outputs without names, and the data set has 2 classes: fine-tune it")


def test_classes_of_another_subject() -> None:
    cub = [f"{i:03d}.Bird_{i}" for i in range(1, 201)]
    said = refusal(TIMM, cub)
    assert said == (
        "none of the 200 classes, such as '001.Bird_1', is among the 1000 outputs of 'lab/net': name the class folders "
        "by WordNet ids or the network's own names, or fine-tune it on the data set (fine_tune=always, training.epochs "
        "above 0)"
    )
    assert "by the network's own names, or fine-tune" in refusal(OutputClasses(2, names=("a", "b")), ["x", "y"])


@pytest.mark.parametrize("name", ["é" * 300, "a\nb", "\u202eabc", "x" * 5000, "'", "{0}", ""])
@pytest.mark.parametrize("outputs", [TIMM, NAMELESS, LARGE["convnext_tiny.in12k"]], ids=["timm", "nameless", "in12k"])
def test_odd_names_make_one_short_sentence(outputs: OutputClasses, name: str) -> None:
    refusal(outputs, [name, "other"])


def test_the_words_for_matches() -> None:
    one = ClassMatch(1000, (1, 2), "wnid")
    assert describe_matches([("a/x", one), ("a/y", one), ("a/z", ClassMatch(2, None, "order"))], 2) == (
        "2 networks keep 2 of their 1000 outputs, matched by WordNet id; a/z keeps all 2 outputs, matched by their "
        "order, since they have no names (the first class is output 0)"
    )
    assert describe_matches([("a/x", ClassMatch(1000, None, "number"))], 1000) == (
        "a/x keeps all 1000 outputs, matched by number (class 0 is output 0)"
    )
