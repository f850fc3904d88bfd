"""Merge adapters into the weights, and measure what changes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
import numpy as np

from reviewguard.bundle.manifest import ADAPTER
from reviewguard.config import EncoderConfig, LoraConfig, decode
from reviewguard.errors import ExportError
from reviewguard.inference.model import TrainedModel
from reviewguard.models import gguf, lora
from reviewguard.models.device import best_device
from reviewguard.models.encoder import load_encoder
from reviewguard.models.files import VOCABULARY, model_files
from reviewguard.models.text_model import TextModel
from reviewguard.models.transformer import TransformerEncoder

Base: TypeAlias = Literal["trained", "original"]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Difference between a merged model and the model with adapters.

    Attributes:
        logit: Largest absolute change of a logit.
        mean_logit: Mean absolute change of a logit.
        flips: Number of texts whose label changes.
    """

    logit: float
    mean_logit: float
    flips: int

    def to_text(self) -> str:
        """Format as a phrase."""
        return f"largest logit change {self.logit:.2g}, mean {self.mean_logit:.2g}, {self.flips} labels changed"


class MergeReport(msgspec.Struct, frozen=True, kw_only=True):
    """Changes caused by merging, for both possible bases.

    Attributes:
        base: The base of the merged model.
        texts: Number of texts compared.
        trained: Change with the weights that the adapters were trained on; dequantised for a 4-bit encoder.
        original: Change with the published full-precision weights.
    """

    base: Base
    texts: int
    trained: Change
    original: Change

    def to_text(self) -> str:
        """Format for a terminal."""
        lines = [f"{name}: {getattr(self, name).to_text()}" for name in ("trained", "original")]
        return "\n".join([f"merged into the {self.base} base; on {self.texts} texts:", *lines])


def is_adapted(trained: TrainedModel) -> bool:
    """Whether a model has adapters to merge."""
    return isinstance(trained.scorer, TextModel) and lora.is_adapted(trained.scorer.encoder)


def merge(trained: TrainedModel, texts: Sequence[str], base: Base) -> tuple[TrainedModel, MergeReport]:
    """Merge a model's adapters in float32, and compare both bases with the model before merging.

    Args:
        trained: Model with adapters. It is not changed.
        texts: Texts for the comparison.
        base: Weights to merge into.

    Raises:
        EncoderError: If the original weights cannot be loaded.
        ExportError: If the model has no adapters, or if no texts are given.
    """
    if not is_adapted(trained):
        raise ExportError(
            "this model has no adapters to merge; only models trained with adapter=lora or adapter=qlora have adapters"
        )
    if not texts:
        raise ExportError("merging needs texts to measure the change on; pass some, such as your validation texts")
    before = trained.logits(texts, "before merging")[0]
    models = {"trained": merged_model(trained), "original": _on_original(trained)}
    changes = {}
    for name, model in models.items():
        after = replace(trained, scorer=model).logits(texts, f"merged into {name}")[0]
        difference = np.abs(after - before)
        flips = int((after.argmax(axis=1) != before.argmax(axis=1)).sum())
        changes[name] = Change(logit=float(difference.max()), mean_logit=float(difference.mean()), flips=flips)
    report = MergeReport(base=base, texts=len(texts), **changes)
    manifest = msgspec.structs.replace(trained.manifest, merged=msgspec.to_builtins(report), files={})
    files = {name: content for name, content in trained.files.items() if not name.startswith((ADAPTER, "encoder/", VOCABULARY))}
    files |= model_files(models[base], trained.tokenizer, manifest)
    return TrainedModel(manifest, trained.tokenizer, models[base], files), report


def merged_model(trained: TrainedModel) -> TextModel:
    """A copy of the model with its adapters merged into the weights they were trained on, dequantised to float32."""
    assert isinstance(trained.scorer, TextModel)
    model = copy.deepcopy(trained.scorer)
    assert isinstance(model.encoder, TransformerEncoder)
    lora.merge(model.encoder)
    return model


def _on_original(trained: TrainedModel) -> TextModel:
    adapted = trained.scorer
    assert isinstance(adapted, TextModel)
    assert isinstance(adapted.encoder, TransformerEncoder)
    recipe, source = trained.manifest.recipe, trained.files.get("encoder/config.json")
    config = decode(recipe["encoder"], EncoderConfig, "encoder")
    folder = None
    if isinstance(source, Path):  # a local encoder: in the bundle, or at its location at training
        folder = source.parent
        config = msgspec.structs.replace(config, weights_sha256=_pin(trained, folder, config.weights_sha256))
    encoder = load_encoder(config, folder).encoder
    if adapted.encoder.vocabulary is not None:
        encoder.prune(adapted.encoder.vocabulary)
    weights = lora.adapter_files(adapted.encoder)[lora.WEIGHTS]
    lora.load_adapter(encoder, decode(recipe["lora"], LoraConfig, "lora"), config, weights)
    lora.merge(encoder)
    return TextModel(encoder, *copy.deepcopy((adapted.head, adapted.bag))).eval().requires_grad_(False).to(best_device())


def _pin(trained: TrainedModel, folder: Path, recorded: str) -> str:
    """SHA-256 of the local encoder's weights; the recipe records that of the GGUF file if they were converted from one."""
    entry = trained.manifest.files.get("encoder/model.safetensors")
    return entry.sha256 if entry is not None else gguf.weights_of(folder, recorded) or recorded
