"""Candidates of an experiment: from the names that a user gives to jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from reviewguard import config
from reviewguard.config import DataConfig
from reviewguard.errors import ConfigError
from reviewguard.evaluation.operating import require_share
from reviewguard.experiments.jobs import Job
from reviewguard.training.backends import recipe_from

#: Preset of the baseline, with which every comparison starts.
BASELINE: Final = "tfidf"
#: Names for groups of presets: those that run anywhere, the six approaches of the study of fake reviews, and the same with MPNet
#: and SmolLM2 in place of Stella and FLAN-T5, next to other ways to train MPNet.
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
    "study-mpnet": [
        "mpnet-qlora",
        "mpnet-qlora+loop.epochs=5",
        "smollm2-qlora",
        "mpnet-mlp",
        "mpnet-logreg",
        "mpnet-svm",
        "mpnet-finetune",
        "mpnet-qlora+adapter=lora",
        "minilm-finetune",
    ],
}


def candidates(names: Iterable[str], settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Recipes by name; a recipe in TOML is named after its file. The baseline is always one of them.

    Args:
        names: Presets, recipes in TOML, or groups, with settings after plus signs: `stella-qlora+loop.epochs=5`.
        settings: Settings of all candidates. The baseline is the same in every comparison and takes only those of the data.

    Raises:
        ConfigError: If a name or a setting is unknown, or two recipes in TOML have the same name.
    """
    of_data = {name: value for name, value in settings.items() if name.replace("__", ".").startswith("data.")}
    recipes: dict[str, dict[str, Any]] = {}
    for name in [*(member for given in names for member in GROUPS.get(given, [given])), BASELINE]:
        preset, *assignments = name.split("+")
        common = of_data if name == BASELINE else settings
        recipe = recipe_of(preset, {**common, **config.parse_assignments(assignments)})
        short = "+".join([Path(preset).stem if preset.endswith(".toml") else preset, *assignments])
        if recipes.setdefault(short, recipe) != recipe:
            raise ConfigError(f"two recipes are called {short!r}; rename one of the files")
    return recipes


def recipe_of(preset: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A complete, validated recipe as plain data."""
    if "seed" in settings:
        raise ConfigError("an experiment sets the seed of each run; list the seeds with seeds (--seeds 1,2,3)")
    recipe = recipe_from(config.merge(config.load_preset(preset), settings))
    # A JSON round trip turns tuples into lists, so that a result read from disk equals the one written.
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(recipe))
    return plain


def data_config(settings: Mapping[str, Any]) -> DataConfig:
    """The data settings among the settings of all runs."""
    return config.decode(config.merge({}, settings).get("data", {}), DataConfig, "data")


def make_jobs(recipes: Mapping[str, dict[str, Any]], seeds: Sequence[int], max_fpr: float, trained_on: str) -> list[Job]:
    """Make a job for each recipe and seed.

    Raises:
        ConfigError: If the seeds or the rate are invalid.
    """
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise ConfigError(f"seeds are distinct whole numbers from 0, at least one; got {', '.join(map(str, seeds)) or 'none'}")
    require_share("max_fpr", max_fpr, "texts that are not positive")
    return [
        Job(name=name, trained_on=trained_on, recipe={**recipe, "seed": seed}, max_fpr=max_fpr)
        for name, recipe in recipes.items()
        for seed in seeds
    ]
