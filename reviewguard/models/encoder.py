"""Text encoders: a transformer, pooling, and optionally a Dense layer and normalisation to unit length."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import normalizers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, BitsAndBytesConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from reviewguard import files
from reviewguard.config import EncoderConfig, Recipe
from reviewguard.data.tokens import Tokenizer
from reviewguard.errors import EncoderError
from reviewguard.models import vocabulary
from reviewguard.models.device import best_device
from reviewguard.models.sources import WEIGHTS, encoder_files, locate, weights_sha256
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


class LoadedEncoder(NamedTuple):
    """An encoder with its tokenizer and source.

    `config` is the requested configuration with the SHA-256 of the weights filled in; `folder` contains the files.
    """

    encoder: TransformerEncoder
    tokenizer: Tokenizer
    config: EncoderConfig
    folder: Path

    def prepared(self, texts: Sequence[str]) -> LoadedEncoder:
        """Adapt to the normalised training texts: prune the vocabulary if the configuration says so.

        Raises:
            EncoderError: If the vocabulary cannot be pruned.
        """
        if not self.config.prune_vocabulary:
            return self
        try:
            ids, tokenizer = vocabulary.prune(self.tokenizer, self.encoder.config, texts)
            self.encoder.prune(ids)
        except ValueError as error:
            raise EncoderError(f"cannot prune the vocabulary of {self.config.repo}: {error}") from error
        return self._replace(tokenizer=tokenizer)

    def pinned(self, recipe: Recipe) -> Recipe:
        """The recipe with the hash of the weights. A local encoder is part of the model, and its path is replaced."""
        config = msgspec.structs.replace(self.config, repo="encoder") if self._local else self.config
        return msgspec.structs.replace(recipe, encoder=config)

    def files(self) -> dict[str, Path]:
        """Files of a local encoder that was not trained, by their path in a bundle. Others are fetched again, or saved."""
        if not self._local or self.encoder.tuned:
            return {}
        return {f"encoder/{name}": path for name, path in encoder_files(self.folder, self.config.dense).items()}

    @property
    def _local(self) -> bool:
        return Path(self.config.repo).exists()


def load_encoder(config: EncoderConfig, folder: Path | None = None, four_bit: torch.dtype | None = None) -> LoadedEncoder:
    """Load a frozen encoder without running any code from its repository.

    Stella's published checkpoint (`model_type: "new"`) is loaded as transformers' own `gte`.

    Args:
        config: Encoder settings.
        folder: Folder of the encoder's files. None: `locate` finds it.
        four_bit: Compute type of linear layers that are quantised to NF4 with double quantisation (Dettmers et al. 2023,
            arXiv:2305.14314) on the best device. None: the encoder stays in float32.

    Raises:
        EncoderError: If the weights are not available, differ from the pinned ones, or have an unsupported architecture.
    """
    folder, digest = locate(config) if folder is None else (folder, weights_sha256(folder, config.dense))
    if config.weights_sha256 and digest != config.weights_sha256:
        raise EncoderError(
            f"the weights in {folder} have sha256 {digest}, but the recipe pins {config.weights_sha256}. To use these weights, "
            "set encoder.weights_sha256 to their sha256, or leave it empty"
        )
    try:
        model_config = read_config(folder)
        transformer = _load_transformer(folder, model_config, four_bit)
        longest = _positions(model_config)
        if config.max_length > longest:
            raise ValueError(f"encoder.max_length is {config.max_length}, but this encoder supports at most {longest} tokens")
        if model_config.is_encoder_decoder and config.pooling == "mean":
            transformer = transformer.get_encoder()
        dense = _load_dense(folder / config.dense) if config.dense else None
        tokenizer = _load_tokenizer(folder, config)
    except Exception as error:  # malformed files make transformers and safetensors raise errors without a common base class
        raise EncoderError(f"cannot load an encoder from {folder}: {type(error).__name__}: {error}") from error
    encoder = TransformerEncoder(transformer, dense, config.normalize, config.pooling).eval().requires_grad_(False)
    return LoadedEncoder(encoder, tokenizer, msgspec.structs.replace(config, weights_sha256=digest), folder)


def _load_transformer(folder: Path, model_config: PretrainedConfig, four_bit: torch.dtype | None) -> PreTrainedModel:
    model_config.use_cache = False  # nothing is generated
    _require_plausible(model_config, folder)
    # Fused attention on CPUs does not support dropout, and it trains twice as fast. Dropout elsewhere is unchanged.
    for name in ("attention_probs_dropout_prob", "attention_dropout"):
        if hasattr(model_config, name):
            setattr(model_config, name, 0.0)
    options: dict[str, Any] = {}
    if four_bit is not None:
        import bitsandbytes

        options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=four_bit
        )
        options["device_map"] = {"": best_device()}
    with quiet():
        transformer: PreTrainedModel = AutoModel.from_pretrained(
            folder, config=model_config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, **options
        )
    if getattr(transformer, "pooler", None) is not None:
        transformer.pooler = None  # type: ignore[assignment]  # a layer for pretraining tasks, unused here
    if four_bit is not None:
        for module in transformer.modules():
            if isinstance(module, bitsandbytes.nn.Linear4bit):  # type: ignore[attr-defined]
                # If set, a forward pass without gradients repacks the weights for inference, and training then breaks: layers
                # with biases raise an error, and layers without biases silently lose gradients.
                module.support_avx512bf16_for_cpu = False
    return transformer


def _require_plausible(model_config: PretrainedConfig, folder: Path) -> None:
    """Reject a configuration with more layers than the weights have tensors: layers are built before weights are read."""
    tensors = 0
    for file in folder.glob(WEIGHTS):
        with safe_open(file, framework="np") as weights:
            tensors += len(list(weights.keys()))
    layers = {name: getattr(model_config, name, 0) or 0 for name in ("num_hidden_layers", "num_decoder_layers")}
    if excess := {name: value for name, value in layers.items() if value > tensors}:
        raise ValueError(f"config.json sets {excess}, but the weights contain only {tensors} tensors")


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


def read_config(folder: Path) -> PretrainedConfig:
    """Read config.json and convert Alibaba's "new" architecture (Stella) to transformers' `gte`.

    In the published code, NTK scaling of the rotary embedding equals linear scaling with `rope_theta * s` and the factor
    `s ** (2 / head_dim)`. Without it, or with "dynamic" scaling, the embeddings are silently wrong.

    Raises:
        OSError: If config.json is missing.
        ValueError: If the architecture or its rotary scaling is not supported.
    """
    raw: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # These keys make transformers load code or libraries, which a configuration file should not choose.
    for key in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "quantization_config"):
        if raw.get(key) not in (None, "eager", "sdpa"):
            raise ValueError(f"config.json sets {key} to {raw[key]!r}, which is not allowed")
    if raw.get("model_type") != "new":
        published: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        return published
    theta, scaling = float(raw.pop("rope_theta", 10_000.0)), raw.pop("rope_scaling", None)
    if scaling is None:
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    elif scaling.get("type") == "ntk":
        s, head_dim = float(scaling["factor"]), raw["hidden_size"] // raw["num_attention_heads"]
        rope = {"rope_type": "linear", "rope_theta": theta * s, "factor": s ** (2 / head_dim)}
    else:
        raise ValueError(f"rope_scaling has type {scaling.get('type')!r}; this architecture supports ntk or none")
    for key in ("model_type", "auto_map", "architectures", "torch_dtype"):
        raw.pop(key, None)
    rewritten: PretrainedConfig = AutoConfig.for_model("gte", **raw, rope_parameters=rope)
    return rewritten


def _positions(config: PretrainedConfig) -> int:
    """Maximum number of tokens that the encoder supports."""
    positions = getattr(config, "max_position_embeddings", None) or sys.maxsize
    offset = config.pad_token_id + 1 if config.model_type in vocabulary.POSITIONS_BEHIND_PADDING else 0
    return int(positions - offset)


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


def _load_dense(folder: Path) -> nn.Linear:
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    activation = settings.get("activation_function", "torch.nn.modules.linear.Identity").rsplit(".", 1)[-1]
    if activation != "Identity":
        raise ValueError(f"the Dense layer in {folder} has the activation {activation}; supported: Identity")
    dense = nn.Linear(settings["in_features"], settings["out_features"], bias=settings.get("bias", True))
    weights = load_file(folder / "model.safetensors")
    dense.load_state_dict({name.removeprefix("linear."): tensor.float() for name, tensor in weights.items()})
    return dense


def _load_tokenizer(folder: Path, config: EncoderConfig) -> Tokenizer:
    if not (folder / "tokenizer.json").is_file():
        # Older repositories have no fast tokenizer; transformers converts the slow one.
        fast = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        settings = json.dumps({"pad_token": fast.pad_token, "tokenizer_class": type(fast).__name__}).encode()
        content = fast.backend_tokenizer.to_str().encode()
    else:
        config_file = folder / "tokenizer_config.json"
        content, settings = (folder / "tokenizer.json").read_bytes(), config_file.read_bytes() if config_file.is_file() else b"{}"
    return Tokenizer(_with_prefix(content, config.prefix) if config.prefix else content, settings, config.max_length)


def _with_prefix(content: bytes, prefix: str) -> bytes:
    """Make a tokenizer put a prefix before each text, unless it does so already, as that of a saved encoder."""
    tokenizer = tokenizers.Tokenizer.from_buffer(content)
    prepend, steps = normalizers.Prepend(prefix), tokenizer.normalizer
    if steps is not None and prepend.__getstate__() in steps.__getstate__():
        return content
    tokenizer.normalizer = prepend if steps is None else normalizers.Sequence([prepend, steps])
    return tokenizer.to_str().encode()
