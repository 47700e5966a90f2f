"""Results that leave the maker's machine have no paths of it, and everything else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnsens_bench.store.submission.redact import public, public_error, public_json, shortened

PARTS = st.text(
    st.characters(blacklist_characters="/\\:'\"\n\r", blacklist_categories=("Cs", "Cc")), min_size=1
).filter(lambda part: part.strip(".") and part == part.strip())


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("/home/me/data/CUB_200_2011", "<folder>/CUB_200_2011"),
        ("/home/me/data/", "<folder>/data"),
        ("~/weights/mine.pth", "<folder>/mine.pth"),
        ("s3://bucket/me/mine.pth", "<folder>/mine.pth"),
        ("https://user:secret@host", "<folder>/"),
        ("C:\\Users\\me\\mine.pth", "<folder>/mine.pth"),
        ("C:/Users/me/mine.pth", "<folder>/mine.pth"),
        ("\\\\server\\share\\mine.pth", "<folder>/mine.pth"),
        ("torchvision/alexnet", "torchvision/alexnet"),
        ("runs/quick", "runs/quick"),
        ("<folder>/CUB_200_2011", "<folder>/CUB_200_2011"),
        ("gaussian_intensity(4) + pepper(0.02)", "gaussian_intensity(4) + pepper(0.02)"),
    ],
)
def test_paths_lose_their_folders(path: str, short: str) -> None:
    assert public(path) == short
    assert public(short) == short


@pytest.mark.parametrize(
    ("error", "public_text"),
    [
        ("/home/me/a bird.jpg: the image cannot be read", "<folder>/a bird.jpg: the image cannot be read"),
        ("[Errno 2] No such file: '/home/me/a b/c d.jpg'", "[Errno 2] No such file: '<folder>/c d.jpg'"),
        ("cannot open (/mnt/x/y.png), 3/4 of timm/resnet18", "cannot open (<folder>/y.png), 3/4 of timm/resnet18"),
        ("no luck with s3://bucket/me/y.png.", "no luck with <folder>/y.png."),
        ("1 / 2 and either/or", "1 / 2 and either/or"),
    ],
)
def test_paths_within_sentences(error: str, public_text: str) -> None:
    assert public_error(error) == public_text


@given(st.lists(PARTS, min_size=2, max_size=5))
def test_no_folder_is_left(parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    assert shortened(path) == f"<folder>/{parts[-1]}"
    for public_text in (public_error(f"{path}: broken"), public_error(f"cannot read '{path}'")):
        assert f"<folder>/{parts[-1]}" in public_text
        assert "/".join(parts[:-1]) + "/" not in public_text.replace("<folder>/", "")


def test_a_config_keeps_what_changes_numbers() -> None:
    config = {
        "seed": 3,
        "output": "/home/me/runs",
        "cache": None,
        "data_root": "../secret/data",
        "tracking": {"uri": "https://user:secret@host"},
        "cluster": {"address": "10.0.0.1"},
        "dataset": {"root": "/home/me/CUB_200_2011", "options": {"masks": "/home/me/masks"}},
        "models": ["timm/resnet18", {"name": "torchvision/alexnet", "weights": "/home/me/mine.pth"}],
    }
    assert json.loads(public_json(json.dumps(config))) == {
        "seed": 3,
        "data_root": "<folder>/data",
        "dataset": {"root": "<folder>/CUB_200_2011", "options": {"masks": "<folder>/masks"}},
        "models": ["timm/resnet18", {"name": "torchvision/alexnet", "weights": "<folder>/mine.pth"}],
    }
