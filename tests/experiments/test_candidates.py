"""From how a user names what takes part to jobs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from reviewguard import config
from reviewguard.errors import ConfigError
from reviewguard.experiments.candidates import GROUPS, candidates, data_config, make_jobs
from reviewguard.training.backends import recipe_from


@pytest.mark.parametrize("group", GROUPS)
def test_groups_stand_for_presets(group: str) -> None:
    recipes = candidates([group], {"data.text": "review"})
    assert list(recipes) == [*GROUPS[group], "tfidf"]
    for name, recipe in recipes.items():
        assert recipe["data"]["text"] == "review"
        assert recipe.get("encoder", {}).get("repo") == config.load_preset(name.split("+")[0]).get("encoder", {}).get("repo")
        assert msgspec.json.decode(msgspec.json.encode(recipe_from(recipe))) == recipe, "whole: every setting has its value"


def test_the_study_has_six_approaches() -> None:
    assert [name.split("-")[0] for name in GROUPS["study"]].count("stella") == 5
    assert candidates(["study"], {})["stella-qlora+loop.epochs=5"]["loop"]["epochs"] == 5


def test_settings_come_after_plus_signs() -> None:
    own = "minilm-qlora+lora.r=4+lora.target_modules=[\"query\",'value']"
    recipes = candidates([own, "minilm-qlora"], {"lora__r": 16})
    assert list(recipes) == [own, "minilm-qlora", "tfidf"]
    assert recipes[own]["lora"]["r"] == 4
    assert tuple(recipes[own]["lora"]["target_modules"]) == ("query", "value")
    assert recipes["minilm-qlora"]["lora"]["r"] == 16
    with pytest.raises(ConfigError, match="sets the seed of each run"):
        candidates(["minilm-qlora+seed=7"], {})


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('backend = "logreg"\nC = 3\n[encoder]\nrepo = "somewhere"\n')
    recipe = candidates([f"{path}+C=5"], {})["own+C=5"]
    assert recipe["C"] == 5
    assert recipe["encoder"]["repo"] == "somewhere"
    other = tmp_path / "folder" / "own.toml"
    other.parent.mkdir()
    other.write_text('backend = "logreg"\n[encoder]\nrepo = "elsewhere"\n')
    assert candidates([str(path), str(path)], {}).keys() == {"own", "tfidf"}
    with pytest.raises(ConfigError, match="two recipes are called 'own'"):
        candidates([str(path), str(other)], {})


@pytest.mark.parametrize(
    ("names", "settings", "said"),
    [
        (["minilm-logrek"], {}, r"no preset is called 'minilm-logrek'; did you mean 'minilm-logreg'\?"),
        (["minilm-logreg+D=3"], {}, "D is not an option"),
        (["minilm-logreg"], {"loop.epochs": 3}, "loop is not an option"),
        (["minilm-logreg+C"], {}, "an override must be KEY=VALUE"),
        (["minilm-logreg+C=much"], {}, "the recipe has an invalid value"),
        (["tfidf"], {"data.labl": "review"}, r"data\.labl is not an option; did you mean 'label'\?"),
        (["tfidf+data.tekst=review"], {}, r"data\.tekst is not an option"),
    ],
)
def test_unknown_names_are_rejected(names: list[str], settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        candidates(names, settings)


def test_the_baseline_is_always_included_and_has_only_common_settings_of_the_data() -> None:
    recipes = candidates(["tfidf+C=3"], {"data__text": "review", "data.normalization": "study", "max_features": 9})
    assert list(recipes) == ["tfidf+C=3", "tfidf"]
    assert [(recipe["C"], recipe["max_features"]) for recipe in recipes.values()] == [(3, 9), (1, 100_000)]
    for recipe in recipes.values():
        assert (recipe["data"]["text"], recipe["data"]["normalization"]) == ("review", "study")
    assert list(candidates(["tfidf", "minilm-logreg"], {"encoder__repo": "x"})) == ["tfidf", "minilm-logreg"]


def test_settings_of_the_data() -> None:
    found = data_config({"data.text": "review", "data__test": "0.5", "C": 3})
    assert (found.text, found.test, found.label) == ("review", 0.5, "")
    with pytest.raises(ConfigError, match="data has an invalid value"):
        data_config({"data.test": 2})


def test_every_seed_is_a_job() -> None:
    recipes = candidates(["minilm-logreg", "tfidf"], {})
    jobs = make_jobs(recipes, (3, 1, 2), 0.05, trained_on="garden")
    assert [(job.name, job.recipe.get("seed")) for job in jobs] == [
        *(("minilm-logreg", seed) for seed in (3, 1, 2)),
        *(("tfidf", seed) for seed in (3, 1, 2)),
    ]
    assert {(job.max_fpr, job.trained_on) for job in jobs} == {(0.05, "garden")}
    assert {**jobs[0].recipe, "seed": 42} == recipes["minilm-logreg"]
