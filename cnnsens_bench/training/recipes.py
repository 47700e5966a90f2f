"""Files of recipes: the best recipe of each model that a search found, in the form that `run recipe=<file>` takes."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnnsens_bench.training.recipe import Recipe
from cnnsens_bench.utils.atomic import write_atomically
from cnnsens_bench.utils.errors import UserError, first_line
from cnnsens_bench.utils.registry import near

FORM = "a file of recipes is what `python -m cnnsens_bench.tune` writes: recipes: {<model>: {epochs: 5, …}}"


def read_recipes(path: Path) -> dict[str, Recipe]:
    """Read a file of recipes.

    Returns
    -------
    dict of str to Recipe
        The recipe of each model. Keys that the file leaves out have the defaults of `Recipe`.

    Raises
    ------
    UserError
        If the file cannot be read, holds no recipes, or one of them is impossible.
    """
    recipes = _content(path)
    if not isinstance(recipes, dict) or not recipes or not all(isinstance(keys, dict) for keys in recipes.values()):
        raise UserError(f"recipe: {path} holds no recipes: {FORM}")
    return {str(model): _recipe(path, model, keys) for model, keys in recipes.items()}


def _content(path: Path) -> Any:
    """Return what the file holds under `recipes`, or None."""
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except FileNotFoundError:
        raise UserError(
            f"recipe: there is no file {path}: write recipe=given, recipe=search or a file's path"
        ) from None
    except Exception as error:  # errors of YAML and of OmegaConf, a binary file, a folder
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"recipe: {path} cannot be read ({reason}): {FORM}") from None
    return content.get("recipes") if isinstance(content, dict) else None


def _recipe(path: Path, model: Any, keys: Mapping[Any, Any]) -> Recipe:
    """Check one model's entry and return its recipe."""
    known = [field.name for field in dataclasses.fields(Recipe)]
    for key in keys:
        if key not in known:
            raise UserError(f"recipe: {path}: unknown key '{key}' of '{model}'{near(str(key), known)}")
    try:
        recipe = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Recipe), keys))
        assert isinstance(recipe, Recipe)
        recipe.check()
    except (OmegaConfBaseException, OverflowError, UserError) as error:
        raise UserError(f"recipe: {path}: recipe of '{model}': {' '.join(first_line(error).split())}") from None
    return recipe


def write_recipes(path: Path, recipes: Mapping[str, Recipe], notes: Mapping[str, str]) -> None:
    """Write a file of recipes, whole or not at all.

    Parameters
    ----------
    path
        The file to replace. Its folder is made where it is missing.
    recipes
        The recipe of each model.
    notes
        A line for some of the models, which becomes a comment above the recipe.
    """
    lines = ["# Best recipes of searches; use them with recipe=<this file>", "recipes:"]
    for model, recipe in sorted(recipes.items()):
        if model in notes:
            lines.append(f"  # {notes[model]}")
        body = OmegaConf.to_yaml(OmegaConf.create({model: dataclasses.asdict(recipe)}))
        lines += [f"  {line}" for line in body.splitlines()]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "\n".join(lines) + "\n")
