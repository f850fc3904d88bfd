"""A trained model as transformers' own class for sequence classification, where one computes the same."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PreTrainedModel

from reviewguard.models.heads import LinearHead
from reviewguard.models.text_model import TextModel


def as_published(model: TextModel, classes: Sequence[str], pad_id: int) -> PreTrainedModel | None:
    """Put a model's parts, without copying them, into the class that `pipeline("text-classification")` loads.

    Decoders have one: it reads the state of the last token by a linear layer without bias, as ours do. The classes of encoders,
    and of T5, read another state, through layers that ours has not.

    Args:
        model: Not adapted.
        classes: Labels in the order of the logits.
        pad_id: By which the class finds the last token.

    Returns:
        None where no class computes the same.
    """
    encoder, head, config = model.encoder, model.head, copy.deepcopy(model.encoder.config)
    found: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if found is None or model.bag is not None or encoder.pooling != "last" or config.is_encoder_decoder or encoder.normalize:
        return None
    if not isinstance(head, LinearHead) or bool(head.bias.any()):
        return None
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: index for index, name in config.id2label.items()}
    config.problem_type, config.pad_token_id = "single_label_classification", pad_id
    with torch.device("meta"):
        whole = found(config)
    score = getattr(whole, "score", None)
    if not isinstance(score, torch.nn.Linear) or getattr(score, "bias", None) is not None:
        return None
    setattr(whole, whole.base_model_prefix, encoder.transformer)
    score.weight = torch.nn.Parameter(head.weight.detach(), requires_grad=False)
    assert isinstance(whole, PreTrainedModel)
    return whole
