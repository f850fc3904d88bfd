"""Fine-tuning: all of the encoder, or low-rank adapters on it, in full precision or over four bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import torch
from torch import nn

from reviewguard.config import LoopConfig, LoraConfig, Recipe
from reviewguard.errors import ConfigError, requires
from reviewguard.inference.scoring import Floats, compute
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


class Config(Recipe, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of fine-tuning.

    Attributes:
        adapter: "none" trains every weight; "lora" adapters on the frozen encoder; "qlora" adapters on an encoder in NF4.
        lora: The adapters.
        loop: The training loop.
        model_soup: Number of runs, with seeds from `seed` on, whose weights are averaged at the end (Wortsman et al. 2022,
            arXiv:2203.05482), as fast as one model and often better. Needs `adapter` "none": adapters that began at random do not
            average.
        ngrams: Buckets for a bag of tokens and pairs of them beside the encoder, such as 131072; 0: none. It is quick, and often
            right where the encoder errs. Validation rows weigh the two against each other, so figures on them flatter a little.
    """

    adapter: Literal["none", "lora", "qlora"] = "none"
    lora: LoraConfig = LoraConfig()
    loop: LoopConfig = LoopConfig()
    model_soup: Annotated[int, msgspec.Meta(ge=1)] = 1
    ngrams: Annotated[int, msgspec.Meta(ge=0, le=MOST)] = 0


def load(config: Config) -> LoadedEncoder:
    """Load the encoder, quantised to NF4 for QLoRA.

    Raises:
        ConfigError: If the encoder has a Dense layer after pooling, which fine-tuning has no use for, or a soup is to be made of
            adapters.
    """
    if config.model_soup > 1 and config.adapter != "none":
        raise ConfigError(
            f"model_soup is {config.model_soup}, and adapter {config.adapter!r}: adapters of different seeds do not average; "
            "set adapter=none, which trains every weight, or model_soup=1"
        )
    if config.encoder.dense:
        raise ConfigError(
            f"encoder.dense is {config.encoder.dense!r}; fine-tuning puts its own head there: set encoder.dense= (empty)"
        )
    with requires("qlora"):
        return load_encoder(config.encoder, None, compute_dtype(config.loop.precision) if config.adapter == "qlora" else None)


def untrained(classes: int, encoder: LoadedEncoder, config: Config) -> TextModel:
    """The model as training finds it: new adapters, or every weight trainable, under a new head, on the best device."""
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
        # A decoder's class for sequence classification in transformers has no bias; without it, both are one.
        nn.init.zeros_(head.bias.requires_grad_(False))
    return TextModel(encoder.encoder, head).to(best_device())


def train(
    train: Labelled, validation: Labelled | None, *, classes: Sequence[str], encoder: LoadedEncoder, config: Config, run: Run
) -> Trained:
    """Fine-tune the encoder, or adapters on it, under a linear head, and keep the best epoch by validation F1.

    The history of a soup is that of its last run.

    Raises:
        ConfigError: If there are to be n-grams, and no validation rows.
    """
    if config.ngrams and validation is None:
        raise ConfigError("n-grams are weighed on validation rows, and there are none: use train() with some, or set ngrams=0")
    rows, held_out = _rows(train, encoder), None if validation is None else _rows(validation, encoder)
    seeds, found = range(config.seed, config.seed + config.model_soup), []
    for seed, own in zip(seeds, averaging.runs_of(run, seeds), strict=True):
        # A run changes the encoder that it was given.
        begun = encoder if seed == config.seed else load(config)
        model = untrained(len(classes), begun, msgspec.structs.replace(config, seed=seed))
        history = fine_tune(
            model,
            encoder.tokenizer,
            rows,
            held_out,
            loop=config.loop,
            seed=seed,
            base=f"{encoder.config.weights_sha256} {'nf4' if config.adapter == 'qlora' else 'fp32'}",
            run=own,
        )
        if config.model_soup > 1 or state.is_sharded(model):
            found.append(state.weights(model))
    if found:
        model = untrained(len(classes), load(config), config)
        state.load_weights(model, averaging.average(found), "what was trained")
    if config.ngrams and held_out is not None:
        logits = compute(model.logits, encoder.tokenizer, held_out.encoded, model.token_budget, "weighing n-grams")
        widen(model, rows, held_out, logits, config.ngrams, config.seed)
    return Trained(model.eval().requires_grad_(False), msgspec.structs.replace(history, averaged=config.model_soup))


def logits(model: TextModel, texts: list[str], *, encoder: LoadedEncoder) -> Floats:
    """Logits, float32 (n, classes), by the whole model."""
    return compute(model.logits, encoder.tokenizer, encoder.tokenizer.encode(texts), model.token_budget, "evaluating")


def _rows(labelled: Labelled, encoder: LoadedEncoder) -> Rows:
    return Rows(encoder.tokenizer.encode(labelled.texts), labelled.y, labelled.weight)
