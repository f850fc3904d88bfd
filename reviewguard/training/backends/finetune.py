"""Fine-tuning of the whole encoder, or of low-rank adapters on an encoder in full precision or 4 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import torch
from torch import nn

from reviewguard.config import EncoderRecipe, LoopConfig, LoraConfig
from reviewguard.errors import ConfigError, requires
from reviewguard.inference.scoring import Floats, score
from reviewguard.models import lora
from reviewguard.models.device import best_device, compute_dtype
from reviewguard.models.encoder import LoadedEncoder, load_encoder
from reviewguard.models.heads import LinearHead
from reviewguard.models.ngrams import MOST
from reviewguard.models.text_model import TextModel
from reviewguard.training.backends import Labelled, Trained
from reviewguard.training.backends._wide import widen
from reviewguard.training.finetuning import state
from reviewguard.training.finetuning.checkpoint import Run

with requires("train"):
    from reviewguard.training.finetuning import averaging
    from reviewguard.training.finetuning.batches import Rows
    from reviewguard.training.finetuning.loop import fine_tune

__all__ = ["Config", "load", "logits", "train"]


class Config(EncoderRecipe, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of fine-tuning.

    Attributes:
        adapter: "none" trains every weight; "lora" trains adapters on the frozen encoder; "qlora" trains adapters on a frozen
            encoder in NF4.
        lora: Settings of the adapters.
        loop: Settings of the training loop.
        model_soup: Number of runs, with consecutive seeds from `seed`, whose weights are averaged at the end (Wortsman et al.
            2022, arXiv:2203.05482). The result is as fast as one model and often better. Needs `adapter` "none": adapters with
            different random initialisations cannot be averaged.
        ngrams: Number of buckets of a bag of tokens and token pairs that is combined with the encoder, such as 131072. 0: no
            bag. It is fast, and often right where the encoder is wrong. The weights between the two are fitted on validation
            rows, so scores on these rows are slightly optimistic.
    """

    adapter: Literal["none", "lora", "qlora"] = "none"
    lora: LoraConfig = LoraConfig()
    loop: LoopConfig = LoopConfig()
    model_soup: Annotated[int, msgspec.Meta(ge=1)] = 1
    ngrams: Annotated[int, msgspec.Meta(ge=0, le=MOST)] = 0


def load(config: Config) -> LoadedEncoder:
    """Load the encoder, quantised to NF4 for QLoRA.

    Raises:
        ConfigError: If the encoder has a Dense layer after pooling, which fine-tuning replaces, or `model_soup` is combined with
            adapters.
    """
    if config.model_soup > 1 and config.adapter != "none":
        raise ConfigError(
            f"model_soup is {config.model_soup} and adapter is {config.adapter!r}: adapters with different seeds cannot be "
            "averaged; set adapter=none, which trains every weight, or model_soup=1"
        )
    if config.encoder.dense:
        raise ConfigError(
            f"encoder.dense is {config.encoder.dense!r}; fine-tuning replaces it by its own head: set encoder.dense= (empty)"
        )
    with requires("qlora"):
        return load_encoder(config.encoder, None, compute_dtype(config.loop.precision) if config.adapter == "qlora" else None)


def untrained(classes: int, encoder: LoadedEncoder, config: Config) -> TextModel:
    """Build the model before training: new adapters, or every weight trainable, and a new head, on the best device."""
    if config.adapter == "none":
        encoder.encoder.transformer.requires_grad_(True)
        encoder.encoder.tuned = True
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        if config.adapter != "none":
            lora.attach(encoder.encoder, config.lora, encoder.config)
        initial = nn.Linear(encoder.encoder.width, classes)
    head = LinearHead(initial.weight.data, initial.bias.data, config.loop.dropout)
    if encoder.encoder.pooling == "last" and not encoder.encoder.config.is_encoder_decoder:
        # Sequence classification heads of decoders in transformers have no bias; without it, the model can be converted.
        nn.init.zeros_(head.bias.requires_grad_(False))
    return TextModel(encoder.encoder, head).to(best_device())


def train(
    train: Labelled, validation: Labelled | None, *, classes: Sequence[str], encoder: LoadedEncoder, config: Config, run: Run
) -> Trained:
    """Fine-tune the encoder, or adapters on it, with a linear head, and keep the epoch with the best validation F1.

    The history of a model soup is that of its last run.

    Raises:
        ConfigError: If `ngrams` is set without validation rows.
    """
    if config.ngrams and validation is None:
        raise ConfigError("ngrams needs validation rows, and there are none: call train() with validation data, or set ngrams=0")
    rows, held_out = _rows(train, encoder), None if validation is None else _rows(validation, encoder)
    seeds, weights = range(config.seed, config.seed + config.model_soup), []
    for seed, seed_run in zip(seeds, averaging.runs_of(run, seeds), strict=True):
        # Training changes the encoder in place, so each further run loads it again.
        initial = encoder if seed == config.seed else load(config).prepared(train.texts)
        model = untrained(len(classes), initial, msgspec.structs.replace(config, seed=seed))
        history = fine_tune(
            model,
            encoder.tokenizer,
            rows,
            held_out,
            loop=config.loop,
            seed=seed,
            base=f"{encoder.config.weights_sha256} {'nf4' if config.adapter == 'qlora' else 'fp32'}",
            run=seed_run,
        )
        if config.model_soup > 1 or state.is_sharded(model):
            weights.append(state.weights(model))
    if weights:
        model = untrained(len(classes), load(config).prepared(train.texts), config)
        state.load_weights(model, averaging.average(weights), "the trained model")
    if config.ngrams and held_out is not None:
        logits = score(model, encoder.tokenizer, held_out.encoded, "weighing n-grams")
        widen(model, rows, held_out, logits, config.ngrams, config.seed)
    return Trained(model.eval().requires_grad_(False), msgspec.structs.replace(history, averaged=config.model_soup))


def logits(model: TextModel, texts: list[str], *, encoder: LoadedEncoder) -> Floats:
    """Compute logits, float32 (n, classes), with the whole model."""
    return score(model, encoder.tokenizer, encoder.tokenizer.encode(texts), "evaluating")


def _rows(labelled: Labelled, encoder: LoadedEncoder) -> Rows:
    return Rows(encoder.tokenizer.encode(labelled.texts), labelled.y, labelled.weight)
