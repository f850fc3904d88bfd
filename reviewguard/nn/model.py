"""The one model that every approach is: encoder, perhaps n-grams beside it, head, logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from reviewguard.bundle import ADAPTER, HEAD, Bundle, Manifest
from reviewguard.config import EncoderConfig, LoopConfig, LoraConfig, decode
from reviewguard.errors import BundleError
from reviewguard.nn import lora, ngrams
from reviewguard.nn.device import best_device, compute_dtype, token_budget
from reviewguard.nn.encoder import Encoder, load_encoder, transformer_files
from reviewguard.nn.heads import Head, rebuild
from reviewguard.nn.ngrams import NgramBag
from reviewguard.nn.published import as_published
from reviewguard.scoring import Floats
from reviewguard.tokens import Batch, Tokenizer

#: Where a bundle keeps the bag of n-grams.
NGRAMS: Final = "ngrams.safetensors"


class TextModel(nn.Module):
    """An encoder under a head; a `reviewguard.scoring.Scorer` on torch."""

    workers = 1  # torch spreads each batch over all cores itself

    def __init__(self, encoder: Encoder, head: Head, bag: NgramBag | None = None) -> None:
        """Join an encoder, and a bag of n-grams if there is one, to a head of their width together."""
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.bag = bag
        # By this name accelerate looks for the layers that FSDP shards each by itself.
        layers = getattr(encoder.transformer, "_no_split_modules", None) or ()
        self._no_split_modules = sorted({type(module).__name__ for module in encoder.modules()} & set(layers))

    @property
    def name(self) -> str:
        """Engine and device."""
        return f"torch on {next(self.parameters()).device}"

    @property
    def token_budget(self) -> int:
        """Padded tokens that a batch may hold."""
        return token_budget(next(self.parameters()).device)

    def embeddings(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """What the head reads, float32 (batch, width), of int64 (batch, length) ids and mask."""
        features: Tensor = self.encoder(input_ids, attention_mask)
        return features if self.bag is None else torch.cat([features, self.bag(input_ids, attention_mask)], dim=1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64 (batch, length) ids and mask to float32 logits (batch, classes)."""
        logits: Tensor = self.head(self.embeddings(input_ids, attention_mask))
        return logits

    def logits(self, batch: Batch, *, alone: bool = False) -> Floats:
        """Logits, float32 (batch, classes), of numpy inputs; in evaluation mode, without gradients."""
        return run(self, batch)


def run(module: nn.Module, batch: Mapping[str, NDArray[Any]]) -> Floats:
    """Apply a module to a numpy batch, on whatever device it is, in evaluation mode and without gradients."""
    device = next(module.parameters()).device
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            out: Tensor = module(**{name: torch.from_numpy(values).to(device) for name, values in batch.items()})
            values: Floats = out.float().cpu().numpy()
    finally:
        module.train(was_training)
    return values


def model_files(model: TextModel, tokenizer: Tokenizer, manifest: Manifest) -> dict[str, bytes]:
    """What a bundle must hold of a model beyond what its encoder was loaded from: contents by name."""
    head = {name: tensor.detach().cpu().contiguous() for name, tensor in model.head.state_dict().items()}
    contents = {HEAD: save(head)}
    if model.bag is not None:
        contents[NGRAMS] = ngrams.to_bytes(model.bag)
    if lora.is_adapted(model.encoder):
        contents |= {ADAPTER + name: content for name, content in lora.adapter_files(model.encoder).items()}
    if model.encoder.tuned:
        # With the tokenizer beside them, these weights can be trained on. Where transformers has a class for the whole model, it
        # is what is written, and its pipeline needs a tokenizer that normalises.
        whole = as_published(model, manifest.classes, tokenizer.pad_id)
        of_encoder = transformer_files(model.encoder.transformer if whole is None else whole)
        of_encoder |= tokenizer.files() if whole is None else tokenizer.files(manifest.normalization)
        contents |= {f"encoder/{name}": content for name, content in of_encoder.items()}
    return contents


def load_model(bundle: Bundle, config: EncoderConfig) -> TextModel:
    """Rebuild a model from its bundle; the encoder is fetched again, pinned by hash, where the bundle does not carry it.

    Args:
        bundle: With `head.safetensors`.
        config: The encoder of its recipe.

    Raises:
        BundleError: If head, n-grams, adapter and encoder do not fit together or the head is malformed.
        EncoderError: If the encoder cannot be had.
    """
    folder = None
    if "encoder/config.json" in bundle:
        # Its hashes are in the manifest; those of the recipe are of the weights that training began with.
        folder, config = bundle.folder / "encoder", msgspec.structs.replace(config, weights_sha256="")
    elif not config.weights_sha256:
        raise BundleError(f"{bundle.folder} does not pin its encoder's weights; a model of unknown weights is not loaded")
    recipe, adapted = bundle.manifest.recipe, ADAPTER + lora.WEIGHTS in bundle
    four_bit = adapted and recipe.get("adapter") == "qlora"
    dtype = compute_dtype(decode(recipe.get("loop", {}), LoopConfig, "loop").precision)
    encoder = load_encoder(config, folder, dtype if four_bit else None).encoder
    if adapted:
        lora.load_adapter(encoder, decode(recipe["lora"], LoraConfig, "lora"), config, bundle.read(ADAPTER + lora.WEIGHTS))
    try:
        bag = ngrams.from_bytes(bundle.read(NGRAMS)) if NGRAMS in bundle else None
        head = rebuild(bundle.manifest.head, load(bundle.read(HEAD)))
        with torch.inference_mode():
            width = head(torch.zeros(1, encoder.width + (bag.width if bag else 0))).shape[1]
    except (ValueError, RuntimeError, IndexError, SafetensorError) as error:
        raise BundleError(f"{bundle.folder} has a head that cannot be used: {error}") from error
    if width != len(bundle.manifest.classes):
        raise BundleError(f"the head of {bundle.folder} has {width} logits for {len(bundle.manifest.classes)} classes")
    return TextModel(encoder, head, bag).eval().requires_grad_(False).to(best_device())
