"""The encoder of most models: a transformer, pooling, and optionally a Dense layer and normalisation to unit length."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.utils import logging as transformers_logging

from reviewguard import files
from reviewguard.models import vocabulary
from reviewguard.models.text_model import Encoder

Pooling: TypeAlias = Literal["mean", "last"]


class TransformerEncoder(Encoder):
    """A transformer, pooling, and optionally a Dense layer and normalisation to unit length.

    Attributes:
        vocabulary: Ids of the pieces of the published vocabulary that the encoder has, int64 (pieces,). None: all.
    """

    def __init__(self, transformer: nn.Module, dense: nn.Linear | None, normalize: bool, pooling: Pooling = "mean") -> None:
        """Combine the modules.

        Args:
            transformer: Returns an object with `last_hidden_state` (batch, length, hidden).
            dense: Layer applied to the pooled embedding. None: no layer.
            normalize: Whether to scale embeddings to unit length.
            pooling: See `reviewguard.config.EncoderConfig`.
        """
        super().__init__()
        self.transformer = transformer
        self.dense = dense
        self.normalize = normalize
        self.pooling = pooling
        self.vocabulary: NDArray[np.int64] | None = None

    @property
    def config(self) -> PretrainedConfig:
        """The transformer's configuration."""
        config = self.transformer.config
        assert isinstance(config, PretrainedConfig)
        return config

    @property
    def width(self) -> int:
        """Dimension of the embeddings."""
        return self.dense.out_features if self.dense is not None else int(self.config.hidden_size)

    @property
    def settings(self) -> dict[str, Any]:
        """The transformer's configuration, without local paths."""
        return {name: value for name, value in self.config.to_dict().items() if name != "_name_or_path"}

    def prune(self, ids: NDArray[np.int64]) -> None:
        """Keep only these pieces of the vocabulary, in place; see `reviewguard.models.vocabulary`.

        Raises:
            ValueError: If the ids do not fit the published vocabulary.
        """
        vocabulary.select(self.transformer, ids)
        self.vocabulary = ids

    def random_ids(self, rng: np.random.Generator, rows: int, length: int) -> NDArray[np.int64]:
        """Uniformly drawn token ids (rows, length)."""
        return rng.integers(0, int(self.config.vocab_size), size=(rows, length))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64 (batch, length) token ids and mask to float32 (batch, width) embeddings."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.pooling == "last" and self.config.is_encoder_decoder:
            # The decoder input is the text shifted by one token, as in T5ForSequenceClassification.
            start = torch.full_like(input_ids[:, :1], self.config.decoder_start_token_id)
            inputs["decoder_input_ids"] = torch.cat([start, input_ids[:, :-1]], dim=1)
        hidden = self.transformer(**inputs).last_hidden_state.float()
        pooled = _mean(hidden, attention_mask) if self.pooling == "mean" else _last(hidden, attention_mask)
        if self.dense is not None:
            pooled = self.dense(pooled)
        if self.normalize:
            pooled = nn.functional.normalize(pooled, dim=-1)
        return pooled


def _mean(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean over the real tokens only, so that padding does not change an embedding."""
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def _last(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Hidden state of each row's last token, located by the mask: special tokens typed into a text cannot change its position."""
    last = (attention_mask.sum(dim=1) - 1).clamp(min=0)
    return hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[-1])).squeeze(1)


def transformer_files(transformer: nn.Module) -> dict[str, bytes]:
    """A transformer's configuration and weights in Hugging Face layout: contents by file name.

    After distributed training, the result is empty in all processes but the main one: only that one saves, and transformers
    writes files in no other.
    """
    if not files.is_main_process():
        return {}
    with tempfile.TemporaryDirectory() as scratch, quiet():
        transformer.save_pretrained(scratch, max_shard_size="1TB")  # type: ignore[operator]
        return {name: (Path(scratch) / name).read_bytes() for name in ("config.json", "model.safetensors")}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers, which reports weights that an encoder does not need, such as those of a pooler."""
    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
