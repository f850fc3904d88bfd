"""Low-rank adapters: attach, check the target modules, save, load, merge."""

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
from reviewguard.models.text_model import Encoder
from reviewguard.models.transformer import TransformerEncoder

if TYPE_CHECKING:
    import peft

WEIGHTS: Final = "adapter_model.safetensors"
_LAYER: Final = re.compile(r"(.*?)\.(\d+)\.(?:.*\.)?([^.]+)")


def attach(encoder: TransformerEncoder, lora: LoraConfig, base: EncoderConfig) -> peft.PeftModel:
    """Add new adapters to an encoder's linear layers; afterwards only they are trainable.

    Args:
        encoder: Changed in place.
        lora: Adapter settings, including the target modules.
        base: Source of the encoder, recorded in the adapter's configuration.

    Raises:
        ConfigError: If a target module is missing in a layer. The message lists the available names.
    """
    import peft

    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    if isinstance(targets, list):
        _require_targets(encoder.transformer, targets)
    # A bundle stores a local encoder under this name; the path of the local folder must not be published.
    name = "encoder" if Path(base.repo).exists() else base.repo
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
    """Whether this encoder has adapters."""
    # Importing PEFT imports bitsandbytes, which may download kernels. A model without adapters needs neither.
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(encoder, TransformerEncoder) and isinstance(encoder.transformer, peft.PeftModel)


def adapter_files(encoder: TransformerEncoder) -> dict[str, bytes]:
    """The adapter in PEFT's own format: contents by file name."""
    transformer: Any = encoder.transformer  # a PeftModel
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        transformer.save_pretrained(scratch, save_embedding_layers=False)
        return {name: (Path(scratch) / name).read_bytes() for name in ("adapter_config.json", WEIGHTS)}


def load_adapter(encoder: TransformerEncoder, lora: LoraConfig, base: EncoderConfig, weights: bytes) -> None:
    """Attach adapters and fill them from the contents of `adapter_model.safetensors`.

    The recipe defines how they are attached. `adapter_config.json` is not read, because it can make PEFT do other things.

    Raises:
        BundleError: If the tensors do not match the recipe.
    """
    from peft.utils import set_peft_model_state_dict

    try:
        model, tensors = attach(encoder, lora, base), load(weights)
        expected = _tensors(model)
        shapes = [{name: tuple(tensor.shape) for name, tensor in named.items()} for named in (expected, tensors)]
        if shapes[0] != shapes[1]:
            wrong = sorted(name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name))
            raise ValueError(f"{len(wrong)} tensors are missing, unexpected or of the wrong shape, such as {wrong[0]}")
        set_peft_model_state_dict(model, tensors)
    except (ConfigError, ValueError, SafetensorError) as error:
        raise BundleError(f"the adapter does not match its recipe: {error}") from error


def merge(encoder: TransformerEncoder) -> None:
    """Merge the adapters into the base weights, in float32 and in place.

    4-bit weights are dequantised first: the adapters were trained on these values, and rounding the sum to 4 bits would lose most
    of the update.
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

    # By default, PEFT queries the Hub to check whether the vocabulary has grown.
    tensors: dict[str, Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return tensors


def _require_targets(transformer: nn.Module, targets: list[str]) -> None:
    """Check that each target is a linear layer in every layer of each stack that contains it."""
    layers: dict[str, set[str]] = defaultdict(set)
    linear: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path, module in transformer.named_modules():
        if match := _LAYER.fullmatch(path):
            stack, layer, name = match.groups()
            layers[stack].add(layer)
            if isinstance(module, nn.Linear):
                linear[name][stack].add(layer)
    for target in targets:
        if target not in linear:
            raise ConfigError(
                f"lora.target_modules names {target!r}, which is not a linear layer of this model; {nearest(target, linear)}"
            )
        for stack, present in linear[target].items():
            if missing := layers[stack] - present:
                raise ConfigError(
                    f"lora.target_modules names {target!r}, which is missing in layer {min(missing, key=int)} of {stack}: only "
                    f"{len(present)} of its {len(layers[stack])} layers have it. Modules in every layer: "
                    f"{', '.join(sorted(name for name, stacks in linear.items() if stacks[stack] >= layers[stack]))}"
                )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # PEFT uses deprecated property names of transformers.
        warnings.simplefilter("ignore")
        yield
