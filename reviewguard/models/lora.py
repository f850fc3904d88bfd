"""Low-rank adapters: attach, check that they sit where they were asked for, save, load, merge."""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from reviewguard.config import EncoderConfig, LoraConfig
from reviewguard.errors import BundleError, ConfigError, nearest
from reviewguard.models.encoder import Encoder

if TYPE_CHECKING:
    import peft

WEIGHTS: Final = "adapter_model.safetensors"
_LAYER: Final = re.compile(r"(.*?)\.(\d+)\.(?:.*\.)?([^.]+)")


def attach(encoder: Encoder, lora: LoraConfig, base: EncoderConfig) -> peft.PeftModel:
    """Put new adapters on an encoder's linear layers; only they are trainable afterwards.

    Args:
        encoder: Changed in place.
        lora: What to attach, and where.
        base: Where the encoder came from, for the adapter's own configuration.

    Raises:
        ConfigError: If a module asked for is not there in every layer, with the names that exist.
    """
    import peft

    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    if isinstance(targets, list):
        _require_targets(encoder.transformer, targets)
    # A bundle carries an encoder from a local folder under this name; the folder itself is nobody's business.
    name = "encoder" if Path(base.repo).is_dir() else base.repo
    config = peft.LoraConfig(
        task_type=peft.TaskType.FEATURE_EXTRACTION,
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=targets,
        use_rslora=lora.rank_stabilized,
        base_model_name_or_path=name,
        revision=base.revision or None,
    )
    with _quiet():
        model = peft.get_peft_model(encoder.transformer, config)
    model.peft_config["default"].base_model_name_or_path = name
    encoder.transformer = model
    return model


def is_adapted(encoder: Encoder) -> bool:
    """Whether adapters are on this encoder."""
    # PEFT imports bitsandbytes, which fetches kernels where it can: a model without adapters has no need of either.
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(encoder.transformer, peft.PeftModel)


def adapter_files(encoder: Encoder) -> dict[str, bytes]:
    """The adapter in PEFT's own format: contents by file name."""
    transformer: Any = encoder.transformer  # a PeftModel
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        transformer.save_pretrained(scratch, save_embedding_layers=False)
        return {name: (Path(scratch) / name).read_bytes() for name in ("adapter_config.json", WEIGHTS)}


def load_adapter(encoder: Encoder, lora: LoraConfig, base: EncoderConfig, weights: bytes) -> None:
    """Attach adapters and fill them from the contents of `adapter_model.safetensors`.

    The recipe says how they are attached. The folder's `adapter_config.json`, which can ask PEFT for other things, is not read.

    Raises:
        BundleError: If the tensors are not the ones that the recipe asks for.
    """
    from peft.utils import set_peft_model_state_dict

    try:
        model, tensors = attach(encoder, lora, base), load(weights)
        expected = _tensors(model)
        shapes = [{name: tuple(tensor.shape) for name, tensor in of.items()} for of in (expected, tensors)]
        if shapes[0] != shapes[1]:
            odd = sorted(name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name))
            raise ValueError(f"{len(odd)} tensors are missing, unknown or of another shape, such as {odd[0]}")
        set_peft_model_state_dict(model, tensors)
    except (ConfigError, ValueError, SafetensorError) as error:
        raise BundleError(f"the adapter does not fit its recipe: {error}") from error


def merge(encoder: Encoder) -> None:
    """Fold the adapters into the weights below them, in float32, in place.

    Of a 4-bit encoder the weights are dequantised first: they are what was trained on, and rounding the sum to 4 bits again would
    lose most of the update.
    """
    import peft
    from peft.utils import set_peft_model_state_dict

    adapted = encoder.transformer
    assert isinstance(adapted, peft.PeftModel)
    tensors = _tensors(adapted)
    config = adapted.peft_config["default"]
    with _quiet():
        base = adapted.unload()
        if getattr(base, "hf_quantizer", None) is not None:
            base = base.dequantize(torch.float32)
        fresh = peft.get_peft_model(base, config)
        set_peft_model_state_dict(fresh, tensors)
        merged = fresh.merge_and_unload()
    encoder.transformer = merged.float().eval().requires_grad_(False)
    encoder.tuned = True


def _tensors(model: peft.PeftModel) -> dict[str, Tensor]:
    from peft.utils import get_peft_model_state_dict

    # Left to itself, PEFT asks the Hub whether the vocabulary has grown.
    tensors: dict[str, Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return tensors


def _require_targets(transformer: nn.Module, targets: list[str]) -> None:
    """Check that each target names linear layers in every layer of every stack that has it."""
    layers: dict[str, set[str]] = defaultdict(set)
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path, module in transformer.named_modules():
        if match := _LAYER.fullmatch(path):
            stack, layer, name = match.groups()
            layers[stack].add(layer)
            if isinstance(module, nn.Linear):
                found[name][stack].add(layer)
    for target in targets:
        if target not in found:
            raise ConfigError(
                f"lora.target_modules asks for {target!r}, which is no linear layer of this model; {nearest(target, found)}"
            )
        for stack, own in found[target].items():
            if missing := layers[stack] - own:
                raise ConfigError(
                    f"lora.target_modules asks for {target!r}, which layer {min(missing, key=int)} of {stack} lacks and "
                    f"{len(own)} of its {len(layers[stack])} layers have. In every layer: "
                    f"{', '.join(sorted(name for name, stacks in found.items() if stacks[stack] >= layers[stack]))}"
                )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # PEFT asks transformers for properties under their former names.
        warnings.simplefilter("ignore")
        yield
