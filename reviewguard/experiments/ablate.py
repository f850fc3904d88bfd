"""Ablation: change one setting at a time and measure the effect."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reviewguard import config as settings_
from reviewguard.data.reviews import read
from reviewguard.data.tables import Data
from reviewguard.errors import ConfigError
from reviewguard.experiments import charts, sections
from reviewguard.experiments.candidates import data_config, recipe_of
from reviewguard.experiments.comparison import Comparison, run_comparison
from reviewguard.experiments.experiment import Experiment, about, mean, percent, spread
from reviewguard.experiments.page import Block, Figure, Page, Section, Table
from reviewguard.experiments.results import folder_at
from reviewguard.experiments.rows import divide_source, name_of
from reviewguard.experiments.significance import Difference, paired

#: Settings that are varied by default if the recipe has them: the ablations of the study.
USUAL = (
    "loop.epochs=1,2,3,5",
    "lora.r=4,16,64",
    'lora.target_modules=["query","value"],["query","key","value"],all-linear',
    "lora.rank_stabilized=true,false",
    "adapter=none,lora,qlora",
    "data.normalization=typography,study,none",
    "data.near_duplicates=0,0.8",
)


def ablate(
    data: Data,
    preset: str,
    vary: Iterable[str] = (),
    *,
    out: str | os.PathLike[str],
    seeds: Sequence[int] = (42, 43, 44),
    jobs: int = 1,
    max_fpr: float = 0.01,
    settings: Mapping[str, Any] | None = None,
    command: str = "reviewguard.experiments.ablate",
) -> Experiment:
    """Train a recipe unchanged and with one setting changed at a time, on the same rows; see also `compare`.

    Args:
        data: As for `Classifier.train`.
        preset: The preset to vary.
        vary: Settings with their values, such as `lora.r=4,16,64`. The recipe's own value is not run twice. Empty: the settings
            in `USUAL` that the recipe has.
        out: As for `compare`.
        seeds: As for `compare`.
        jobs: As for `compare`.
        max_fpr: As for `compare`.
        settings: Settings of the recipe that is varied.
        command: The command that the report names.

    Raises:
        ConfigError: If a setting is unknown, or there is nothing to vary.
        DataError: If the rows cannot be used, or every run failed.
        TrainingInterrupted: After Ctrl-C or SIGTERM; the same call resumes.
    """
    given, folder = settings or {}, folder_at(out)
    config = data_config(given)
    base = recipe_of(preset, given)
    requested = list(vary) or [setting for setting in USUAL if _value(base, setting.partition("=")[0]) is not None]
    if not requested:
        raise ConfigError(f"there is nothing to vary in {preset!r}; name settings, such as C=1,10,100")
    recipes = {preset: base}
    factors: dict[str, dict[str, str]] = {}
    for assignment in requested:
        key, _, values = assignment.partition("=")
        if not settings_.split_list(values):
            raise ConfigError(f"a varied setting needs values, such as {key}=V1,V2; got {assignment!r}")
        factors[key] = {}
        for value in settings_.split_list(values):
            changed = recipe_of(preset, {**given, **settings_.parse_assignments([f"{key}={value}"])})
            name = preset if changed == base else f"{preset}+{key}={value}"
            recipes[name], factors[key][value] = changed, name
    source = divide_source(read(data, text=config.text, label=config.label, settings=config), config, name_of(data))
    comparison = run_comparison(source, recipes, config, folder, seeds=seeds, jobs=jobs, max_fpr=max_fpr)
    page = _page(comparison, preset, factors, max_fpr, command)
    page.save(folder)
    return Experiment(results=[*comparison.results, comparison.control], page=page, folder=folder)


def _page(comparison: Comparison, preset: str, factors: dict[str, dict[str, str]], max_fpr: float, command: str) -> Page:
    evidence = comparison.evidence
    pairs = paired(evidence.right())
    return Page(
        title=f"Ablation of {preset} on {comparison.source.name}",
        short=[*_findings(comparison, preset, pairs), *sections.shared_findings(comparison)],
        sections=[
            *(_factor(comparison, preset, key, values, pairs) for key, values in factors.items()),
            sections.scores(evidence, max_fpr),
            *([sections.differences(evidence, pairs, preset)] if preset in evidence.results else []),
            Section("Cost", [sections.costs(evidence)]),
            sections.leakage(evidence, comparison.audit),
            *sections.runs(comparison.results),
        ],
        about=about(comparison.results, command),
    )


def _findings(comparison: Comparison, preset: str, pairs: Mapping[tuple[str, str], Difference]) -> list[str]:
    if preset not in comparison.evidence.results:
        return [f"{preset} itself failed, so there is nothing to compare with."]
    changes = [(pairs[name, preset], name.removeprefix(f"{preset}+")) for name in comparison.evidence.results if name != preset]
    significant = [(pair, name) for pair, name in changes if pair.significant]
    short = [f"{preset}: accuracy {percent(sections.accuracy(comparison.evidence, preset))} %, {len(changes)} changes tested."]
    for pair, name in sorted(significant, key=lambda item: item[0].difference.value or 0):
        short.append(f"{name}: {percent(pair.difference)} points, significant.")
    if len(significant) < len(changes):
        short.append(f"The other {len(changes) - len(significant)} changes are not significant.")
    return short


def _factor(
    comparison: Comparison, preset: str, key: str, values: dict[str, str], pairs: Mapping[tuple[str, str], Difference]
) -> Section:
    evidence = comparison.evidence
    done = {value: name for value, name in values.items() if name in evidence.results}
    rows, estimates, seeds = [], [], []
    for value, name in done.items():
        estimates.append(sections.accuracy(evidence, name))
        seeds.append(sections.accuracies(evidence, name))
        f1 = mean([scores.metrics["f1"] for scores in evidence.scores(name)])
        difference = percent(pairs[name, preset].difference) if name != preset and preset in evidence.results else ""
        rows.append(
            [
                f"{value}{' (preset)' if name == preset else ''}",
                percent(estimates[-1]),
                spread(seeds[-1]),
                percent(f1),
                difference,
            ]
        )
    blocks: list[Block] = [Table([key, "accuracy", "SD over seeds", "f1", f"accuracy minus {preset}"], rows)]
    if len(done) > 1:
        picture = charts.steps(list(done), estimates, seeds, key, "accuracy")
        blocks.insert(
            0, Figure(key.replace(".", "-"), f"Accuracy by {key}; the band is the interval, rings are single seeds.", picture)
        )
    return Section(key, blocks)


def _value(recipe: Mapping[str, Any], key: str) -> Any:
    for part in key.split("."):
        if not isinstance(recipe, Mapping) or part not in recipe:
            return None
        recipe = recipe[part]
    return recipe
