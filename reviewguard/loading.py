"""Load a trained model by name."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Any, Final

from reviewguard import config, files
from reviewguard.bundle import hub
from reviewguard.bundle.folder import Bundle, is_bundle, open_bundle
from reviewguard.bundle.manifest import MANIFEST, read_manifest
from reviewguard.data.tokens import Tokenizer
from reviewguard.errors import BundleError, ConfigError, nearest, requires
from reviewguard.inference.engines import adapted
from reviewguard.inference.engines.select import Engine, Precision, is_export, open_scorer
from reviewguard.inference.model import TrainedModel
from reviewguard.inference.scoring import Scorer

#: The built-in model, trained by benchmarks/train_builtin.py.
BUILTIN: Final = Path(__file__).parent / "builtin"


def find(name: str | os.PathLike[str] | None, revision: str | None, token: str | None = None) -> Bundle | None:
    """Find the bundle that a name refers to; None for a preset. See `reviewguard.Classifier.from_pretrained`."""
    name = BUILTIN if name is None else files.expanded(name)
    try:
        local = is_bundle(name) or name.is_dir() or str(name) in config.preset_names()
    except OSError as error:  # not a valid file name
        raise ConfigError(f"{str(name)[:80]!r} is not a valid model name: {error.strerror}") from error
    if local and revision is not None:
        raise ConfigError(f"{str(name)!r} is a local folder or a preset, which has no revision; omit revision={revision!r}")
    if is_bundle(name):
        return open_bundle(name)
    if name.is_dir():
        raise BundleError(f"the folder {name} does not contain a reviewguard model (no reviewguard.json)")
    if str(name) in config.preset_names():
        return None
    if hub.is_repo_id(str(name)):
        return open_bundle(_fetch(str(name), revision, token))
    hint = nearest(str(name), config.preset_names())
    raise ConfigError(f"{str(name)!r} is not a folder, a Hub id (owner/name) or a preset; {hint}")


def _fetch(repo: str, revision: str | None, token: str | None) -> Path:
    """Download a bundle from the Hub: only the files that its manifest lists."""
    first = hub.fetch(repo, revision, BundleError, only=[MANIFEST], token=token)
    if not (first / MANIFEST).is_file():
        raise BundleError(
            f"{repo} (revision {revision or 'main'}) on the Hugging Face Hub does not contain a reviewguard model (no {MANIFEST})"
        )
    names = [glob.escape(name) for name in read_manifest(first).files]
    # Pin the commit, which is the folder's name: the branch may have changed since.
    return hub.fetch(repo, first.name, BundleError, only=[MANIFEST, *names], token=token)


def recipe_of(bundle: Bundle) -> dict[str, Any]:
    """The bundle's recipe, with a local encoder's path on this machine."""
    recipe = bundle.manifest.recipe
    if recipe.get("encoder", {}).get("repo") == "encoder":
        # Training may have changed the weights that the recipe pins; the bundle's own weights are verified against the manifest.
        recipe = config.merge(recipe, {"encoder.repo": str(bundle.folder / "encoder"), "encoder.weights_sha256": ""})
    return recipe


def load(bundle: Bundle, runtime: Engine = "auto", precision: Precision = "auto", threads: int = 0) -> TrainedModel:
    """Load a bundle: exports with an engine (see `reviewguard.inference.engines.select`), other models with torch."""
    manifest = bundle.manifest
    tokenizer = Tokenizer(bundle.read("tokenizer.json"), bundle.read("tokenizer_config.json"), manifest.max_length)
    if manifest.windows is not None and manifest.windows.overlap >= tokenizer.room:
        raise BundleError(
            f"{bundle.folder / MANIFEST} is malformed: windows overlap by {manifest.windows.overlap} tokens, but hold only "
            f"{tokenizer.room} tokens of text"
        )
    scorer: Scorer
    if is_export(bundle):
        scorer = open_scorer(bundle, runtime, precision, threads)
        if adapted.FILE in bundle:
            if manifest.positive is None:
                raise BundleError(
                    f"{bundle.folder} contains {adapted.FILE}, which requires two classes; the model has {len(manifest.classes)}"
                )
            correction = adapted.from_file(bundle.read(adapted.FILE))
            scorer = adapted.AdaptedScorer(scorer, correction, manifest.classes.index(manifest.positive))
    elif (runtime, precision, threads) != ("auto", "auto", 0):
        raise ConfigError("runtime, precision and threads apply to exports only; this model runs in torch: export() it first")
    else:
        with requires("train"):
            from reviewguard.models.files import load_model
        scorer = load_model(bundle, recipe_of(bundle))
    return TrainedModel(manifest, tokenizer, scorer, {name: bundle.path(name) for name in manifest.files})
