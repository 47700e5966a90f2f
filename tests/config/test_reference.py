"""The documentation of the keys: every key has one, and the help text shows it."""

from cnnsens_bench.config.reference import config_keys
from cnnsens_bench.run import help_text


def test_every_key_is_documented() -> None:
    keys = list(config_keys())
    assert len({key.name for key in keys}) == len(keys) > 60
    assert [key.name for key in keys if not key.text.endswith((".", ")"))] == []


def test_the_help_text_has_every_key_and_what_it_means() -> None:
    said = " ".join(help_text().split())
    assert [key.name for key in config_keys() if f" {key.name}=" not in said or key.text not in said] == []
