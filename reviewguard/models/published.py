"""Conversion of a trained model to a sequence classification class of transformers, if an equivalent one exists."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PreTrainedModel

from reviewguard.models.heads import LinearHead
from reviewguard.models.text_model import TextModel
from reviewguard.models.transformer import TransformerEncoder


def as_published(model: TextModel, classes: Sequence[str], pad_id: int) -> PreTrainedModel | None:
    """Build the class that `pipeline("text-classification")` loads from a model's modules, without copying them.

    Only decoders have an equivalent class: a linear layer without bias on the hidden state of the last token. The classes for
    encoders and for T5 use another hidden state and additional layers.

    Args:
        model: Model without adapters.
        classes: Labels in the order of the logits.
        pad_id: Id of the padding token, by which the class finds the last token.

    Returns:
        The transformers model. None: no class is equivalent.
    """
    encoder, head = model.encoder, model.head
    assert isinstance(encoder, TransformerEncoder)
    config = copy.deepcopy(encoder.config)
    class_: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if class_ is None or model.bag is not None or encoder.pooling != "last" or config.is_encoder_decoder or encoder.normalize:
        return None
    if not isinstance(head, LinearHead) or bool(head.bias.any()):
        return None
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: index for index, name in config.id2label.items()}
    config.problem_type, config.pad_token_id = "single_label_classification", pad_id
    with torch.device("meta"):
        whole = class_(config)
    score = getattr(whole, "score", None)
    if not isinstance(score, torch.nn.Linear) or getattr(score, "bias", None) is not None:
        return None
    setattr(whole, whole.base_model_prefix, encoder.transformer)
    score.weight = torch.nn.Parameter(head.weight.detach(), requires_grad=False)
    assert isinstance(whole, PreTrainedModel)
    return whole
