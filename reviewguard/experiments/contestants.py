"""What takes part in an experiment, from how a user names it to jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from reviewguard import config
from reviewguard.backends import recipe_from
from reviewguard.config import DataConfig
from reviewguard.errors import ConfigError
from reviewguard.experiments.runs import BASELINE, Job

#: Names that stand for several presets: what runs anywhere, and the six approaches of the study of fake reviews.
GROUPS: Final = {
    "minilm": ["minilm-logreg", "minilm-svm", "minilm-mlp", "minilm-finetune", "minilm-qlora+adapter=lora", "minilm-qlora"],
    "study": [
        "stella-qlora",
        "stella-qlora+loop.epochs=5",
        "flan-t5-qlora",
        "stella-mlp",
        "stella-logreg",
        "stella-svm",
    ],
}


def contestants(names: Iterable[str], settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Recipes by name.

    Args:
        names: Each a preset, a recipe in TOML, "tfidf", or a group, with settings after plus signs: `stella-qlora+loop.epochs=5`.
        settings: For all of them.

    Raises:
        ConfigError: If a name or a setting is not known, or there is nothing to run.
    """
    recipes = {}
    for name in (one for given in names for one in GROUPS.get(given, [given])):
        preset, *assignments = name.split("+")
        recipes[name] = recipe_of(preset, {**settings, **config.parse_assignments(assignments)})
    if not recipes:
        raise ConfigError(f"there is nothing to run; name presets (see `reviewguard presets`) or {', '.join(GROUPS)}")
    return recipes


def recipe_of(preset: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A whole recipe as plain data, checked."""
    if preset == BASELINE:
        # It has no settings but those of the data; others are for the contestants beside it.
        data = {name: value for name, value in settings.items() if name.replace("__", ".").startswith("data.")}
        return {"backend": BASELINE, "data": msgspec.to_builtins(data_config(data))}
    recipe: dict[str, Any] = msgspec.to_builtins(recipe_from(config.merge(config.load_preset(preset), settings)))
    return recipe


def data_config(settings: Mapping[str, Any]) -> DataConfig:
    """Settings of the data, of those that are for all runs."""
    return config.decode(config.merge({}, settings).get("data", {}), DataConfig, "data")


def make_jobs(recipes: Mapping[str, dict[str, Any]], seeds: Sequence[int], max_fpr: float, trained_on: str) -> list[Job]:
    """A job for each recipe and seed; one for the baseline, which draws nothing."""
    return [
        Job(
            name=name,
            trained_on=trained_on,
            recipe=recipe if recipe["backend"] == BASELINE else {**recipe, "seed": seed},
            max_fpr=max_fpr,
        )
        for name, recipe in recipes.items()
        for seed in (seeds if recipe["backend"] != BASELINE else seeds[:1])
    ]
