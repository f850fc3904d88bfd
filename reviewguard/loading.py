"""From a name to a trained model in memory."""

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

#: The built-in model: benchmarks/train_builtin.py made it.
BUILTIN: Final = Path(__file__).parent / "builtin"


def find(name: str | os.PathLike[str] | None, revision: str | None, token: str | None = None) -> Bundle | None:
    """The bundle that a name stands for; None for a preset. See `reviewguard.Classifier.from_pretrained`."""
    name = BUILTIN if name is None else files.expanded(name)
    try:
        local = is_bundle(name) or name.is_dir() or str(name) in config.preset_names()
    except OSError as error:  # a name that no file can have
        raise ConfigError(f"{str(name)[:80]!r} cannot be the name of a model: {error.strerror}") from error
    if local and revision is not None:
        raise ConfigError(f"{str(name)!r} is a folder or a preset here, which has no revision; leave out revision={revision!r}")
    if is_bundle(name):
        return open_bundle(name)
    if name.is_dir():
        raise BundleError(f"the folder {name} holds no model of reviewguard (no reviewguard.json)")
    if str(name) in config.preset_names():
        return None
    if hub.is_repo_id(str(name)):
        return open_bundle(_fetch(str(name), revision, token))
    hint = nearest(str(name), config.preset_names())
    raise ConfigError(f"{str(name)!r} is no folder, no Hub id (owner/name), and no preset; {hint}")


def _fetch(repo: str, revision: str | None, token: str | None) -> Path:
    """A bundle on the Hub: the files that its manifest lists, and nothing else of what may lie beside them."""
    first = hub.fetch(repo, revision, BundleError, only=[MANIFEST], token=token)
    if not (first / MANIFEST).is_file():
        raise BundleError(
            f"{repo} (revision {revision or 'main'}) on the Hugging Face Hub holds no model of reviewguard (no {MANIFEST})"
        )
    names = [glob.escape(name) for name in read_manifest(first).files]
    # By the commit, which the folder is named after: a branch may have moved on.
    return hub.fetch(repo, first.name, BundleError, only=[MANIFEST, *names], token=token)


def recipe_of(bundle: Bundle) -> dict[str, Any]:
    """The recipe of a bundle, as it holds on this machine."""
    recipe = bundle.manifest.recipe
    if recipe.get("encoder", {}).get("repo") == "encoder":
        # Its weights may have been trained since the recipe pinned them; the manifest has verified those of the bundle.
        recipe = config.merge(recipe, {"encoder.repo": str(bundle.folder / "encoder"), "encoder.weights_sha256": ""})
    return recipe


def load(bundle: Bundle, runtime: Engine = "auto", precision: Precision = "auto", threads: int = 0) -> TrainedModel:
    """Load a bundle: an export by an engine (see `reviewguard.inference.engines.select`), anything else by torch."""
    manifest = bundle.manifest
    tokenizer = Tokenizer(bundle.read("tokenizer.json"), bundle.read("tokenizer_config.json"), manifest.max_length)
    if manifest.windows is not None and manifest.windows.overlap >= tokenizer.room:
        raise BundleError(
            f"{bundle.folder / MANIFEST} is malformed: windows overlap by {manifest.windows.overlap} tokens, and one holds only "
            f"{tokenizer.room} of a text"
        )
    scorer: Scorer
    if is_export(bundle):
        scorer = open_scorer(bundle, runtime, precision, threads)
        if adapted.FILE in bundle:
            if manifest.positive is None:
                raise BundleError(
                    f"{bundle.folder} holds {adapted.FILE}, which is for two classes; it has {len(manifest.classes)}"
                )
            correction = adapted.from_file(bundle.read(adapted.FILE))
            scorer = adapted.AdaptedScorer(scorer, correction, manifest.classes.index(manifest.positive))
    elif (runtime, precision, threads) != ("auto", "auto", 0):
        raise ConfigError("runtime, precision and threads are for exports; this model is computed by torch: export() it first")
    else:
        with requires("train"):
            from reviewguard.models.files import load_model
        scorer = load_model(bundle, config.decode(recipe_of(bundle).get("encoder", {}), config.EncoderConfig, "encoder"))
    return TrainedModel(manifest, tokenizer, scorer, {name: bundle.path(name) for name in manifest.files})
