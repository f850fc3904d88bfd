"""Loading of published encoders, with their tokenizers."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import tokenizers
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import normalizers
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, BitsAndBytesConfig, PretrainedConfig, PreTrainedModel

from reviewguard.config import EncoderConfig, Recipe
from reviewguard.data.tokens import Tokenizer
from reviewguard.errors import EncoderError
from reviewguard.models import vocabulary
from reviewguard.models.device import best_device
from reviewguard.models.sources import WEIGHTS, encoder_files, locate, weights_sha256
from reviewguard.models.transformer import TransformerEncoder, quiet


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
