"""Files of recipes: what a search found, by model, in the form that `run recipe=<file>` takes."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.registry import near

FORM = "a file of recipes is what `python -m cnnsens_bench.tune` writes: recipes: {<model>: {epochs: 5, …}}"


def read_recipes(path: Path) -> dict[str, Recipe]:
    """model → its recipe; keys left out take the defaults of `Recipe`. Raises `UserError` for a bad file."""
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except FileNotFoundError:
        raise UserError(
            f"recipe: there is no file {path}: write recipe=given, recipe=search or a file's path"
        ) from None
    except Exception as error:  # YAML's and OmegaConf's own kinds, binary files, folders
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"recipe: {path} cannot be read ({reason}): {FORM}") from None
    given = content.get("recipes") if isinstance(content, dict) else None
    if not isinstance(given, dict) or not given or not all(isinstance(values, dict) for values in given.values()):
        raise UserError(f"recipe: {path} holds no recipes: {FORM}")
    known = [f.name for f in dataclasses.fields(Recipe)]
    recipes = {}
    for model, values in given.items():
        for key in values:
            if key not in known:
                raise UserError(f"recipe: {path}: unknown key '{key}' of '{model}'{near(str(key), known)}")
        try:
            recipe = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Recipe), values))
        except (OmegaConfBaseException, OverflowError) as error:
            reason = " ".join(str(error).splitlines()[0].split())
            raise UserError(f"recipe: {path}: recipe of '{model}': {reason}") from None
        assert isinstance(recipe, Recipe)
        try:
            recipe.check()
        except UserError as error:
            raise UserError(f"recipe: {path}: recipe of '{model}': {error}") from None
        recipes[str(model)] = recipe
    return recipes


def write_recipes(path: Path, recipes: Mapping[str, Recipe], notes: Mapping[str, str]) -> None:
    """Write them whole or not at all, each headed by its note (one line)."""
    lines = ["# Best recipes of searches; use them with recipe=<this file>", "recipes:"]
    for model, recipe in sorted(recipes.items()):
        if model in notes:
            lines.append(f"  # {notes[model]}")
        body = OmegaConf.to_yaml(OmegaConf.create({model: dataclasses.asdict(recipe)}))
        lines += [f"  {line}" for line in body.splitlines()]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(path)
