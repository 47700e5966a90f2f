"""Pages of the reference that the program itself knows best: config keys, columns of the database, help texts."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cnnsens_bench import open_results
from cnnsens_bench.cli import COMMANDS, help_of
from cnnsens_bench.config.reference import config_keys
from cnnsens_bench.store import Store

COLUMNS = """SELECT table_name, column_name, data_type FROM information_schema.columns
    WHERE table_name IN (SELECT table_name FROM duckdb_tables() UNION ALL
        SELECT view_name FROM duckdb_views() WHERE NOT internal)
    ORDER BY table_name, ordinal_position"""
TYPES = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}


def write_references(folder: Path) -> None:
    """Write the generated pages into a folder, which `include` directives of the reference read."""
    folder.mkdir(exist_ok=True)
    for name, lines in {"keys": config_table(), "columns": column_lists(), "commands": help_texts()}.items():
        (folder / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def config_table() -> Iterator[str]:
    """Yield a table of every key of the configuration, with its default and its meaning."""
    yield from ("| key | default | meaning |", "|---|---|---|")
    for key in config_keys():
        cells = (f"`{key.name}`", f"`{json.dumps(key.default)}`", key.text)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def column_lists() -> Iterator[str]:
    """Yield the columns of every table and view, with their types, as an empty database has them."""
    with tempfile.TemporaryDirectory() as folder:
        Store(Path(folder)).open()
        found = open_results(folder).query(COLUMNS)
    yield from ("| table or view | columns |", "|---|---|")
    for table, columns in found.groupby("table_name", sort=False):
        types = columns["data_type"].replace(TYPES)
        listed = (f"`{name}` {kind}" for name, kind in zip(columns["column_name"], types, strict=True))
        yield f"| `{table}` | {', '.join(listed)} |"


def help_texts() -> Iterator[str]:
    """Yield the help text of every command and subcommand."""
    os.environ["COLUMNS"] = "100"
    for command in COMMANDS:
        text = help_of(command)
        yield from (f"## {command}", "", "```text", text.rstrip(), "```", "")
        for choice in re.findall(r"^    ([a-z][a-z0-9-]+)(?:  |$)", text, re.MULTILINE):
            yield from (f"### {command} {choice}", "", "```text", help_of(command, choice).rstrip(), "```", "")
