"""Conversion between a torch model and the files of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from reviewguard.bundle.folder import Bundle, well_formed
from reviewguard.bundle.manifest import ADAPTER, HEAD, Manifest
from reviewguard.config import EncoderConfig, LoopConfig, LoraConfig, decode
from reviewguard.data.tokens import Tokenizer
from reviewguard.errors import BundleError
from reviewguard.inference.model import TrainedModel
from reviewguard.models import lora, ngrams, tfidf
from reviewguard.models.device import best_device, compute_dtype
from reviewguard.models.encoder import load_encoder
from reviewguard.models.heads import rebuild
from reviewguard.models.published import as_published
from reviewguard.models.text_model import Encoder, TextModel
from reviewguard.models.tfidf import TfidfEncoder
from reviewguard.models.transformer import TransformerEncoder, transformer_files

#: File of the n-gram scores in a bundle.
NGRAMS: Final = "ngrams.safetensors"
#: File with the ids of the pieces that a pruned, otherwise published encoder keeps.
VOCABULARY: Final = "vocabulary.safetensors"
#: How the names of the files start that contain the torch model, and that an export omits.
WEIGHTS: Final = (ADAPTER, "encoder/", HEAD, NGRAMS, VOCABULARY, f"{tfidf.MODEL}.")


def model_files(model: TextModel, tokenizer: Tokenizer, manifest: Manifest) -> dict[str, bytes]:
    """The files that a bundle needs in addition to those that the encoder was loaded from: contents by name."""
    head = {name: tensor.detach().cpu().contiguous() for name, tensor in model.head.state_dict().items()}
    contents = {HEAD: save(head)}
    if model.bag is not None:
        contents[NGRAMS] = ngrams.to_bytes(model.bag)
    if isinstance(model.encoder, TfidfEncoder):
        return contents | tfidf.to_files(model.encoder, tfidf.MODEL)
    assert isinstance(model.encoder, TransformerEncoder)
    if model.encoder.vocabulary is not None and not model.encoder.tuned:
        contents[VOCABULARY] = save({"ids": torch.from_numpy(model.encoder.vocabulary)})
    if lora.is_adapted(model.encoder):
        contents |= {ADAPTER + name: content for name, content in lora.adapter_files(model.encoder).items()}
    if model.encoder.tuned:
        # With a tokenizer in the same folder, these weights can be trained further. If transformers has a class for the whole
        # model, that class is written, and its pipeline needs a tokenizer that normalises texts.
        whole = as_published(model, manifest.classes, tokenizer.pad_id)
        of_encoder = transformer_files(model.encoder.transformer if whole is None else whole)
        of_encoder |= tokenizer.files() if whole is None else tokenizer.files(manifest.normalization)
        contents |= {f"encoder/{name}": content for name, content in of_encoder.items()}
    return contents


def load_baseline(trained: TrainedModel) -> TfidfEncoder | None:
    """The baseline that was fitted on the model's training rows, if the model contains one."""
    return tfidf.from_files(trained.read, tfidf.BASELINE) if f"{tfidf.BASELINE}.json" in trained.files else None


def load_model(bundle: Bundle, recipe: Mapping[str, Any]) -> TextModel:
    """Rebuild a model from its bundle. An encoder that is not in the bundle is fetched again and checked against its hash.

    Args:
        bundle: Bundle that contains `head.safetensors`.
        recipe: The bundle's recipe, with the path of a local encoder on this machine.

    Raises:
        BundleError: If the head is malformed, or head, n-grams, adapter and encoder do not match.
        EncoderError: If the encoder is not available.
    """
    encoder: Encoder
    if f"{tfidf.MODEL}.json" in bundle:
        encoder = tfidf.from_files(bundle.read, tfidf.MODEL)
    else:
        encoder = _transformer(bundle, decode(recipe.get("encoder", {}), EncoderConfig, "encoder"))
    try:
        bag = ngrams.from_bytes(bundle.read(NGRAMS)) if NGRAMS in bundle else None
        head = rebuild(bundle.manifest.head, load(bundle.read(HEAD)))
        with torch.inference_mode():
            width = head(torch.zeros(1, encoder.width + (bag.width if bag else 0))).shape[1]
    except BundleError:  # itself a ValueError
        raise
    except (ValueError, RuntimeError, IndexError, SafetensorError) as error:
        raise BundleError(f"{bundle.folder} has a head that cannot be used: {error}") from error
    if width != len(bundle.manifest.classes):
        raise BundleError(f"the head of {bundle.folder} has {width} logits for {len(bundle.manifest.classes)} classes")
    return TextModel(encoder, head, bag).eval().requires_grad_(False).to(best_device())


def _transformer(bundle: Bundle, config: EncoderConfig) -> TransformerEncoder:
    folder = None
    if "encoder/config.json" in bundle:
        # The manifest has the hashes of these files. The hash in the recipe is that of the weights before training.
        folder, config = bundle.folder / "encoder", msgspec.structs.replace(config, weights_sha256="")
    elif not config.weights_sha256:
        raise BundleError(f"{bundle.folder} does not pin its encoder's weights; models with unknown weights are not loaded")
    recipe, adapted = bundle.manifest.recipe, ADAPTER + lora.WEIGHTS in bundle
    four_bit = adapted and recipe.get("adapter") == "qlora"
    dtype = compute_dtype(decode(recipe.get("loop", {}), LoopConfig, "loop").precision)
    encoder = load_encoder(config, folder, dtype if four_bit else None).encoder
    if VOCABULARY in bundle:
        with well_formed(VOCABULARY):
            encoder.prune(load(bundle.read(VOCABULARY))["ids"].numpy())
    if adapted:
        lora.load_adapter(encoder, decode(recipe["lora"], LoraConfig, "lora"), config, bundle.read(ADAPTER + lora.WEIGHTS))
    return encoder
